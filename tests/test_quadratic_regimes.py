"""Four optimizers on a quadratic break where theory says, by three measurements; at tiny settings."""

import functools

import numpy as np
import optax
import pytest

import gdkit
from experiments import quadratic_regimes
from experiments.analysis import linear_steps
from gdkit import problems
from gdkit.errors import InputTypeError, InputValueError

SMALL = {
    "eigenvalues": [1.0, 4.0],
    "sweep": {"from": 0.25, "count": 12, "steps": 300},
    "exponents": {"burn_in": 1000, "steps": 4000},
}
OPTIMIZER_FACTORIES = list(linear_steps.THRESHOLDS)


@pytest.fixture(scope="module")
def study():
    return quadratic_regimes.run(SMALL)


@pytest.mark.parametrize("family", OPTIMIZER_FACTORIES)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_closed_form_leaves_the_unit_circle_at_minus_one_at_the_threshold(family, beta):
    options = {"sgd": {}, "adam": {"b1": beta}}.get(family, {"momentum": beta})
    curvatures = np.array([0.3, 2.0, 7.0])
    border = gdkit.stability_threshold(family, 7.0, **options)
    below, at, above = linear_steps.spectral_radius(family, border * np.array([0.99, 1.0, 1.01]), curvatures, beta)
    assert below < 1 < above
    np.testing.assert_allclose(at, 1, rtol=1e-9)
    np.testing.assert_allclose(
        linear_steps.farthest_multiplier(family, np.array(border), curvatures, beta), -1, rtol=1e-9
    )


@pytest.mark.parametrize("family", OPTIMIZER_FACTORIES)
def test_closed_form_has_the_eigenvalues_of_the_step_written_as_a_matrix(family):
    rate, curvature, beta = 0.13, 4.0, 0.7
    step = {  # on (x, what the optimizer remembers)
        "sgd": [[1 - rate * curvature]],
        "momentum": [[1 - rate * curvature, -rate * beta], [curvature, beta]],
        "nesterov": [[1 - rate * curvature * (1 + beta), -rate * beta**2], [curvature, beta]],
        "adam": [[1 - rate * (1 - beta) * curvature, -rate * beta], [(1 - beta) * curvature, beta]],
    }[family]
    found = linear_steps.multipliers_of_step(family, np.array(rate), np.array([curvature]), beta)
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(np.linalg.eigvals(step)), rtol=1e-9)


@pytest.mark.full
def test_preconditioner_by_hand_is_the_one_that_preconditioned_sharpness_reads_off():
    curvatures, rate = np.array([1.0, 4.0]), {"learning_rate": 0.02}
    problem, adam = problems.quadratic([1.0, 4.0], start=[1.0, 0.3]), functools.partial(optax.adam, b1=0.8)
    state, after = (gdkit.descend(problem, adam, steps, hyperparameters=rate) for steps in (40, 41))
    found = gdkit.preconditioned_sharpness(problem, adam, state, 2, hyperparameters=rate)
    by_hand = curvatures / linear_steps.preconditioner(after, 0.8)
    np.testing.assert_allclose(np.sort(found.values), np.sort(by_hand), rtol=1e-4)


@pytest.mark.full
def test_every_claim_holds(study):
    for claim in quadratic_regimes.claims(study):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(study):
    sgd, *others, adam = study.cases
    wrong = (sgd._replace(crossing=-1.01, radius=sgd.radius * 1.01, exponents=sgd.exponents + 0.01), *others)
    moved = adam._replace(case=adam.case._replace(threshold=adam.case.threshold * 1.5))
    broken = [c.text for c in quadratic_regimes.claims(study._replace(cases=(*wrong, moved))) if not c.holds]
    assert len(broken) == 4 and sum(text.startswith("adam") for text in broken) == 1


@pytest.mark.full
def test_table_has_thresholds_times_curvature_among_them_the_38_of_adam(study):
    _, _, *rows = str(study).splitlines()
    np.testing.assert_allclose([float(row.split("|")[2]) for row in rows], [2, 3.8, 3.8 / 2.8, 38], rtol=1e-3)


@pytest.mark.full
def test_figure_draws_theory_over_the_measurements_of_every_optimizer(study):
    (figure,) = quadratic_regimes.plot(study).values()
    columns = np.array(figure.axes[:12]).reshape(3, 4)
    assert [ax.get_title().split(":")[0] for ax in columns[0]] == list(quadratic_regimes.TITLES.values())
    for ax, family in zip(columns[2], study.cases, strict=True):
        points, line, border, *_ = ax.lines
        np.testing.assert_allclose(points.get_ydata(), line.get_ydata(), atol=1e-3)
        assert border.get_xdata()[0] == family.case.threshold
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"closed form", "theoretical threshold", "diverged", *quadratic_regimes.SERIES} <= legend


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"momentun": 0.9}, InputValueError, "Did you mean 'momentum'"),
        ({"momentum": 1.0}, InputValueError, "settings.momentum=1.0: not below 1"),
        ({"eigenvalues": 3.0}, InputTypeError, "settings.eigenvalues=3.0: not a list"),
        ({"eigenvalues": [1.0, -1.0]}, InputValueError, r"settings.eigenvalues\[1\]=-1.0: not a number above 0"),
        ({"sweep": {"count": 2.5}}, InputTypeError, "settings.sweep.count=2.5: not an integer"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        quadratic_regimes.run(settings)
