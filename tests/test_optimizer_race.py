"""Profiles and scores against tables worked out by hand, the suite's known optima, and the race's claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from shared import dense_hessian

from experiments import optimizer_race
from experiments.analysis.performance_profiles import algoperf_score, performance_profile, performance_ratios
from experiments.problems import suite
from gdkit.errors import InputTypeError, InputValueError

INF = np.inf
TINY = {"kinds": ["quadratics"], "learning_rates": {"count": 15}, "seeds": 1, "steps": 700, "conditions": [30.0, 300.0]}
MINIMA = {
    "rosenbrock": (1, 1), "beale": (3, 0.5), "himmelblau": (3, 2), "freudenstein-roth": (5, 4),
    "goldstein-price": (0, -1), "branin": (np.pi, 2.275), "bohachevsky": (0, 0), "booth": (1, 3), "matyas": (0, 0),
    "three-hump camel": (0, 0), "six-hump camel": (0.08984201, -0.71265640), "styblinski-tang": (-2.9035340,) * 2,
}  # fmt: skip
TIMES = np.array([[10.0, 30.0, INF, 8.0], [20.0, 10.0, INF, INF], [50.0, 35.0, INF, INF]])
TAU = np.array([1.0, 2.0, 3.0, 3.5, 5.0, 1e12])


@pytest.fixture(scope="module")
def race():
    return optimizer_race.run(TINY)


# Profiles


def test_ratios_profile_and_score_are_those_worked_out_by_hand():
    ratio = performance_ratios(TIMES)
    np.testing.assert_array_equal(ratio, [[1, 3, INF, 1], [2, 1, INF, INF], [5, 3.5, INF, INF]])
    rho = performance_profile(ratio, TAU) * 4
    np.testing.assert_array_equal(rho, [[2, 2, 3, 3, 3, 3], [1, 2, 2, 2, 2, 2], [0, 0, 0, 1, 2, 2]])
    np.testing.assert_allclose(algoperf_score(ratio), np.array([3 + 1 + 3, 2 + 3, 0.5]) / 3 / 4)


def test_a_problem_without_a_solver_counts_as_unsolved_for_all():
    ratio = performance_ratios(np.full((3, 2), INF))
    assert np.isinf(ratio).all() and not performance_profile(ratio, TAU).any() and not algoperf_score(ratio).any()


times = arrays(float, (3, 5), elements=st.sampled_from([1.0, 2.0, 3.0, 7.0, 40.0, 900.0, INF]))


@given(times, st.permutations(range(5)), arrays(float, 5, elements=st.sampled_from([0.5, 1.0, 8.0, 1024.0])))
@settings(deadline=None, max_examples=50)
def test_order_of_problems_and_units_of_time_change_nothing(times, order, units):
    ratio, other = performance_ratios(times), performance_ratios((times * units)[:, order])
    np.testing.assert_array_equal(performance_profile(other, TAU), performance_profile(ratio, TAU))
    np.testing.assert_allclose(algoperf_score(other), algoperf_score(ratio))


@given(times)
@settings(deadline=None, max_examples=50)
def test_profiles_rise_to_the_share_solved_and_the_score_is_their_integral(times):
    ratio = performance_ratios(times)
    rho = performance_profile(ratio, TAU)
    assert (np.diff(rho, axis=1) >= 0).all()
    np.testing.assert_allclose(rho[:, -1], np.isfinite(times).mean(axis=1))
    assert rho[:, 0].sum() >= np.isfinite(times).any(axis=0).mean() - 1e-12, "each problem that is solved has a winner"
    middles = 1 + 3 * (np.arange(3000) + 0.5) / 3000
    np.testing.assert_allclose(algoperf_score(ratio), performance_profile(ratio, middles).mean(axis=1), atol=1e-3)


# The suite


def test_functions_have_their_known_minima_and_nothing_lower_around():
    assert [function.name for function in suite.FUNCTIONS] == list(MINIMA)
    around = jax.random.uniform(jax.random.key(0), (20_000, 2), minval=-5, maxval=5)

    @jax.jit  # one program for all functions: compiled one operation at a time, each would take a second
    def derivatives_and_lowest(points, around):
        pairs = [(function.loss, point) for function, point in zip(suite.FUNCTIONS, points, strict=True)]
        return [(*jax.value_and_grad(f)(x), jax.hessian(f)(x), jnp.min(jax.vmap(f)(around))) for f, x in pairs]

    results = derivatives_and_lowest(
        [jnp.array(MINIMA[function.name], jnp.float32) for function in suite.FUNCTIONS], around
    )
    for function, (value, slope, hessian, lowest) in zip(suite.FUNCTIONS, results, strict=True):
        curvature = float(jnp.abs(hessian).max())
        np.testing.assert_allclose(
            value, function.minimum, atol=1e-5 * max(1, abs(function.minimum)), err_msg=function.name
        )
        np.testing.assert_allclose(slope, 0, atol=1e-5 * max(1, curvature), err_msg=function.name)
        assert float(lowest) > function.minimum - 1e-3, function.name


def test_a_function_by_number_is_that_function_from_around_its_start():
    at = jnp.array([0.3, -0.4])

    @jax.jit
    def by_number(number, key):
        problem = suite.function(number, 0.1)
        return problem.loss(at), problem.optimum, problem.init(key)

    expected = jax.jit(lambda: [function.loss(at) for function in suite.FUNCTIONS])()
    for number, function in enumerate(suite.FUNCTIONS):
        loss, optimum, start = by_number(float(number), jax.random.key(0))
        np.testing.assert_allclose(loss, expected[number], rtol=1e-6)
        assert float(optimum) == pytest.approx(function.minimum)
        assert np.abs(np.asarray(start) - function.start).max() < 0.5


def test_rotated_quadratics_have_the_eigenvalues_of_their_condition_and_no_diagonal():
    problem = suite.quadratic(100.0, 0.1)
    hessian = dense_hessian(problem, problem.init(jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), np.geomspace(1, 100, suite.DIMENSION), rtol=1e-3)
    assert np.abs(hessian - np.diag(np.diag(hessian))).max() > 1


def test_the_suite_has_at_least_20_problems_of_every_kind_and_8_optimizers():
    families = suite.problem_families(0.1)
    assert sum(len(family.names) for family in families) >= 20
    assert {family.kind for family in families} == set(suite.KINDS)
    assert len(optimizer_race.OPTIMIZERS) >= 8


# The race


@pytest.mark.full
def test_every_claim_holds(race):
    for claim in optimizer_race.claims(race):
        assert claim.holds, claim


@pytest.mark.full
def test_steps_on_quadratics_are_those_of_the_recursion_by_hand(race):
    for row, heavy in zip(race.quadratic_steps, (False, True), strict=True):
        for steps, condition in zip(row, TINY["conditions"], strict=True):
            root = np.sqrt(condition)
            rate, beta = (4 / (1 + root) ** 2, ((root - 1) / (root + 1)) ** 2) if heavy else (2 / (1 + condition), 0)
            curvature = np.geomspace(1, condition, suite.DIMENSION)
            x, v, count = np.ones(suite.DIMENSION), 0.0, 0
            while curvature @ x**2 > 1e-4 * curvature.sum():
                v = curvature * x + beta * v
                x, count = x - rate * v, count + 1
            assert abs(steps - count) <= 1


@pytest.mark.full
def test_default_learning_rates_are_among_those_of_the_sweep(race):
    for name, rate in zip(optimizer_race.OPTIMIZERS, optimizer_race.DEFAULT_RATES, strict=True):
        assert np.isclose(race.rates, rate, rtol=1e-9).sum() == 1, name
    assert (race.times["tuned"] <= race.times["default"]).all()


@pytest.mark.full
def test_claims_can_fail(race):
    best = np.broadcast_to(np.isclose(race.rates, 0.1), race.steps.shape)  # of the sweep, but none solves there
    kinds = np.array(["networks", "functions", "functions"])
    wrong = race._replace(steps=np.where(best, np.inf, 7.0), quadratic_steps=race.quadratic_steps[::-1], kinds=kinds)
    assert [claim.holds for claim in optimizer_race.claims(wrong)] == [True, False, False, False, False]


@pytest.mark.full
def test_figure_shows_a_profile_of_every_optimizer_tuned_and_default(race):
    figures = optimizer_race.plot(race)
    assert [type(figure) for figure in figures.values()] == [Figure]
    for ax, ratio in zip(figures["optimizer_race"].axes, race.ratios.values(), strict=True):
        assert [line.get_ydata()[-1] for line in ax.lines] == sorted(np.isfinite(ratio).mean(axis=1))
        assert {text.get_text().split()[0] for text in ax.texts} == {*optimizer_race.OPTIMIZERS, "scored"}
        heights = sorted(text.get_position()[1] for text in ax.texts[1:])
        assert np.diff(heights).min() > 0.05, "labels would overlap"


@pytest.mark.full
def test_printed_table_has_one_line_per_optimizer(race):
    _, _, _, *rows = str(race).splitlines()
    assert [row.split()[0] for row in rows] == list(optimizer_race.OPTIMIZERS)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"kinds": ["quadratic"]}, InputValueError, "Did you mean 'quadratics'"),
        ({"kinds": "networks"}, InputTypeError, "settings.kinds='networks': not a list"),
        ({"learning_rates": {"too": 1.0}}, InputValueError, "Did you mean 'to'"),
        ({"tolerance": {"known": 0.0}}, InputValueError, "settings.tolerance.known=0.0"),
        ({"steps": 0}, InputValueError, "settings.steps=0"),
    ],
)
def test_bad_settings_are_named(given, error, said):
    with pytest.raises(error, match=said):
        optimizer_race.run(given)
