"""Large validation data on the device are evaluated in chunks: same values, and memory that does not grow with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Problem, sgd, sweep
from gdkit.descent.chunks import CHUNK_BYTES
from gdkit.descent.evaluation import evaluate
from gdkit.types import State

WIDTH = 64
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40_003, 4)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int32)


def init(key):
    a, b = jax.random.split(key)
    return {"a": 0.5 * jax.random.normal(a, (4, WIDTH)), "b": 0.1 * jax.random.normal(b, (WIDTH, 2))}


def logits(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def loss(params, batch):
    rows = optax.softmax_cross_entropy_with_integer_labels(logits(params, batch[0]), batch[1])
    return rows.mean() + 1e-3 * jnp.sum(params["a"] ** 2)


def accuracy(params, data):
    return jnp.mean(jnp.argmax(logits(params, data[0]), axis=1) == data[1])


METRICS = {
    "accuracy": accuracy,
    "perplexity": lambda params, data: jnp.exp(loss(params, data)),  # these two are no means over rows
    "widest": lambda params, data: jnp.max(logits(params, data[0])),
}


def exact(params, x, y):
    """The values by NumPy in float64."""
    z = np.tanh(x.astype(float) @ np.asarray(params["a"], float)) @ np.asarray(params["b"], float)
    rows = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y]
    value = rows.mean() + 1e-3 * np.sum(np.asarray(params["a"], float) ** 2)
    return {"loss": value, "accuracy": np.mean(z.argmax(1) == y), "perplexity": np.exp(value), "widest": z.max()}


ROWS = len(X)


def make(penalty=0.0, metrics=METRICS, rows=ROWS):
    """A problem whose validation data are cut in 3 chunks, one of them shorter, and the test data in 2 equal ones."""
    own = lambda params, batch: loss(params, batch) + penalty * jnp.sum(params["b"] ** 2)
    held_out = {"validation": (X[:rows], Y[:rows]), "test": (X[-20_000:], Y[-20_000:])}
    return Problem(own, init, data=(X[:50], Y[:50]), metrics=metrics, **held_out)


def evaluation_of(problem, arrays_of=None, **hyperparameters):
    """The evaluation of a run, lowered, and the params that it is at."""
    params, arrays = init(jax.random.key(1)), gdkit.binding.get_arrays(arrays_of or problem)
    hyperparameters["learning_rate"] = 0.1
    call = functools.partial(evaluate, problem, sgd, t=jnp.int32(0), key=jax.random.key(0))
    run = lambda rates, params, arrays: call(rates, State(params, (), optax.EmptyState()), arrays)
    return jax.jit(run).lower(hyperparameters, params, arrays), (hyperparameters, params, arrays)


def memory(rows, metrics):
    """The bytes of the arrays that an evaluation on so many rows makes."""
    return evaluation_of(make(0.0, metrics, rows))[0].compile().memory_analysis().temp_size_in_bytes


def test_values_are_those_of_all_rows_at_once():
    problem = make()
    lowered, arguments = evaluation_of(problem)
    found = lowered.compile()(*arguments)
    for part in ("validation", "test"):
        for name, value in exact(arguments[1], *getattr(problem, part)).items():
            assert float(found[f"{part}_{name}"]) == pytest.approx(value, rel=1e-5), (part, name)


def test_memory_does_not_grow_with_the_rows():
    assert max(memory(rows, {"accuracy": accuracy}) for rows in (20_000, ROWS)) < 1.2 * CHUNK_BYTES
    assert memory(ROWS, METRICS) > ROWS * WIDTH * 4  # what is no mean over rows sees all of them


def test_problems_of_factories_are_cut_unless_a_swept_value_decides_them():
    lowered, arguments = evaluation_of(make, make(), **{"problem.penalty": 1.0})  # traced
    traced = lowered.compile()
    result = sweep(make, sgd, {"learning_rate": [0.1], "problem.penalty": gdkit.static([1.0])}, steps=2)
    params = result.state(0).params
    for found, at in ((traced(*arguments), arguments[1]), (result.lanes, params)):
        expected = exact(at, X, Y)["loss"] + float(jnp.sum(at["b"] ** 2))
        assert float(np.squeeze(found["validation_loss"])) == pytest.approx(expected, rel=1e-5)
