"""Params to evaluate are found within wrappers; optimizers that need slow params or a gradient function run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import sam, schedule_free_eval_params, schedule_free_sgd
from shared import assert_refused, quick

from gdkit import Problem, descend, optimizers, problems, sgd, sweep

START = {"a": jnp.array([0.0, 0.5]), "b": jnp.ones(2)}
STEPS = 7  # no multiple of a period


def loss(params, center=1.0):
    return jnp.sum(jnp.array([1.0, 3.0]) * (params["a"] - center) ** 2) / 2 + jnp.sum(params["b"] ** 2) / 2


PROBLEM = Problem(loss, START, data=jnp.ones(2), validation=jnp.full(2, 0.5))


def by_hand(optimizer, params=START, loss=loss, steps=STEPS, **extra):
    """A plain loop of optax."""
    state = optimizer.init(params)
    fast = lambda params: getattr(params, "fast", params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(fast(params)), state, params, **extra)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def labelled(inner, other=None):
    return optax.multi_transform({"inner": inner, "other": other or optax.sgd(0.1)}, {"a": "inner", "b": "other"})


FREE = schedule_free_sgd(0.1)
FREE_WITHIN = {  # the optimizer, and its state of schedule_free
    "chain": (optax.chain(optax.clip(10.0), FREE), lambda state: state[1]),
    "MultiSteps": (optax.MultiSteps(FREE, 2), lambda state: state.inner_opt_state),
    "apply_if_finite": (optax.apply_if_finite(FREE, 3), lambda state: state.inner_state),
    "inject_hyperparams": (
        optax.inject_hyperparams(schedule_free_sgd)(learning_rate=0.1),
        lambda state: state.inner_state,
    ),
    "two wrappers": (optax.MultiSteps(optax.chain(optax.clip(10.0), FREE), 2), lambda state: state.inner_opt_state[1]),
}


@pytest.mark.parametrize("name", FREE_WITHIN)
def test_the_average_of_schedule_free_is_found_within(name):
    optimizer, find = FREE_WITHIN[name]
    params, state = by_hand(optimizer)
    found = optimizers.evaluation_params(state, params)
    jax.tree.map(np.testing.assert_array_equal, found, schedule_free_eval_params(find(state), params))


def test_masked_params_are_evaluated_as_they_are_and_each_part_at_its_own_average():
    both = by_hand(labelled(FREE, schedule_free_sgd(0.2)))
    one = by_hand(labelled(FREE))
    alone = {name: by_hand(schedule_free_sgd(rate)) for name, rate in (("a", 0.1), ("b", 0.2))}
    average = {name: schedule_free_eval_params(state, params)[name] for name, (params, state) in alone.items()}
    expect = lambda found, truth: np.testing.assert_allclose(found, truth, rtol=1e-6)
    jax.tree.map(expect, optimizers.evaluation_params(*both[::-1]), average)
    jax.tree.map(expect, optimizers.evaluation_params(*one[::-1]), {"a": average["a"], "b": one[0]["b"]})


def test_flattened_params_are_evaluated_at_their_average():
    params, state = by_hand(optax.flatten(FREE))
    truth = schedule_free_eval_params(*by_hand(FREE)[::-1])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), optimizers.evaluation_params(state, params), truth
    )


def test_a_sweep_evaluates_the_average_within_a_wrapper():
    factory = lambda learning_rate: labelled(schedule_free_sgd(learning_rate))
    found = sweep(PROBLEM, factory, {"learning_rate": [0.1]}, steps=STEPS, curve_points=0)
    params, state = by_hand(schedule_free_sgd(0.1))
    plain, _ = by_hand(optax.sgd(0.1))
    params = {"a": schedule_free_eval_params(state, params)["a"], "b": plain["b"]}
    np.testing.assert_allclose(found.lanes["validation_loss"].values, [loss(params, 0.5)], rtol=1e-5)


def test_a_state_of_your_own_has_params_to_evaluate():
    class Doubled(optimizers.SgdState):
        def evaluation_params(self, params):
            return jax.tree.map(lambda x: 2 * x, params)

    found = optimizers.evaluation_params((Doubled((), ()), FREE.init(START)), START)
    np.testing.assert_allclose(found["b"], 2 * START["b"] / 0.9 - START["b"] * 0.1 / 0.9, rtol=1e-6)


# --- lookahead

LOOKAHEAD = {"sync_period": 3, "slow_step_size": 0.5}


def slow_by_hand(inner, steps=STEPS, within=lambda lookahead: lookahead):
    params, _ = by_hand(
        within(optax.lookahead(inner, **LOOKAHEAD)), optax.LookaheadParams.init_synced(START), steps=steps
    )
    return params


@pytest.mark.parametrize(
    "within",
    [lambda lookahead: lookahead, lambda lookahead: optax.chain(optax.clip(0.3), lookahead)],
    ids=["bare", "chain"],
)
def test_optax_lookahead_runs_on_plain_params_and_is_evaluated_at_its_slow_ones(within, caplog):
    factory = lambda learning_rate: within(optax.lookahead(optax.sgd(learning_rate, momentum=0.5), **LOOKAHEAD))
    truth = slow_by_hand(optax.sgd(0.1, momentum=0.5), within=within)
    caplog.clear()
    run = descend(PROBLEM, factory(0.1), STEPS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), run.params, truth.fast)
    slow = optimizers.evaluation_params(run.opt_state, run.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), slow, truth.slow)
    assert not caplog.records


def test_lookahead_within_wrappers_is_that_of_the_wrapped_params():
    expect = lambda found, truth: np.testing.assert_allclose(found, truth, rtol=1e-5)
    alone = slow_by_hand(optax.sgd(0.1))
    params, state = by_hand(labelled(optimizers.lookahead(optax.sgd(0.1), **LOOKAHEAD), optax.sgd(0.2)))
    expect(params["a"], alone.fast["a"])
    evaluated = optimizers.evaluation_params(state, params)
    expect(evaluated["a"], alone.slow["a"])
    expect(evaluated["b"], params["b"])
    params, state = by_hand(optax.MultiSteps(optimizers.lookahead(optax.sgd(0.1), **LOOKAHEAD), 2), steps=2 * STEPS)
    jax.tree.map(expect, optimizers.evaluation_params(state, params), alone.slow)


def test_the_average_within_lookahead_is_that_of_its_slow_params():
    run = descend(PROBLEM, optax.lookahead(FREE, **LOOKAHEAD), 6)  # at the end of a period both are one
    expected = schedule_free_eval_params(run.opt_state.inner.fast_state, run.params)
    found = optimizers.evaluation_params(run.opt_state, run.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)


def test_wrappers_that_do_not_take_the_pair_of_lookahead_are_refused():
    look = optax.lookahead(optax.sgd(0.1), **LOOKAHEAD)
    for optimizer in (
        labelled(look),
        optax.apply_if_finite(look, 2),
        optax.chain(optax.add_decayed_weights(0.1), look),
    ):
        assert_refused(lambda: descend(PROBLEM, optimizer, 2), "optimizer=.*gdkit.optimizers.lookahead")  # noqa: B023


# --- sam


def sharp(rate=0.1):
    return sam(optax.sgd(rate), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True)


SAM_WITHIN = {
    "bare": lambda opaque: opaque,
    "chain": lambda opaque: optax.chain(optax.clip(10.0), opaque),
    "MultiSteps": lambda opaque: optax.MultiSteps(opaque, 2),
}


@pytest.mark.parametrize("name", quick(SAM_WITHIN, "MultiSteps"))
def test_opaque_sam_gets_its_gradient_function(name):
    optimizer = SAM_WITHIN[name](sharp())
    truth, _ = by_hand(optimizer, grad_fn=lambda params, _: jax.grad(loss)(params))
    run = descend(PROBLEM, optimizer, STEPS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), run.params, truth)


def test_opaque_sam_of_a_part_sees_the_other_params_at_their_values():
    coupled = lambda params: loss(params) + jnp.sum(params["a"] * params["b"])
    run = descend(Problem(coupled, START), labelled(sharp()), STEPS)
    params = START
    for _ in range(STEPS):
        grads = jax.grad(coupled)(params)
        away = params["a"] + 0.05 * grads["a"] / jnp.linalg.norm(grads["a"])
        grads = {"a": jax.grad(coupled)({**params, "a": away})["a"], "b": grads["b"]}
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), run.params, params)


def test_sam_within_a_transform_that_passes_nothing_on_is_refused():
    passes_nothing = optax.GradientTransformation(sharp().init, lambda g, s, p: sharp().update(g, s, p))
    assert_refused(lambda: descend(PROBLEM, passes_nothing, 2), "optimizer=.*needs grad_fn.*opaque_mode=False")
    assert_refused(lambda: descend(PROBLEM, optax.lookahead(sharp(), **LOOKAHEAD), 2), "optimizer=.*needs grad_fn")


@pytest.mark.full
def test_other_optimizers_keep_their_extra_arguments():
    run = descend(problems.quadratic([1.0, 4.0]), optax.lbfgs(), 5)
    assert float(run.loss[-1]) < 1e-6
    assert float(descend(problems.parabola(), sgd(0.25), 2).loss[-1]) == 0.5625
