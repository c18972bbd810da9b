"""gdkit.sgd against optax.sgd and closed forms; ascent, schedules, clipping, and optimizers by name."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick

import gdkit
from gdkit import optimizers, problems
from gdkit.environment import enable_x64
from gdkit.errors import InputTypeError, InputValueError

STEPS = 8
VARIANTS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "momentum of zero": {"momentum": 0.0},
}


# Bit for bit


def _scalar():
    return lambda x: jnp.square(x - 3) + jnp.sin(x), np.float32(0.3)


def _pytree():
    rng = np.random.default_rng(1)
    params = {"a": rng.normal(size=(3, 2)), "b": (rng.normal(size=(2,)), rng.normal())}
    loss = lambda p: jnp.sum(jnp.square(jnp.tanh(p["a"] @ p["b"][0]) - p["b"][1]))
    return loss, params


def _mlp():
    x = np.random.default_rng(2).normal(size=(20, 3))
    problem = problems.mlp((x, np.arange(20) % 2), widths=(4,), activation="tanh", split=(0.8, 0.2))
    data = jax.tree.map(jnp.asarray, problem.data)
    return lambda params: problem.loss(params, data), problem.init(jax.random.key(0))


def _run(optimizer, loss, params, steps=STEPS):
    """Params, and the trace where there is one, after each step of a jitted scan."""

    def body(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, _trace(state))

    return jax.jit(lambda p: jax.lax.scan(body, (p, optimizer.init(p)), length=steps)[1])(params)


def _trace(state):
    """The leaves of the state that are like the params; the count of a schedule is left out."""
    return [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@pytest.mark.parametrize(
    "make, rate, dtype",
    [
        pytest.param(_scalar, 0.05, "float32", marks=pytest.mark.full),
        (_pytree, 0.05, "float32"),
        pytest.param(_mlp, 0.05, "float32", marks=pytest.mark.full),
        (_mlp, 0.05, "float64"),
        (_pytree, optax.exponential_decay(0.05, 2, 0.7), "float32"),
        (_scalar, optax.exponential_decay(0.05, 2, 0.7), "float64"),
    ],
    ids=["scalar", "pytree", "mlp", "mlp-float64", "pytree-schedule", "scalar-schedule-float64"],
)
@pytest.mark.parametrize("variant", ["plain", "momentum", "nesterov"])
def test_sgd_equals_optax_bit_for_bit(variant, make, rate, dtype):
    with enable_x64(dtype == "float64"):
        loss, params = make()
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        ours = _run(gdkit.sgd(rate, **VARIANTS[variant]), loss, params)
        theirs = _run(optax.sgd(rate, **VARIANTS[variant]), loss, params)
        chex.assert_trees_all_equal(ours, theirs)
        assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype(dtype)}


@pytest.mark.parametrize("variant", quick(VARIANTS, "plain", "nesterov", "momentum of zero"))
def test_sgd_equals_optax_bit_for_bit_with_the_learning_rate_as_a_lane(variant):
    loss, params = _mlp()
    rates = jnp.geomspace(1e-3, 1.0, 5)
    lanes = lambda factory: jax.vmap(lambda rate: _run(factory(rate, **VARIANTS[variant]), loss, params))(rates)
    chex.assert_trees_all_equal(lanes(gdkit.sgd), lanes(optax.sgd))


def test_sgd_equals_optax_bit_for_bit_through_descend():
    problem = problems.quadratic([1.0, 7.0, 30.0], start=[1.0, -2.0, 0.5])
    run = lambda factory: gdkit.descend(problem, factory, 50, hyperparameters={"learning_rate": 0.03, "momentum": 0.9})
    ours, theirs = run(gdkit.sgd), run(optax.sgd)
    chex.assert_trees_all_equal((ours.loss, ours.params), (theirs.loss, theirs.params))


def test_without_momentum_no_trace_is_kept():
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones(())}
    assert jax.tree.leaves(gdkit.sgd(0.1).init(params)) == []
    assert jax.tree.leaves(gdkit.descend(problems.parabola(), gdkit.sgd(0.1), 3).opt_state) == []
    chex.assert_trees_all_equal(gdkit.sgd(0.1, momentum=0.9).init(params).trace, jax.tree.map(jnp.zeros_like, params))
    assert jax.tree.leaves(gdkit.sgd(lambda count: 0.1).init(params)) == [0]  # the count of the schedule alone


# Closed forms on ½ Σ λ x²

EIGENVALUES = np.array([0.5, 2.0, 8.0])
START = np.array([1.0, -2.0, 0.5])
RATE, BETA = 0.2, 0.5


def _path(**hyperparameters):
    problem = problems.quadratic(EIGENVALUES, start=START)
    chosen = {"learning_rate": RATE} | hyperparameters
    return gdkit.descend(problem, gdkit.sgd, 20, hyperparameters=chosen, record_params=True).params_history


def test_plain_descent_on_a_quadratic_shrinks_by_one_minus_rate_times_curvature():
    with enable_x64():
        factors = 1 - RATE * EIGENVALUES
        np.testing.assert_allclose(_path(), factors ** np.arange(21)[:, None] * START, rtol=1e-12)


def test_heavy_ball_on_a_quadratic_follows_its_two_term_recursion():
    with enable_x64():
        x = [START, (1 - RATE * EIGENVALUES) * START]
        for _ in range(19):
            x.append((1 + BETA - RATE * EIGENVALUES) * x[-1] - BETA * x[-2])
        np.testing.assert_allclose(_path(momentum=BETA), x, rtol=1e-10)


def test_nesterov_on_a_quadratic_follows_its_two_term_recursion():
    # eliminate v from v ← g + βv, x ← x − η(g + βv): x₊ = x − η(1+β)g + β(x − x₋) + ηβ g₋, with g = λx
    with enable_x64():
        shrink = RATE * EIGENVALUES
        x = [START, (1 - (1 + BETA) * shrink) * START]
        for _ in range(19):
            x.append((1 + BETA - (1 + BETA) * shrink) * x[-1] - BETA * (1 - shrink) * x[-2])
        np.testing.assert_allclose(_path(momentum=BETA, nesterov=True), x, rtol=1e-10)


def test_nesterov_without_momentum_is_plain_descent():
    np.testing.assert_array_equal(_path(nesterov=True), _path())


# Ascent


@pytest.mark.parametrize("climber", [gdkit.ascent(optax.adam)(learning_rate=0.1), gdkit.ascent(optax.adam(0.1))])
def test_ascent_of_a_loss_is_descent_of_its_negative(climber):
    up = gdkit.Problem(lambda x: -jnp.sum(jnp.square(x - 1)), np.zeros(2, np.float32))
    down = gdkit.Problem(lambda x: jnp.sum(jnp.square(x - 1)), np.zeros(2, np.float32))
    climbed, fell = gdkit.descend(up, climber, 20), gdkit.descend(down, optax.adam(0.1), 20)
    np.testing.assert_allclose(climbed.params, fell.params, rtol=1e-6)
    np.testing.assert_allclose(climbed.loss, fell.loss, rtol=1e-6)


def test_ascent_of_a_factory_keeps_its_name_and_parameters():
    factory = gdkit.ascent(gdkit.sgd)
    assert factory.__name__ == "sgd"
    run = gdkit.descend(
        gdkit.Problem(lambda x: -jnp.square(x), np.float32(1)), factory, 3, hyperparameters={"learning_rate": 0.25}
    )
    assert float(run.params) == 0.125


# Schedules


COUNTS = np.arange(0, 131)


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("constant", {}, np.ones(131)),
        ("linear", {}, 1 - np.minimum(COUNTS / 100, 1)),
        ("linear", {"final": 0.1}, 1 - 0.9 * np.minimum(COUNTS / 100, 1)),
        ("cosine", {}, 0.5 + 0.5 * np.cos(np.pi * np.minimum(COUNTS / 100, 1))),
        ("cosine", {"final": 0.1}, 0.1 + 0.45 * (1 + np.cos(np.pi * np.minimum(COUNTS / 100, 1)))),
        ("warmup", {"warmup": 0.2}, np.minimum(COUNTS / 20, 1)),
        (
            "warmup_linear",
            {"warmup": 0.2},
            np.where(COUNTS < 20, COUNTS / 20, 1 - np.clip((COUNTS - 20) / 80, 0, 1)),
        ),
        (
            "warmup_cosine",
            {"warmup": 0.2, "final": 0.5},
            np.where(COUNTS < 20, COUNTS / 20, 0.75 + 0.25 * np.cos(np.pi * np.clip((COUNTS - 20) / 80, 0, 1))),
        ),
    ],
)
def test_schedules_equal_their_formulas(name, options, expected):
    share = optimizers.schedule(name, 100, **options)
    np.testing.assert_allclose([float(share(count)) for count in COUNTS], expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(share)(jnp.asarray(COUNTS)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "name, options, theirs",
    [
        ("linear", {"final": 0.25}, optax.linear_schedule(1.0, 0.25, 100)),
        ("cosine", {"final": 0.25}, optax.cosine_decay_schedule(1.0, 100, alpha=0.25)),
        ("warmup_cosine", {"warmup": 0.1}, optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)),
    ],
)
def test_schedules_equal_those_of_optax(name, options, theirs):
    counts = jnp.arange(120)
    np.testing.assert_allclose(optimizers.schedule(name, 100, **options)(counts), theirs(counts), atol=1e-6)


def test_a_scheduled_factory_takes_the_peak_as_a_lane():
    share = optimizers.schedule("warmup_cosine", 10, warmup=0.2)
    factory = optimizers.with_schedule(gdkit.sgd, share)
    peaks = np.array([0.05, 0.1, 0.4])
    axes = {"learning_rate": peaks}
    result = gdkit.sweep(problems.quadratic([2.0]), factory, axes, steps=10, curve_points=0)
    shares = np.where(np.arange(10) < 2, np.arange(10) / 2, 0.5 + 0.5 * np.cos(np.pi * (np.arange(10) - 2) / 8))
    x = np.prod(1 - 2 * peaks[:, None] * shares, axis=1)
    np.testing.assert_allclose(result.data.final_loss.squeeze("seed"), x**2, rtol=1e-5)


def test_a_traced_peak_traces_the_schedule_once():
    traces = []

    def share(count):
        traces.append(count)
        return 1 / (1.0 + count)

    problem, factory = problems.parabola(), optimizers.with_schedule(gdkit.sgd, share)
    run = lambda rate: gdkit.descend(problem, factory, 3, hyperparameters={"learning_rate": rate})
    run(0.1)
    assert traces
    traces.clear()
    run(0.2), run(np.float64(0.3)), run(jnp.asarray(0.4))
    assert not traces


def test_a_schedule_that_does_not_exist_is_an_error_with_the_nearest():
    with pytest.raises(InputValueError, match=r"schedule='cosin': no such name\. Did you mean 'cosine'"):
        optimizers.schedule("cosin", 10)


def test_an_option_that_a_schedule_does_not_take_is_an_error_with_the_nearest():
    with pytest.raises(InputValueError, match=r"schedule\.warmup_cosine='warm': no such name\. Did you mean 'warmup'"):
        optimizers.schedule("warmup_cosine", 10, warm=0.1)


# Clipping


def test_clipped_gradients_have_at_most_the_norm_that_is_allowed():
    optimizer = optimizers.with_clipping(gdkit.sgd, 2.0)(learning_rate=0.5)
    state = optimizer.init(jnp.zeros(2))
    for gradient, expected in (([30.0, 40.0], [-0.6, -0.8]), ([0.3, 0.4], [-0.15, -0.2])):
        update, _ = optimizer.update(jnp.array(gradient), state)
        np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_clipping_and_a_schedule_compose_as_by_hand():
    factory = optimizers.with_clipping(optimizers.with_schedule(gdkit.sgd, optimizers.schedule("linear", 4)), 1.0)
    problem = problems.quadratic([3.0, 4.0], start=[1.0, 1.0])
    run = gdkit.descend(problem, factory, 4, hyperparameters={"learning_rate": 0.5}, record_params=True)
    x = [np.ones(2)]
    for t in range(4):
        gradient = np.array([3.0, 4.0]) * x[-1]
        gradient = gradient / max(1, np.linalg.norm(gradient))
        x.append(x[-1] - 0.5 * (1 - t / 4) * gradient)
    np.testing.assert_allclose(run.params_history, x, rtol=1e-5)


# By name


@pytest.mark.parametrize("name, factory", [("sgd", gdkit.sgd), ("adam", optax.adam), ("muon", optax.contrib.muon)])
def test_optimizers_are_found_by_name(name, factory):
    assert optimizers.by_name(name) is factory


def test_a_name_that_does_not_exist_is_an_error_with_the_nearest():
    with pytest.raises(InputValueError, match=r"optimizer='adan?mw': no such name\. Did you mean 'adamw'"):
        optimizers.by_name("adanmw")


def test_a_finished_optimizer_takes_no_hyperparameters():
    with pytest.raises(InputTypeError, match=r"a finished optimizer takes no \['learning_rate'\].*Pass the factory"):
        optimizers.build(optax.adam(0.1), {"learning_rate": 0.1})


def test_a_factory_that_returns_no_optimizer_is_an_error():
    with pytest.raises(InputTypeError, match=r"the factory did not return an \(init, update\) pair.*Return an optax"):
        optimizers.build(lambda learning_rate: learning_rate, {"learning_rate": 0.1})


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (gdkit.sgd(0.1), ()),
        (optax.lbfgs(), ("value", "grad", "value_fn")),
        (optax.polyak_sgd(), ("value", "grad", "value_fn")),
        (optax.GradientTransformationExtraArgs(gdkit.sgd(0.1).init, lambda g, s, p=None, *, value: (g, s)), ("value",)),
    ],
)
def test_an_optimizer_is_offered_the_extra_arguments_that_it_accepts(optimizer, expected):
    assert optimizers.extra_arguments(optimizer) == expected
