"""Refined sweeps and batches of a sampler give what one sweep would, by one program."""

import jax
import numpy as np
import optax
import pytest
from shared import assert_refused

from gdkit import Plan, Problem, optuna_search, paired, problems, random_axes, sgd, static, sweep

RATES = np.geomspace(1e-2, 2.0, 9)


compilations: list[str] = []  # one per executable


@jax.monitoring.register_event_duration_secs_listener
def note_compilation(event, seconds, **details):
    if event.endswith("backend_compile_duration"):
        compilations.append(event)


def assert_same(a, b):
    for name in b.lanes.data_vars:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=name)
    assert a.regimes.identical(b.regimes)


@pytest.fixture(scope="module")
def quadratic():
    return problems.quadratic([1.0, 4.0])


@pytest.fixture(scope="module")
def coarse(quadratic):
    return sweep(quadratic, sgd, {"learning_rate": RATES, "momentum": [0.0, 0.9]}, steps=60)


@pytest.fixture(scope="module")
def fine(coarse):
    before = len(compilations)
    assert before, "the listener is not called"
    refined = coarse.refine(around="edge", count=6)
    assert len(compilations) == before, "another program was compiled"
    return refined


# refine


def test_a_refined_sweep_is_that_of_all_its_values_bit_for_bit(quadratic, coarse, fine):
    plan = Plan(width=coarse.plan["width"])
    axes = {"learning_rate": fine.axes["learning_rate"], "momentum": [0.0, 0.9]}
    assert_same(fine, sweep(quadratic, sgd, axes, steps=60, plan=plan))
    assert set(RATES) <= set(axes["learning_rate"]) and len(axes["learning_rate"]) == 15


def test_refining_brings_the_edge_close_to_theory(coarse, fine):
    theory = 2 / 4
    errors = [abs(r.along("learning_rate", at={"momentum": 0.0}).recommend().edge - theory) for r in (coarse, fine)]
    assert errors[1] < 0.08 * theory < errors[0]


def test_refined_sweeps_are_extended_and_refined_again(quadratic, fine):
    longer = fine.extend(90)
    plan = Plan(width=fine.plan["width"])
    axes = {"learning_rate": fine.axes["learning_rate"], "momentum": [0.0, 0.9]}
    assert_same(longer, sweep(quadratic, sgd, axes, steps=90, plan=plan))
    assert fine.replay(25).same
    twice = fine.refine(around=(0.1, 0.2), count=3)  # the middle one has been run
    assert twice.axes["learning_rate"].size == 17 and set(fine.axes["learning_rate"]) < set(twice.axes["learning_rate"])


def test_the_best_at_the_end_of_an_axis_is_refined_on_both_sides(quadratic):
    low = sweep(quadratic, sgd, {"learning_rate": [0.01, 0.02, 0.04]}, steps=20)
    assert low.best().hyperparameters["learning_rate"] == pytest.approx(0.04)
    values = low.refine(count=2).axes["learning_rate"]
    assert values == pytest.approx([0.01, 0.02, 0.04 / 2**0.5, 0.04, 0.04 * 2**0.5])


@pytest.mark.full
def test_each_optimizer_is_refined_around_its_own_best_and_static_values_keep_their_programs(quadratic):
    axes = {
        "optimizer": {"sgd": (sgd, {"nesterov": static([False, True]), "momentum": 0.5}), "adam": optax.adam},
        "learning_rate": RATES,
    }
    coarse = sweep(quadratic, None, axes, steps=30)
    before = len(compilations)
    fine = coarse.refine(count=4)
    assert len(compilations) == before
    for label in ("sgd", "adam"):
        best = coarse.select(optimizer=label).best().hyperparameters["learning_rate"]
        added = np.setdiff1d(fine.select(optimizer=label).axes["learning_rate"], RATES)
        ratio = RATES[1] / RATES[0]
        assert len(added) == 4 and all((best / ratio < added) & (added < best * ratio))
    assert fine.lanes.sizes["lane"] == 13 * 2 + 13


def test_paired_axes_keep_the_values_of_the_best_point(quadratic):
    coarse = sweep(quadratic, sgd, random_axes({"learning_rate": (1e-2, 2.0), "momentum": (0.1, 0.9)}, 9), steps=60)
    fine = coarse.refine(count=5)
    best = coarse.best().hyperparameters["momentum"]
    assert fine.lanes["momentum"].values[9:] == pytest.approx(np.full(5, best))
    np.testing.assert_array_equal(fine.lanes["final_loss"].values[:9], coarse.lanes["final_loss"].values)
    assert len(np.unique(fine.lanes["learning_rate"].values[9:])) == 5


def test_what_cannot_be_refined_is_named(coarse, quadratic):
    assert_refused(lambda: coarse.refine(around="top"), "around='top': no such name. Known: best, edge")
    assert_refused(lambda: coarse.refine(around=(2.0, 1.0)), "around=.*: not two finite numbers")
    assert_refused(lambda: coarse.refine(count=0), "count=0")
    assert_refused(lambda: coarse.refine("rate"), "axis='rate'")
    assert_refused(lambda: coarse.along("learning_rate").refine(), "result=.*its problem and optimizer are not known")
    assert_refused(lambda: coarse.refine(around=tuple(RATES[[0, 8]]), count=2), "every value there has been run")
    stable = sweep(quadratic, sgd, {"learning_rate": [0.01, 0.02, 0.04]}, steps=20)
    assert_refused(lambda: stable.refine(around="edge"), "around='edge': no seed diverged")


@pytest.mark.full
def test_the_edge_is_refined_if_a_single_seed_has_it_on_the_axis():
    quartic = Problem(lambda x: x**4 / 4, lambda key: 1 + jax.random.uniform(key), optimum=0.0)
    started = sweep(quartic, sgd, {"learning_rate": [1e-3]}, steps=1, seeds=3).lanes["initial_loss"].values
    first, second, _ = np.sort(2 / (4 * started) ** 0.5)  # the learning rates 2 / x₀² above which each seed diverges
    rates = [0.1 * first, 0.5 * first, (first * second) ** 0.5]
    coarse = sweep(quartic, sgd, {"learning_rate": rates}, steps=60, seeds=3)
    assert np.isfinite(coarse.edge()["high"]).sum() == 1
    added = np.setdiff1d(coarse.refine(around="edge", count=3).axes["learning_rate"], rates)
    assert len(added) == 3 and added.min() > rates[1] and added.max() < rates[2]


# Batches of a sampler


@pytest.fixture(scope="module")
def optuna():
    package = pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'gdkit[optuna]'")
    package.logging.set_verbosity(package.logging.ERROR)
    return package


SPACE = {"learning_rate": (1e-3, 10.0), "momentum": (0.1, 0.9)}


@pytest.fixture(scope="module")
def found(optuna, quadratic):
    optuna_search(quadratic, sgd, SPACE, steps=40, trials=8, batch=8)
    before = len(compilations)
    search = optuna_search(quadratic, sgd, SPACE, steps=40, trials=20, batch=8)
    assert len(compilations) == before, "a later batch has another program"
    return search


@pytest.mark.full
def test_values_that_a_study_gets_are_those_of_a_sweep_of_the_same_points(optuna, quadratic, found):
    rates = [t.params["learning_rate"] for t in found.study.trials]
    np.testing.assert_array_equal(found.result.lanes["learning_rate"].values, rates)
    assert {t.state for t in found.study.trials} == {optuna.trial.TrialState.COMPLETE}
    losses, start = found.result.scores(), found.result.lanes["initial_loss"].values
    assert [t.value for t in found.study.trials] == pytest.approx(np.minimum(losses, start))
    assert any(t.user_attrs["regimes"] == ["DIVERGED"] for t in found.study.trials)
    width = found.result.plan["width"]
    axes = paired({name: [t.params[name] for t in found.study.trials] for name in SPACE})
    assert_same(found.result, sweep(quadratic, sgd, axes, steps=40, plan=Plan(width=width)))


def test_the_sampler_proposes_a_whole_batch_before_it_sees_values(optuna, quadratic):
    seen = []

    class Recorder(optuna.samplers.RandomSampler):
        def after_trial(self, study, trial, state, values):
            seen.append(("value", trial.number))

        def before_trial(self, study, trial):
            seen.append(("proposal", trial.number))

    study = optuna.create_study(sampler=Recorder(seed=0))
    optuna_search(quadratic, sgd, SPACE, steps=40, trials=12, batch=8, study=study)
    batches = [range(8), range(8, 12)]
    assert seen == [(what, n) for batch in batches for what in ("proposal", "value") for n in batch]


def test_points_of_a_batch_differ(optuna, found):
    rates = np.log([t.params["learning_rate"] for t in found.study.trials])
    assert len(set(rates)) == 20
    assert found.study.best_value < 1e-6


@pytest.mark.full
def test_seeds_are_combined_by_mean_or_median(optuna):
    problem = problems.mlp("iris", widths=(3,), batch_size=8)
    values = {}
    for how in ("mean", "median"):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        search = optuna_search(
            problem,
            sgd,
            {"learning_rate": (1e-2, 1.0)},
            steps=20,
            trials=3,
            batch=3,
            study=study,
            seeds=3,
            over_seeds=how,
        )
        scores = search.result.scores().reshape(3, 3)
        values[how] = [t.value for t in study.trials]
        assert values[how] == pytest.approx(getattr(np, how)(scores, axis=1))
    assert values["mean"] != values["median"]


def test_every_combination_of_categorical_parameters_has_one_program(optuna, quadratic):
    choice = optuna.distributions.CategoricalDistribution([True, False])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = SPACE | {"nesterov": choice}
    optuna_search(quadratic, sgd, space, steps=40, trials=8, batch=8, study=study)
    assert {t.params["nesterov"] for t in study.trials} == {True, False}
    before = len(compilations)
    search = optuna_search(quadratic, sgd, space, steps=40, trials=20, batch=8, study=study)
    assert len(compilations) == before
    assert search.result.lanes["nesterov"].values.tolist() == [str(t.params["nesterov"]) for t in study.trials[8:]]


def test_what_cannot_be_searched_is_named(optuna, quadratic):
    search = lambda space=SPACE, **given: optuna_search(quadratic, sgd, space, **{"steps": 4, "trials": 2} | given)
    assert_refused(lambda: search(trials=0), "trials=0")
    assert_refused(lambda: search(batch=0), "batch=0")
    assert_refused(lambda: search(over_seeds="worst"), "over_seeds='worst'.*mean")
    assert_refused(lambda: search({}), "space={}: not a mapping")
    assert_refused(lambda: search({"learning_rate": (1.0, 0.1)}), "not two finite numbers")
    assert_refused(lambda: search({"learning_rate": [0.1, 1.0, 2.0]}), "neither two bounds nor a distribution")
    assert_refused(lambda: search({"optimizer": (0.1, 1.0)}), "a search has one optimizer")
    assert_refused(lambda: search(study=optuna.create_study(direction="maximize")), "study='maximize'")
    assert_refused(lambda: search({"learning_rat": (0.1, 1.0)}), "learning_rat")
