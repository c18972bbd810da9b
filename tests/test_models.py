"""Models of other libraries go through problems.supervised, with an optax chain, a schedule and clipping."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gdkit
from gdkit import optimizers, problems
from tests.shared import quick

STEPS = 12
RATES = [0.01, 0.1, 0.5]
SPLIT = (0.5, 0.25, 0.25)


def rows():
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.int32)


# Each gives (init, apply), as problems.supervised takes them.


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.tanh(nn.Dense(8)(x)))


def flax_linen():
    model = _Linen()
    return lambda key: model.init(key, jnp.zeros((1, 5))), model.apply


class _Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))


def flax_nnx():
    make = lambda key: nnx.split(_Nnx(nnx.Rngs(key)), nnx.Param, ...)
    graph, _, rest = make(jax.random.key(0))
    return lambda key: make(key)[1], lambda params, x: nnx.merge(graph, params, rest)(x)


def equinox_partitioned():
    make = lambda key: eqx.partition(eqx.nn.MLP(5, 2, 8, 1, activation=jnp.tanh, key=key), eqx.is_inexact_array)
    _, static = make(jax.random.key(0))
    return lambda key: make(key)[0], lambda params, x: jax.vmap(eqx.combine(params, static))(x)


class _Callable(eqx.Module):
    """A module of float arrays alone: it is callable, and it is the params."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return self.weight @ x + self.bias


def equinox_module_that_is_callable():
    return _Callable(jnp.full((2, 5), 0.1), jnp.zeros(2)), lambda model, x: jax.vmap(model)(x)


def haiku():
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 2], activation=jnp.tanh)(x)))
    return lambda key: model.init(key, jnp.zeros((1, 5))), model.apply


def plain_function():
    def init(key):
        return {"w": 0.1 * jax.random.normal(key, (5, 2)), "b": jnp.zeros(2)}

    return init, lambda params, x: x @ params["w"] + params["b"][None]


MODELS = [flax_linen, flax_nnx, equinox_partitioned, equinox_module_that_is_callable, haiku, plain_function]
SHARE = optimizers.schedule("warmup_cosine", STEPS, warmup=0.25)


def chained(learning_rate, weight_decay=1e-3):
    """What a user writes with optax alone: clipping, adam, decay, and a schedule whose peak is the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lambda count: learning_rate * SHARE(count)),
    )


def problem_of(model, batch_size=None):
    init, apply = model()
    return problems.supervised(init, apply, "cross_entropy", rows(), batch_size=batch_size, split=SPLIT)


@pytest.mark.parametrize("model", quick(MODELS, flax_linen))
def test_a_model_is_swept_with_a_chain_a_schedule_and_clipping(model):
    traces = []

    def counted(learning_rate):
        traces.append(learning_rate)
        return chained(learning_rate)

    problem = problem_of(model, batch_size=8)
    result = gdkit.sweep(problem, counted, {"learning_rate": RATES}, steps=STEPS, curve_points=0)
    for name in ("final_loss", "validation_loss", "test_loss", "validation_accuracy", "test_accuracy"):
        assert np.isfinite(result.data[name]).all(), name
    assert (result.data.final_loss != result.data.initial_loss).all()
    assert len(np.unique(result.data.final_loss)) == len(RATES)
    few = len(traces)
    traces.clear()
    gdkit.sweep(problem, counted, {"learning_rate": [0.02, 0.2, 0.3]}, steps=STEPS, curve_points=0)
    assert len(traces) < few  # the checks trace anew, the program does not


def test_a_callable_module_is_params_and_not_called():
    problem = problem_of(equinox_module_that_is_callable)
    assert callable(problem.init)
    assert not problem.init_is_function


@pytest.mark.parametrize("model", [plain_function, equinox_module_that_is_callable])
def test_a_model_trains_as_in_a_loop_by_hand(model):
    problem = problem_of(model)
    run = gdkit.descend(problem, chained, STEPS, hyperparameters={"learning_rate": 0.1}, key=3)

    init, apply = model()
    key, _ = jax.random.split(jax.random.key(3))
    params = init(key) if problem.init_is_function else init
    x, y = problem.data

    @jax.jit
    def value_and_grad(params):
        loss = lambda p: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y))
        return jax.value_and_grad(loss)(params)

    optimizer, losses = chained(0.1), []
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(STEPS):
        value, grads = value_and_grad(params)
        losses.append(value)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    losses.append(value_and_grad(params)[0])
    np.testing.assert_allclose(run.loss, losses, rtol=1e-4)
    assert losses[-1] < losses[0]
    assert jax.tree.structure(run.params) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(run.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_gdkits_own_schedule_and_clipping_equal_the_chain():
    problem = problem_of(plain_function)
    factory = optimizers.with_clipping(optimizers.with_schedule(optax.adamw, SHARE), 0.5)
    ours = gdkit.descend(problem, factory, STEPS, hyperparameters={"learning_rate": 0.1, "weight_decay": 1e-3})
    chain = gdkit.descend(problem, chained, STEPS, hyperparameters={"learning_rate": 0.1})
    np.testing.assert_allclose(ours.loss, chain.loss, rtol=1e-5)
