"""Q-learning finds Q* on the lake and grows as predicted on Baird's counterexample; at tiny settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import q_learning
from experiments.problems import environments, temporal_differences
from gdkit import descend, sgd
from gdkit.errors import InputTypeError, InputValueError
from gdkit.problems import squared_error

TINY = {
    "lake": {
        "hidden": 24,
        "discount": 0.8,
        "periods": [1, 20],
        "learning_rate": {"from": 0.7, "to": 10.0, "count": 2},
        "steps": 3000,
        "seeds": 2,
    },
    "baird": {"learning_rate": {"from": 0.1, "to": 10.0, "count": 3}, "steps": 1200, "burn_in": 700},
}


@pytest.fixture(scope="module")
def tiny():
    return q_learning.run(TINY)


@pytest.mark.full
def test_every_claim_holds(tiny):
    for claim in q_learning.claims(tiny):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(tiny):
    lanes = tiny.lake.lanes
    worse = lanes.assign(validation_gap=lanes.validation_gap + 1, validation_regret=lanes.validation_regret + 1)
    wrong = tiny._replace(
        lake=dataclasses.replace(tiny.lake, lanes=worse),
        runs=tiny.lake,  # half of them converged
        game=environments.baird(0.95),
        growth=q_learning.Growth(tiny.growth.predicted, 0.0, 0.0, tiny.growth.predicted),
        exponents=np.zeros(2),
    )
    assert not any(claim.holds for claim in q_learning.claims(wrong))


def test_semi_gradients_second_derivative_counts_the_target_and_stop_gradients_does_not():
    loss = lambda x, held: 0.5 * jnp.sum((x - jnp.sin(3 * held)) ** 2)
    x = jnp.array([0.3, -0.2])
    slopes = [temporal_differences.semi_gradient(loss), lambda x: loss(x, jax.lax.stop_gradient(x))]
    for slope, curvature in zip(map(jax.grad, slopes), (1 - 3 * np.cos(3 * x), np.ones(2)), strict=True):
        np.testing.assert_allclose(jax.jit(slope)(x), x - np.sin(3 * x), rtol=1e-6)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(slope))(x), np.diag(curvature), atol=1e-6)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_run_on_bairds_counterexample_is_the_matrixs_power(hidden):
    game = environments.baird()
    end = descend(temporal_differences.baird(game, game.start, stop_gradient=hidden), sgd(0.1), 40)
    power = np.linalg.matrix_power(np.eye(8) - 0.1 * game.matrix, 40)
    np.testing.assert_allclose(end.params, power @ game.start, rtol=1e-4)


def test_targets_are_those_of_the_weights_that_were_last_copied():
    problem = temporal_differences.lake(hidden=3, period=2)
    params, target = problem.init(jax.random.key(0))
    moved = jax.tree.map(lambda x: x + 1, params)
    loss = jax.jit(problem.loss)
    _, target = loss(moved, problem.data, target)  # age 0: copies
    jax.tree.map(np.testing.assert_array_equal, target.params, moved)
    _, target = loss(params, problem.data, target)  # age 1: keeps
    jax.tree.map(np.testing.assert_array_equal, target.params, moved)
    _, target = loss(params, problem.data, target)
    jax.tree.map(np.testing.assert_array_equal, target.params, params)
    assert int(target.age) == 3


def test_the_lakes_step_is_that_of_regression_on_targets_of_every_outcome():
    problem, steps = temporal_differences.lake(hidden=3, discount=0.9, period=1), environments.lake_transitions()
    params, target = problem.init(jax.random.key(1))
    q = lambda params: jnp.tanh(params[0]) @ params[1] + params[2]
    targets = (
        steps.reward + 0.9 * steps.continues * np.asarray(jax.jit(q)(params)).max(axis=1)[steps.after]
    )  # (rows, 3)
    fit = lambda params: squared_error(
        jnp.repeat(q(params)[steps.state, steps.action], 3), jnp.asarray(targets.ravel())
    )
    grad, _ = jax.jit(jax.grad(problem.loss, has_aux=True))(params, problem.data, target)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grad, jax.jit(jax.grad(fit))(params))


def test_gap_and_regret_are_zero_at_q_star_and_count_only_where_an_action_matters():
    problem = temporal_differences.lake(hidden=16, discount=0.9)
    best = environments.optimal_q(environments.lake_transitions(), 0.9)
    there = (100 * jnp.eye(16), jnp.asarray(best, jnp.float32), jnp.zeros((1, 4)))  # tanh makes each state's own unit
    measure = jax.jit(lambda params: {name: metric(params, problem.data) for name, metric in problem.metrics.items()})
    assert float(measure(there)["gap"]) < 1e-6
    assert float(measure(there)["regret"]) == 0
    off = (there[0], there[1].at[5].set(7.0).at[14, 0].add(0.5), there[2])  # 5 is a hole
    assert float(measure(off)["gap"]) == pytest.approx(0.5, abs=1e-6)
    expected = best[14].max() - best[14, 0]
    assert float(measure(off)["regret"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.full
def test_printed_tables_have_one_line_per_learning_rate(tiny):
    lake, star = str(tiny).split("\n\n")
    assert [line.split()[0] for line in lake.splitlines()[3:5]] == ["0.7000", "10.0000"]
    assert sum(line.startswith("diverges above") for line in lake.splitlines()) == 2
    assert len(star.splitlines()) == 3 + 3


@pytest.mark.full
def test_figure_shows_theory_and_exponents(tiny):
    (figure,) = q_learning.plot(tiny).values()
    left, right = figure.axes
    assert [len(line.get_xdata()) for line in left.lines] == [4, 2, 4, 2]
    theory, held, exponents, stopped = (np.asarray(line.get_ydata()) for line in right.lines)
    np.testing.assert_allclose(exponents[[0, -1]], theory[[0, -1]], atol=1e-3)
    np.testing.assert_allclose(stopped[[0, -1]], held[[0, -1]], atol=1e-3)


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"lakes": {}}, InputValueError, "Did you mean 'lake'"),
        ({"lake": {"periods": [1, 2.5]}}, InputTypeError, r"settings.lake.periods\[1\]=2.5: not an integer"),
        ({"lake": {"discount": 1.0}}, InputValueError, "settings.lake.discount=1.0: not below 1"),
        (
            {"baird": {"discount": 0.5}},
            InputValueError,
            "settings.baird.discount=0.5: the weights would not grow",
        ),
        ({"baird": {"burn_in": 3000}}, InputValueError, "settings.baird.burn_in=3000: not less than the 3000 steps"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        q_learning.run(settings)
