"""Arguments of a wrong type or kind get a typed error that names them, before anything runs."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import gdkit
from gdkit import (
    GdkitError,
    Learner,
    Problem,
    Regime,
    SweepResult,
    classify_curve,
    descend,
    problems,
    schedules,
    sgd,
    stability,
    sweep,
)

BOWL = problems.quadratic([1.0, 4.0])
RATES = {"learning_rate": [0.1, 0.2]}
RESULT = SweepResult.from_arrays(RATES, {"loss": [[[2.0, 1.0]], [[2.0, 0.5]]]})
ENDS = {"low": 0.01, "high": 1.0}


def run(axes=RATES, **settings):
    return sweep(BOWL, sgd, axes, **{"steps": 2, **settings})


def single(**settings):
    return descend(BOWL, sgd, 2, **{"hyperparameters": {"learning_rate": 0.1}, **settings})


def of(loss=jnp.sum, **settings):
    return Problem(loss, **{"init": jnp.zeros(2), **settings})


def threshold(family, curvature=1.0, **hyperparameters):
    return gdkit.stability_threshold(family, curvature, **hyperparameters)


KINDS = {
    "names": {
        "number as axis": (lambda: run({0: [0.1]}), "axes=0: a name must be a string"),
        "None as axis": (lambda: run({**RATES, None: [0.1]}), "axes=None: a name must be a string"),
        "tuple as axis": (lambda: run([RATES, {("a", "b"): [1]}]), r"axes=\('a', 'b'\): a name must"),
        "number as hyperparameter": (lambda: single(hyperparameters={1: 0.1}), "hyperparameters=1: a name must"),
        "no mapping": (lambda: single(hyperparameters=0.1), "hyperparameters=0.1: not a mapping"),
    },
    "values of an axis": {
        "array without dimensions": (lambda: run({"learning_rate": np.array(0.1)}), "an axis is a sequence"),
        "set": (lambda: run({"learning_rate": {0.1, 0.2}}), "an axis is a sequence"),
        "too large": (lambda: run({"learning_rate": [1e300]}), "=1e.300: float32 cannot hold it. Pass a smaller"),
        "too large for one run": (lambda: single(hyperparameters={"learning_rate": 1e39}), "float32 cannot hold it"),
        "integer of more than 64 bits": (lambda: run({"learning_rate": [10**30]}), "more than 64 bits. Give floats"),
    },
    "hyperparameters": {
        "NaN": (
            lambda: single(hyperparameters={"learning_rate": np.nan}),
            r"\['learning_rate'\]=nan: must be a finite",
        ),
        "infinite": (lambda: single(hyperparameters={"learning_rate": 0.1, "momentum": np.inf}), r"\['momentum'\]=inf"),
        "text": (lambda: single(hyperparameters={"learning_rate": "0.1"}), "'0.1': neither a number nor a schedule"),
        "searched": (
            lambda: gdkit.critical_learning_rate(BOWL, sgd, **ENDS, steps=2, hyperparameters={"learning_rate": 0.1}),
            "the search sets learning_rate itself. Leave learning_rate out",
        ),
        "searched by catapults": (
            lambda: stability.catapult_rate(BOWL, sgd, **ENDS, hyperparameters={"learning_rate": 0.1}),
            "the search sets learning_rate itself",
        ),
        "searched by the range test": (
            lambda: gdkit.lr_range_test(BOWL, sgd, hyperparameters={"learning_rate": 0.1}),
            "the search sets learning_rate itself",
        ),
    },
    "sequences": {
        "no sequence": (lambda: run(monitors=1), "monitors=1: not a sequence of Monitors. Pass for example"),
        "a function": (lambda: run(monitors=gdkit.monitors.time_to), "monitors=.*: not a sequence of Monitors"),
        "None": (lambda: single(monitors=None), "monitors=None: not a sequence of Monitors"),
        "no monitor": (lambda: single(monitors=[1]), "monitors=1: not a Monitor"),
        "one monitor": (lambda: single(monitors=gdkit.monitors.time_to(0.1)), "not a sequence of Monitors"),
        "maximize": (lambda: of(metrics={"a": max}, maximize=1), "maximize=1: not a sequence of strings"),
        "caveats": (lambda: of(caveats="few rows"), "caveats='few rows': not a sequence"),
    },
    "choices": {
        "list": (lambda: run(statistics=[]), r"statistics=\[\]: no such name"),
        "number": (lambda: run(keep_states=1), "keep_states=1: no such name"),
        "list as variable": (lambda: RESULT.best(by=["loss"]), r"by=\['loss'\]: no such name"),
        "list as axis": (lambda: RESULT.edge(["learning_rate"]), r"axis=\['learning_rate'\]: no such name"),
        "coordinate as axis": (lambda: RESULT.recommend("seed"), "axis='seed': no such name"),
        "list along": (lambda: RESULT.along(["learning_rate"]), r"axis=\['learning_rate'\]: no such name"),
        "threshold": (lambda: RESULT.with_thresholds(converged=1.0), "'converged_gap'"),
    },
    "flags": {
        "until_bracketed": (lambda: run(until_bracketed="no"), "until_bracketed='no': neither True nor False"),
        "record_params": (lambda: single(record_params=1), "record_params=1: neither True nor False"),
        "has_aux": (lambda: of(has_aux="no"), "has_aux='no': neither True nor False"),
        "has_logs": (lambda: of(has_logs=None), "has_logs=None: neither True nor False"),
        "maximize of a metric": (lambda: gdkit.Metric(max, maximize="no"), "maximize='no': neither True nor False"),
        "maximize": (lambda: RESULT.best(maximize="no"), "maximize='no': neither True nor False"),
        "replace without minibatches": (
            lambda: problems.mlp("iris", replace="no"),
            "replace='no': neither True nor False",
        ),
        "zero_last": (lambda: problems.mlp("iris", zero_last=None), "zero_last=None: neither True nor False"),
        "freeze": (lambda: gdkit.lyapunov_exponent(BOWL, sgd, freeze="no"), "freeze='no': neither True nor False"),
        "stochastic": (
            lambda: SweepResult.from_arrays(RATES, {"loss": [1.0, 2.0]}, stochastic="no"),
            "stochastic='no': neither True nor False",
        ),
    },
    "numbers": {
        "target": (lambda: run(target=np.nan), "target=nan: must be a finite number"),
        "optimum": (lambda: of(optimum=np.nan), "optimum=nan: must be a finite number"),
        "optimum of arrays": (
            lambda: SweepResult.from_arrays(RATES, {"loss": [1.0, 2.0]}, optimum="0"),
            "optimum='0': not a number",
        ),
        "optimum of a vector": (lambda: of(optimum=jnp.zeros(2)), "optimum=.*: not a number"),
        "diverged_above": (lambda: classify_curve([1.0], diverged_above=np.nan), "diverged_above=nan: not positive"),
        "seed": (lambda: single(seed=-1), "seed=-1: must be at least 0"),
        "loss to reach": (lambda: gdkit.monitors.time_to(np.nan), "target=nan: must be a finite number"),
        "text to reach": (lambda: gdkit.monitors.time_to("a"), "target='a': not a number"),
        "lane": (lambda: RESULT.curve(7), "lane=7: no such lane. Pass 0 to 1"),
        "lane from the end": (lambda: RESULT.curve(-3), "lane=-3: no such lane"),
        "bool as lane": (lambda: RESULT.curve(True), "lane=True: no such lane"),
    },
    "bounds": {
        "random_axes": (lambda: gdkit.random_axes({"learning_rate": 0.1}, 3), "learning_rate.*=0.1: not a pair"),
        "random_axes of texts": (lambda: gdkit.random_axes({"learning_rate": ("a", "b")}, 3), "not a pair of numbers"),
        "names of random_axes": (lambda: gdkit.random_axes([0.1], 3), r"axes=\[0.1\]: not a mapping of names"),
        "names of paired": (lambda: gdkit.paired([0.1]), r"axes=\[0.1\]: not a mapping of names"),
        "window": (lambda: gdkit.boundary.explore(max, (0.0, "a"), (0.0, 1.0)), "x=.*: not a pair of numbers"),
        "optuna": (
            lambda: gdkit.optuna_search(BOWL, sgd, {"learning_rate": (0.1, None)}, steps=2, trials=2),
            "space.*: not a pair of numbers",
        ),
        "keep": (lambda: gdkit.successive_halving(BOWL, sgd, RATES, steps=9, keep="a"), "keep='a': not a number"),
    },
    "options of searches": {
        "halving": (
            lambda: gdkit.successive_halving(BOWL, sgd, RATES, steps=9, curve_point=5),
            "options='curve_point': no such name. Did you mean 'curve_points'",
        ),
        "optuna": (
            lambda: gdkit.optuna_search(BOWL, sgd, {"learning_rate": (0.1, 1.0)}, steps=2, trials=2, seed=3),
            "options='seed': no such name. Did you mean 'seeds'",
        ),
        "range test": (
            lambda: gdkit.lr_range_test(BOWL, sgd, hyperparameters={"momentun": 0.9}),
            "hyperparameters='momentun': no such name. Did you mean 'momentum'",
        ),
        "score of one round": (
            lambda: gdkit.successive_halving(BOWL, sgd, RATES, steps=2, by="final_los"),
            "by='final_los': no such name. Did you mean 'final_loss'",
        ),
    },
    "what a function returns": {
        "arguments": (
            lambda: gdkit.sweep_function(lambda rate: {"loss": rate}, RATES),
            "train.*it cannot be called as train",
        ),
        "maximize": (
            lambda: SweepResult.from_arrays(RATES, {"accuracy": [1.0, 2.0]}, maximize=["acuracy"]),
            "'acuracy': no such name. Did you mean 'accuracy'",
        ),
        "maximize of a function": (
            lambda: gdkit.sweep_function(lambda h, key: {"loss": h["learning_rate"]}, RATES, maximize=["x"]),
            "maximize='x': no such name",
        ),
    },
    "functions": {
        "finite_difference": (lambda: gdkit.finite_difference(None, 1.0, [0.1]), "f=None: not callable"),
        "of no arguments": (lambda: gdkit.finite_difference(lambda: 1.0, 1.0, [0.1]), "it cannot be called as f"),
        "partial_derivative": (lambda: gdkit.partial_derivative(3, 0, (1.0,)), "f=3: not callable"),
        "chain_rule_trace": (lambda: gdkit.chain_rule_trace("x", 1.0), "f='x': not callable"),
        "ascent": (lambda: gdkit.ascent(None), "optimizer=None: not callable. Pass an optimizer"),
        "ema": (lambda: gdkit.ema("adam"), "optimizer='adam': not callable. Pass a factory"),
        "with_clipping": (lambda: gdkit.optimizers.with_clipping(3, 1.0), "optimizer=3: not callable"),
        "clip_norm": (
            lambda: gdkit.optimizers.with_clipping(sgd, -1.0),
            "clip_norm=-1.0: must be a finite number above",
        ),
        "with_schedule": (lambda: gdkit.optimizers.with_schedule(sgd, 0.5), "share=0.5: not callable"),
        "explore": (lambda: gdkit.boundary.explore(None, (0.0, 1.0), (0.0, 1.0)), "ask=None: not callable"),
        "range test": (lambda: gdkit.lr_range_test(3, sgd), "problem=3: neither a Problem nor a factory"),
    },
    "objects": {
        "plan": (lambda: run(plan={}), "plan={}: not a Plan. Pass for example gdkit.Plan"),
        "plan as number": (lambda: gdkit.sweep_function(max, RATES, plan=4), "plan=4: not a Plan"),
        "name": (lambda: of(name=3), "name=3: not a string"),
        "path": (lambda: run(store=""), "store='': no file can have this name"),
        "null in a path": (lambda: gdkit.open("a\0b"), "no file can have this name"),
        "bytes as path": (lambda: gdkit.open(b"a"), "path=b'a': not a path"),
        "array of text as params": (lambda: run_loss(init=np.array(["a"])), "params=.*: its dtype is <U1"),
        "array of objects as params": (lambda: run_loss(init=np.array([1.0], object)), "its dtype is object"),
        "text as loss": (lambda: run_loss(lambda x: "high"), "loss='str': it does not return a scalar"),
    },
    "problems": {
        "None": (lambda: watch(None), "problem=None: neither a Problem nor a factory"),
        "number": (lambda: watch(1), "problem=1: neither a Problem nor a factory"),
        "text": (lambda: watch("parabola"), "problem='parabola': neither a Problem nor a factory"),
    },
    "rows": {
        "validation": (lambda: of(validation=np.zeros((0, 2))), r"validation=\[\(0, 2\)\]: an array has no rows"),
        "test": (lambda: of(test=(np.zeros((0, 2)), np.zeros(0))), "test=.*: an array has no rows"),
        "one leaf": (lambda: of(validation={"x": np.ones(2), "y": np.zeros(0)}), "validation=.*: an array has no rows"),
    },
    "data": {
        "descend": (lambda: single(data=jnp.zeros(2)), "data=.*: the loss of this problem takes no data"),
        "sharpness": (
            lambda: gdkit.sharpness(BOWL, jnp.ones(2), batch=1),
            "batch=1: the loss of this problem takes no",
        ),
        "trace": (lambda: stability.trace(BOWL, jnp.ones(2), batch=1), "batch=1: the loss of this problem takes no"),
    },
    "thresholds": {
        "missing": (
            lambda: threshold("momentum"),
            r"family='momentum': its threshold depends on momentum. Pass momentum=",
        ),
        "momentum": (lambda: threshold("nesterov", momentum=1.5), "momentum=1.5: outside of the theory.* below 1"),
        "decay": (lambda: threshold("adam", b1=1.0), "b1=1.0: outside of the theory"),
        "norm": (lambda: threshold("sign", dual_norm=-1.0), "dual_norm=-1.0: outside of the theory"),
        "text": (lambda: threshold("sgd", "high"), "curvature='high': neither a number nor an array"),
        "None": (lambda: threshold("sgd", None), "curvature=None: neither a number nor an array"),
    },
    "schedules": {
        "text": (lambda: schedules.bound("linear", 9), "schedule='linear': neither a number nor an array"),
        "text from a function": (lambda: schedules.bound(lambda t: "a", 9), r"schedule\(count\)='a': not a scalar"),
        "arguments": (lambda: schedules.best_rate(lambda: 1.0, 9), "it cannot be called as schedule"),
        "gradient": (lambda: schedules.best_rate(np.ones(9), 9, gradient="a"), "gradient='a': neither a number nor"),
    },
}


def watch(problem):
    return run(monitors=[stability.sharpness_every(problem, 1)])


def run_loss(loss=jnp.sum, **settings):
    return sweep(of(loss, **settings), sgd, RATES, steps=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_argument_is_named_with_its_value(kind):
    for name, (call, match) in KINDS[kind].items():
        with pytest.raises(GdkitError, match=match):
            pytest.fail(f"{name} gives {call()}")


def test_axes_are_arrays_of_any_library():
    values = np.array([0.1, 0.2])
    frame = pd.DataFrame({"rate": values})
    for rates in (jnp.asarray(values), frame["rate"], xr.DataArray(values), np.array([0.1, 0.2], object)):
        axes = SweepResult.from_arrays({"learning_rate": rates}, {"loss": [1.0, 2.0]}).axes
        np.testing.assert_allclose(axes["learning_rate"], values, rtol=1e-6)


HIGH = np.array([1.0, 1e3, 1e8, 1e4, 1.0, *np.geomspace(1e-1, 1e-9, 25)])


def replayed():
    """A learner whose losses are HIGH."""
    losses = jnp.asarray(HIGH, jnp.float32)
    return Learner(
        lambda key, h: jnp.zeros(()), lambda x, h, t, key, data: (x * h["scale"], {"loss": losses[t]}), optimum=0.0
    )


def test_an_infinite_bound_lets_runs_go_on_and_judges_them_by_it_wherever_they_are_read(tmp_path):
    options = {"steps": len(HIGH) - 1, "diverged_above": np.inf}
    result = sweep(replayed(), None, {"scale": [0.5]}, **options, store=tmp_path / "run")
    result.save(tmp_path / "one.nc")
    wanted = Regime.CATAPULT
    assert classify_curve(HIGH, optimum=0.0, diverged_above=np.inf).regime == wanted
    assert classify_curve(HIGH, optimum=0.0).regime == Regime.DIVERGED
    for read in (result, gdkit.open(tmp_path / "one.nc"), gdkit.open(tmp_path / "run")):
        assert read.lanes["end_step"].values == [len(HIGH) - 1]
        assert read.lane_regimes == [wanted]
    again = gdkit.open(tmp_path / "run", problem=replayed()).extend(len(HIGH))
    assert again.lanes["end_step"].values == [len(HIGH)] and again.lane_regimes == [wanted]


@pytest.mark.parametrize(
    "bounds", [[0.1, 1.0], np.array([0.1, 1.0]), (np.float64(0.1), 1)], ids=["list", "array", "mixed"]
)
def test_bounds_are_any_pair_of_numbers(bounds):
    expected = gdkit.random_axes({"learning_rate": (0.1, 1.0)}, 3)
    assert gdkit.random_axes({"learning_rate": bounds}, 3) == expected
