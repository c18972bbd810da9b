"""Large validation data on the device are evaluated in chunks: same values, and memory that does not grow with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Problem, sgd
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
    # these are no means over rows, the last because of few rows
    "perplexity": lambda params, data: jnp.exp(loss(params, data)),
    "widest": lambda params, data: jnp.max(logits(params, data[0])),
    "of_far_rows": lambda params, data: jnp.average(logits(params, data[0])[:, 0], weights=data[0][:, 0] > 3.5),
}


def exact(params, x, y):
    """The values by NumPy in float64."""
    z = np.tanh(x.astype(float) @ np.asarray(params["a"], float)) @ np.asarray(params["b"], float)
    rows = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y]
    value = rows.mean() + 1e-3 * np.sum(np.asarray(params["a"], float) ** 2)
    values = {"loss": value, "accuracy": np.mean(z.argmax(1) == y), "perplexity": np.exp(value), "widest": z.max()}
    return values | {"of_far_rows": z[x[:, 0] > 3.5, 0].mean()}


ROWS = len(X)


def make(penalty=0.0, metrics=METRICS):
    """A problem whose validation data are cut in 3 chunks, one of them shorter, and the test data in 2 equal ones."""
    own = lambda params, batch: loss(params, batch) + penalty * jnp.sum(params["b"] ** 2)
    held_out = {"validation": (X, Y), "test": (X[-20_000:], Y[-20_000:])}
    return Problem(own, init, data=(X[:50], Y[:50]), metrics=metrics, **held_out)


def evaluate_at(problem, arrays, static=None, traced=None):
    """The values of a run by name, and the bytes of the arrays that its evaluation makes."""
    call = functools.partial(evaluate, problem, sgd, t=jnp.int32(0), key=jax.random.key(0))
    run = lambda traced, params, arrays: call(
        {"learning_rate": 0.1, **(static or {}), **traced}, State(params, (), optax.EmptyState()), arrays
    )
    arguments = traced or {}, PARAMS, arrays
    compiled = jax.jit(run).lower(*arguments).compile()
    return compiled(*arguments), compiled.memory_analysis().temp_size_in_bytes


PARAMS = {
    "a": 0.5 * RNG.normal(size=(4, WIDTH)).astype(np.float32),
    "b": 0.1 * RNG.normal(size=(WIDTH, 2)).astype(np.float32),
}
BOUND = 1.2 * CHUNK_BYTES  # without chunks the hidden layer of all rows takes twice as much


def test_values_that_are_means_over_rows_are_evaluated_in_chunks():
    problem = make()
    arrays = gdkit.binding.get_arrays(problem)
    found, whole = evaluate_at(problem, arrays)
    for part in ("validation", "test"):
        for name, value in exact(PARAMS, *getattr(problem, part)).items():
            assert float(found[f"{part}_{name}"]) == pytest.approx(value, rel=1e-5), (part, name)
    only_means, in_chunks = evaluate_at(make(metrics={"accuracy": accuracy}), arrays)
    assert float(only_means["test_accuracy"]) == pytest.approx(float(found["test_accuracy"]), rel=1e-6)
    assert in_chunks < BOUND < ROWS * WIDTH * 4 < whole  # the others see all rows


def test_problems_of_factories_are_cut_unless_a_swept_value_decides_them():
    factory = functools.partial(make, metrics=None)
    arrays, penalty = gdkit.binding.get_arrays(make()), {"problem.penalty": 1.0}
    expected = exact(PARAMS, X, Y)["loss"] + float(jnp.sum(PARAMS["b"] ** 2))
    for settings, is_cut in (({"static": penalty}, True), ({"traced": penalty}, False)):
        found, size = evaluate_at(factory, arrays, **settings)
        assert float(found["validation_loss"]) == pytest.approx(expected, rel=1e-5)
        assert (size < BOUND) == is_cut


def test_code_that_takes_all_rows_only_gets_them():
    def mean(params, data):
        if len(data[0]) not in (ROWS, 20_000):
            raise ValueError("all rows only")
        return jnp.mean(logits(params, data[0]) ** 2)

    problem = make(metrics={"mean": mean})
    found, size = evaluate_at(problem, gdkit.binding.get_arrays(problem))
    z = np.tanh(X.astype(float) @ np.asarray(PARAMS["a"], float)) @ np.asarray(PARAMS["b"], float)
    assert float(found["validation_mean"]) == pytest.approx((z**2).mean(), rel=1e-4) and size > BOUND
