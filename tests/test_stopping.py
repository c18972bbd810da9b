"""Stopping rules: a run ends where the memory of a monitor says so, and is not taken for one that diverged."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_same_bits, quick, run_sweep

import gdkit
from gdkit import Plan, Problem, Regime, descend, monitors, problems, sgd, sweep
from gdkit.app.config.build import build_arguments
from gdkit.app.config.loading import loads
from gdkit.app.config.source import ConfigError
from gdkit.errors import InputTypeError, InputValueError
from gdkit.monitors import EndKind
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.result.exports.trackers import tracked_lanes
from gdkit.types import Monitor

STEPS = 150
RATES = {"learning_rate": [1e-3, 0.1, 0.5, 2.0]}


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


@pytest.fixture(scope="module")
def unstopped(iris):
    return functools.cache(lambda factory: sweep(iris, factory, RATES, steps=STEPS, curve_points=2000))


def end_by_hand(losses, checks, every, min_delta=0.0):
    """The step at which patience ends a run of these losses; None if it does not."""
    least, misses = np.inf, 0
    for check, mean in enumerate(losses[: len(losses) // every * every].reshape(-1, every).mean(axis=1), 1):
        misses = 0 if mean < least - min_delta else misses + 1
        least = min(least, mean) if misses == 0 else least
        if misses >= checks:
            return check * every - 1
    return None


def stop_at(step):
    """A rule that ends a run at `step`, and records the update of the last step that it saw."""
    update = lambda m, before, after, info, context: {"t": context.t, "moved": after.params - before.params}
    read = lambda m: {"last_seen": m["t"], "last_moved": m["moved"]}
    init = lambda state: {"t": jnp.int32(-1), "moved": jnp.zeros_like(state.params)}
    return Monitor(init, update, read, stop=lambda m: m["t"] == step)


@pytest.mark.parametrize(
    ("factory", "rule"),
    [
        (sgd, {"checks": 4}),
        pytest.param(sgd, {"checks": 2, "every": 10, "min_delta": 1e-3}, marks=pytest.mark.full),
        pytest.param(optax.adam, {"checks": 3, "every": 7}, marks=pytest.mark.full),
    ],
)
def test_patience_ends_each_run_where_a_loop_over_its_losses_does(iris, unstopped, factory, rule):
    full = unstopped(factory).lanes
    assert full.sizes["point"] == STEPS + 1, "every loss is recorded"
    found = sweep(iris, factory, RATES, steps=STEPS, curve_points=2000, monitors=[monitors.patience("loss", **rule)])
    lanes = found.lanes
    rule = {"every": 1} | rule
    ends = [end_by_hand(losses.astype(float), **rule) for losses in full["curve_loss"].values]
    assert any(end is not None for end in ends)
    for lane, end in enumerate(ends):
        is_stopped = end is not None
        assert lanes["end_kind"][lane] == (EndKind.STOPPED if is_stopped else EndKind.STEPS)
        assert lanes["end_step"][lane] == (end if is_stopped else STEPS)
        assert bool(lanes["patience_loss"][lane]) == is_stopped
        last = int(lanes["end_step"][lane])
        own = lanes["curve_loss"].values[lane]
        np.testing.assert_array_equal(own[: last + 1], full["curve_loss"].values[lane, : last + 1])
        assert np.isnan(own[last + 1 :]).all() and lanes["final_loss"][lane] == full["curve_loss"][lane, last]
    assert (found.lane_regimes[lanes["end_kind"] == EndKind.STOPPED] != Regime.DIVERGED).all()


def test_a_run_that_a_rule_stops_is_one_with_so_many_steps():
    problem, rates = problems.quadratic([1.0, 4.0]), {"learning_rate": [0.01, 0.3, 0.45]}
    stopped = sweep(problem, sgd, rates, steps=200, monitors=[stop_at(30)])
    short = sweep(problem, sgd, rates, steps=30)
    assert (stopped.lanes["end_kind"] == EndKind.STOPPED).all() and (stopped.lanes["end_step"] == 30).all()
    for name in ("final_loss", "late_mean", "reversal", "update_norm", "late_predicted", "min_step"):
        np.testing.assert_allclose(stopped.lanes[name], short.lanes[name], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(stopped.lane_regimes, short.lane_regimes)
    np.testing.assert_array_equal(stopped.lanes["last_seen"], 30)
    assert (np.abs(stopped.lanes["last_moved"].values) > 0).all(), "a rule observes the step before it is withdrawn"


@pytest.mark.parametrize("step", quick([0, 1, 9], 1))
def test_descend_stays_at_the_params_whose_loss_was_observed(step):
    for rate in (0.1, 0.9, 1.2):
        settings = {"hyperparameters": {"learning_rate": rate}}
        run = descend(problems.parabola(), sgd, 12, monitors=[stop_at(step)], **settings)
        short = descend(problems.parabola(), sgd, step, **settings) if step else None
        start = short.params if short else 0.0
        np.testing.assert_allclose(run.params, start, rtol=1e-5)
        np.testing.assert_allclose(run.loss[step:], (start - 3.0) ** 2, rtol=1e-5)
        assert run.statistics["end_kind"] == EndKind.STOPPED and run.statistics["end_step"] == step


@pytest.mark.full
def test_the_loss_of_a_stopped_run_has_the_derivative_of_the_steps_that_it_made():
    def last_loss(rate, rule):
        return descend(problems.parabola(), sgd, 6, hyperparameters={"learning_rate": rate}, monitors=rule).loss[-1]

    for step in (1, 2, 3):  # of 9 (1 − 2η)²ⁿ
        slope = jax.grad(lambda rate, step=step: last_loss(rate, [stop_at(step)]))(0.2)
        np.testing.assert_allclose(slope, -36 * step * (1 - 2 * 0.2) ** (2 * step - 1), rtol=1e-5)


def test_a_block_ends_with_its_last_lane_and_a_stopped_run_stays_stopped():
    problem, rates = problems.parabola(), {"learning_rate": [0.1, 1.0, 1.2]}
    rule = [monitors.patience(checks=6)]
    endless = sweep(problem, sgd, rates, steps=2_000_000_000, monitors=rule, curve_points=50)
    assert (endless.lanes["end_kind"] == EndKind.STOPPED).all()
    first = int(endless.lanes["end_step"].values.min())
    short = sweep(problem, sgd, rates, steps=first + 3, monitors=rule, curve_points=50)
    assert set(short.lanes["end_kind"].values) == {EndKind.STEPS, EndKind.STOPPED}
    longer, whole = short.extend(400), sweep(problem, sgd, rates, steps=400, monitors=rule, curve_points=50)
    assert_same_bits(longer, whole)
    np.testing.assert_array_equal(longer.lanes["end_step"], endless.lanes["end_step"])


@pytest.mark.full
def test_an_interrupted_sweep_resumes_with_the_memory_of_its_rules(tmp_path):
    iris = problems.mlp("iris", widths=(3,), batch_size=16)
    rule, plan = [monitors.patience(checks=2, every=10)], Plan(width=2, depth=1, segment=16, workers=1)
    options = {"steps": 80, "monitors": rule, "plan": plan}
    straight = sweep(iris, sgd, RATES, **options)
    assert set(straight.lanes["end_kind"].values) == {EndKind.STEPS, EndKind.STOPPED}
    for after in (1, 3, 6):
        stop, reports = threading.Event(), []

        def interrupt(progress, stop=stop, reports=reports, after=after):
            reports.append(progress)
            if len(reports) >= after:
                stop.set()

        folder = tmp_path / str(after)
        settings = {"settings": DEFAULT_SETTINGS, "stop": stop, "progress": interrupt}
        run_sweep(iris, sgd, RATES, **options, store=folder, **settings)
        assert_same_bits(sweep(iris, sgd, RATES, **options, store=folder), straight)


def test_a_stopped_run_is_told_from_one_that_diverged():
    rates, settings = {"learning_rate": [0.1, 1.0, 1.2]}, {"steps": 300, "seeds": 1}
    free = sweep(problems.parabola(), sgd, rates, **settings)
    found = sweep(problems.parabola(), sgd, rates, monitors=[monitors.patience(checks=5)], **settings)
    assert free.lane_regimes.tolist() == [Regime.CONVERGED, Regime.BOUNCING, Regime.DIVERGED]
    assert found.lane_regimes.tolist() == [Regime.CONVERGED, Regime.BOUNCING, Regime.BOUNCING]
    assert [lane.tags["end_kind"] for lane in tracked_lanes(found)] == ["stopped"] * 3
    assert [lane.tags["end_kind"] for lane in tracked_lanes(free)][2] == "exceeded"
    assert np.isfinite(found.scores()).all()
    caveats = found.recommend().caveats
    assert "3 runs were stopped by patience." in caveats
    assert any("1 run stopped above the initial loss" in text for text in caveats)
    other = sweep(problems.parabola(), sgd, rates, monitors=[stop_at(7)], **settings)
    assert "3 runs were stopped by a stopping rule." in other.recommend().caveats
    assert not any("stopped" in text for text in free.recommend().caveats)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (lambda m: m > jnp.zeros(2), r"stop returns bool of shape \(2,\), not one bool. Let stop\(memory\) return"),
        (lambda m: m, r"stop returns float32 of shape \(\), not one bool"),
        (lambda m: bool(m > 1), "it branches in Python on a traced value"),
        (3, "monitors=3: stop is not a function"),
    ],
)
def test_a_rule_that_does_not_return_one_bool_is_refused_before_anything_runs(stop, expected):
    rule = Monitor(lambda state: jnp.zeros(()), lambda m, *_: m, lambda m: {"own": m}, stop=stop)
    calls = []
    problem = Problem(lambda x: (x - 3) ** 2, lambda key: calls.append(key) or jnp.zeros(()))
    for run in (
        lambda: sweep(problem, sgd, {"learning_rate": [0.1]}, steps=3, monitors=[rule]),
        lambda: descend(problem, sgd(0.1), 3, monitors=[rule]),
    ):
        with pytest.raises(InputTypeError, match=expected):
            run()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"checks": 0}, "checks=0: must be at least 1"),
        ({"checks": 3, "every": 0}, "every=0: must be at least 1"),
        ({"checks": 3, "min_delta": -1.0}, "min_delta=-1.0: must be a finite number of at least 0"),
        ({"checks": 3, "name": "accuracy"}, "name='accuracy': neither the training loss nor evaluated along a run"),
        ({"checks": 3, "name": "test_loss"}, "name='test_loss': neither the training loss nor evaluated"),
        (
            {"checks": 3, "name": "validation_loss", "every": 5},
            "every=5: validation_loss is checked at each evaluation",
        ),
    ],
)
def test_patience_names_what_it_cannot_use(arguments, expected):
    with pytest.raises(InputValueError, match=expected):
        monitors.patience(**arguments)


# A value on validation data


X = np.asarray(np.random.default_rng(0).normal(size=(30, 4)), np.float32)
Y = X @ np.ones(4, np.float32) + 2 * np.asarray(np.random.default_rng(1).normal(size=30), np.float32)
NAMES, EVERY = ("validation_loss", "validation_fit", "validation_own"), 10
NOISY = {"learning_rate": [0.003, 0.1, 0.2, 3.0]}


def squares(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


@pytest.fixture(scope="module")
def noisy():
    settings = {"data": (X[:8], Y[:8]), "sample": problems.minibatches(4), "validation": (X[8:], Y[8:])}
    fit = gdkit.Metric(lambda w, d: -squares(w, d), maximize=True)
    plain = Problem(squares, jnp.zeros(4), metrics={"fit": fit}, **settings)
    own = Problem(
        squares, jnp.zeros(4), evaluate=lambda w, d, aux: {"own": -squares(w, d)}, maximize=["own"], **settings
    )
    return dict(zip(NAMES, (plain, plain, own), strict=True))


def sweep_noisy(problem, name, steps=150, **options):
    rule = [monitors.patience(name, checks=3, min_delta=0.01)]
    return sweep(problem, sgd, NOISY, steps=steps, seeds=2, evaluate_every=EVERY, monitors=rule, **options)


@pytest.mark.full
@pytest.mark.parametrize("name", quick(NAMES, "validation_loss"))
def test_patience_with_validation_data_ends_each_run_where_a_loop_over_its_evaluations_does(noisy, name):
    free = sweep(noisy[name], sgd, NOISY, steps=150, seeds=2, evaluate_every=EVERY).lanes
    found, sign = sweep_noisy(noisy[name], name), 1 if name == "validation_loss" else -1
    lanes, kinds = found.lanes, set()
    for lane, values in enumerate(free[name].values):
        check = end_by_hand(sign * values[:-1].astype(float), 3, 1, 0.01)
        is_stopped = check is not None and (check + 1) * EVERY <= free["end_step"][lane]
        end = (check + 1) * EVERY if is_stopped else int(free["end_step"][lane])
        assert lanes["end_step"][lane] == end and bool(lanes[f"patience_{name}"][lane]) == is_stopped
        assert (lanes["end_kind"][lane] == EndKind.STOPPED) == is_stopped
        last = end // EVERY
        np.testing.assert_array_equal(lanes[name].values[lane, :last], values[:last])
        if is_stopped:
            assert lanes[name].values[lane, -1] == values[last - 1], "the state is the one that was evaluated"
        kinds.add(int(lanes["end_kind"][lane]))
    assert kinds == {EndKind.STOPPED, EndKind.STEPS, EndKind.EXCEEDED}
    key, rule = jax.random.fold_in(jax.random.key(0), 1), [monitors.patience(name, checks=3, min_delta=0.01)]
    one = {"hyperparameters": {"learning_rate": 0.1}, "key": key, "monitors": rule, "evaluate_every": EVERY}
    run = descend(noisy[name], sgd, 150, **one)
    assert int(run.statistics["end_step"]) == lanes["end_step"][3]
    np.testing.assert_allclose(run.params, found.state(3).params, rtol=1e-5)


@pytest.mark.parametrize("first", quick([15, 30, 80], 30))
def test_lanes_stopped_by_validation_data_extend_and_replay_with_the_same_bits(noisy, first):
    name = NAMES[first % 2]
    whole = sweep_noisy(noisy[name], name)
    assert_same_bits(sweep_noisy(noisy[name], name, steps=first).extend(150), whole)
    assert all(whole.replay(lane).same for lane in (2, 3, 7))


@pytest.mark.full
def test_an_interrupted_sweep_resumes_with_the_checks_of_its_evaluations(noisy, tmp_path):
    name, plan = NAMES[1], Plan(width=2, depth=1, segment=15, workers=1)
    straight = sweep_noisy(noisy[name], name, plan=plan)
    for after in (1, 2, 5):
        stop, reports = threading.Event(), []

        def interrupt(progress, stop=stop, reports=reports, after=after):
            reports.append(progress)
            if len(reports) >= after:
                stop.set()

        rule, folder = [monitors.patience(name, checks=3, min_delta=0.01)], tmp_path / str(after)
        settings = {"settings": DEFAULT_SETTINGS, "stop": stop, "progress": interrupt}
        options = {"steps": 150, "seeds": 2, "monitors": rule, "evaluate_every": EVERY, "plan": plan}
        run_sweep(noisy[name], sgd, NOISY, **options, store=folder, **settings)
        assert_same_bits(sweep_noisy(noisy[name], name, plan=plan, store=folder), straight)


def test_a_rule_on_evaluations_needs_them_and_the_name_of_one(noisy):
    missing = "evaluate_every=None: a monitor observes the evaluations along the run. Pass the steps"
    for name, expected, options in (
        ("validation_loss", missing, {}),
        (
            "validation_los",
            "name='validation_los': no such name. Did you mean 'validation_loss'",
            {"evaluate_every": 5},
        ),
        (
            "validation_fits",
            "name='validation_fits': no such name. Did you mean 'validation_fit'",
            {"evaluate_every": 5},
        ),
    ):
        rule = [monitors.patience(name, checks=2)]
        with pytest.raises(InputValueError, match=expected):
            sweep(noisy[NAMES[0]], sgd, NOISY, steps=20, monitors=rule, **options)
        with pytest.raises(InputValueError, match=expected):
            descend(noisy[NAMES[0]], sgd(0.1), 20, monitors=rule, **options)


CONFIG = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep:
  axes: {learning_rate: [0.1, 1.0]}
  steps: 100
  stop: {patience: {checks: 5, every: 20}}
"""


def test_a_config_gives_the_rule():
    evaluated = CONFIG.replace("checks: 5, every: 20", "name: validation_loss, checks: 5")
    assert build_arguments(loads(evaluated))["monitors"] == (monitors.patience("validation_loss", checks=5),)
    arguments = build_arguments(loads(CONFIG))
    assert arguments["monitors"] == (monitors.patience("loss", checks=5, every=20, min_delta=0.0),)
    assert not build_arguments(loads(CONFIG.replace("  stop: {patience: {checks: 5, every: 20}}\n", "")))["monitors"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("checks: 5", "checks: 0", "c.yaml:7: sweep.stop.patience.checks = 0: must be greater than or equal to 1"),
        ("checks: 5, ", "", "c.yaml:7: sweep.stop.patience.checks: missing"),
        ("patience", "pacience", "c.yaml:7: sweep.stop.pacience: unknown key. Did you mean 'patience'?"),
        ("{patience: {checks: 5, every: 20}}", "5", "c.yaml:7: sweep.stop = 5: must be a mapping"),
        ("every: 20", "name: los", "c.yaml:7: name='los': neither the training loss nor"),
    ],
)
def test_a_rule_in_a_config_that_cannot_be_used_is_named_with_its_line(old, new, expected):
    with pytest.raises(ConfigError) as caught:
        build_arguments(loads(CONFIG.replace(old, new), file="c.yaml"))
    assert expected in str(caught.value)
