"""A sweep equals runs made one by one, gives the same bits however it is cut, and answers the questions asked of it."""

import itertools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_same_bits, run_sweep

import gdkit
from gdkit import (
    GdkitError,
    Plan,
    Problem,
    Regime,
    descend,
    lanes,
    paired,
    problems,
    random_axes,
    sgd,
    static,
    store,
    sweep,
)
from gdkit.errors import StoreError
from gdkit.store.files import FILES
from gdkit.sweeps.execution.progress import Meter, Progress, print_lines
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.blocks import cut_blocks
from gdkit.sweeps.plan.shapes import Shape
from gdkit.types import Monitor

RATES = np.geomspace(1e-3, 1.0, 7)


@pytest.fixture(scope="module")
def iris():
    return problems.mlp("iris", widths=(), batch_size=16)


@pytest.fixture(scope="module")
def result(iris):
    return sweep(iris, optax.adam, {"learning_rate": RATES}, seeds=3, steps=40)


def test_a_lane_equals_descend_alone_below_the_edge(iris, result):
    for rate in (0, 3, 5):
        for seed in (0, 2):
            key = jax.random.fold_in(jax.random.key(0), seed)
            run = descend(iris, optax.adam, 40, hyperparameters={"learning_rate": RATES[rate]}, key=key)
            lane = result.lanes.isel(lane=rate * 3 + seed)
            np.testing.assert_allclose(lane["final_loss"], run.loss[-1], rtol=1e-4)
            steps, losses = result.curve(rate * 3 + seed)
            np.testing.assert_allclose(losses, np.asarray(run.loss)[steps], rtol=1e-4)


def test_validation_and_test_are_read_at_the_final_params(iris, result):
    key = jax.random.fold_in(jax.random.key(0), 1)
    run = descend(iris, optax.adam, 40, hyperparameters={"learning_rate": RATES[3]}, key=key)
    lane = result.lanes.isel(lane=3 * 3 + 1)
    np.testing.assert_allclose(lane["validation_loss"], iris.loss(run.params, iris.validation), rtol=1e-5)
    np.testing.assert_allclose(lane["test_accuracy"], iris.metrics["accuracy"](run.params, iris.test), rtol=1e-6)


@pytest.mark.parametrize("plan", [Plan(workers=1), Plan(workers=2), Plan(tile=3), Plan(segment=7)])
def test_same_bits_with_other_workers_tiles_and_segments(iris, result, plan):
    again = sweep(iris, optax.adam, {"learning_rate": RATES}, seeds=3, steps=40, plan=plan)
    assert_same_bits(result, again)


def test_same_bits_with_blocks_in_another_order(iris):
    plan, order, others_ran = Plan(width=2, depth=1, workers=2), [], threading.Event()
    forward = sweep(iris, optax.adam, {"learning_rate": RATES}, seeds=3, steps=40, plan=plan)

    def run_first_block_last(job, block, **options):
        if not block.points[0] and not block.seeds[0]:
            assert others_ran.wait(60)
        order.append((block.points[0], block.seeds[0]))
        if len(order) == 4 * 3 - 1:
            others_ran.set()
        return DEFAULT_SETTINGS.run_block(job, block, **options)

    settings = DEFAULT_SETTINGS._replace(run_block=run_first_block_last)
    options = {"seeds": 3, "steps": 40, "plan": plan, "settings": settings}
    assert_same_bits(forward, run_sweep(iris, optax.adam, {"learning_rate": RATES}, **options))
    assert order[-1] == (0, 0) and len(order) == 4 * 3


def test_seeds_are_paired_across_lanes(iris, result):
    initial = result.data["initial_loss"].values
    assert (initial == initial[:1]).all(), "seed s starts alike at every learning rate"
    assert len(np.unique(initial[0])) == 3


def test_one_trace_serves_any_number_of_learning_rates():
    traces = []

    def loss(x):
        traces.append(1)
        return (x - 3.0) ** 2

    problem = Problem(loss, 0.0, optimum=0.0)
    sweep(problem, sgd, {"learning_rate": np.linspace(0.1, 0.9, 8)}, steps=10)
    first = len(traces)
    sweep(problem, sgd, {"learning_rate": np.linspace(0.2, 0.8, 8)}, steps=10)
    sweep(problem, sgd, {"learning_rate": [0.1, 0.2, np.float32(0.3), 1, 0.5, 0.6, 0.7, 0.8]}, steps=20)
    assert len(traces) == first


def test_a_lane_of_nan_touches_no_other(iris):
    calm = sweep(iris, sgd, {"learning_rate": [0.1, 0.2, 0.3, 0.4]}, steps=30)
    wild = sweep(iris, sgd, {"learning_rate": [0.1, 0.2, 1e30, 0.4]}, steps=30)
    assert Regime(int(wild.regimes.values[2, 0])) is Regime.DIVERGED
    for name, column in calm.lanes.data_vars.items():
        if name != "reference_loss":
            np.testing.assert_array_equal(column[[0, 1, 3]], wild.lanes[name][[0, 1, 3]], err_msg=name)


def test_a_lane_ends_where_its_loss_exceeds_the_bound_and_is_frozen_there():
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 2.0]}, steps=100, diverged_above=1000.0)
    lane = result.lanes.isel(lane=1)
    losses = 9.0 * 9.0 ** np.arange(10)  # x − 3 grows by |1 − 2·2| = 3 a step
    end = int(np.argmax(losses > 9.0 + 1000.0 * 9.0))
    assert int(lane["end_step"]) == end
    np.testing.assert_allclose(lane["final_loss"], losses[end], rtol=1e-5)
    assert int(lane["end_kind"]) == gdkit.monitors.EndKind.EXCEEDED


def test_a_lane_ends_at_its_target():
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2]}, steps=100, target=1.0)
    assert result.lanes["end_step"].values.tolist()[1] == 3  # 9 · 0.36^t ≤ 1 from t = 3 on
    assert (result.lanes["final_loss"].values <= 1.0).all()


@pytest.mark.full
def test_a_block_whose_lanes_have_ended_stops_at_once():
    problem = Problem(lambda x: jnp.sum(x**2), jnp.ones(1000), optimum=0.0)
    axes = {"learning_rate": [10.0, 20.0, 40.0]}
    sweep(problem, sgd, axes, steps=10)
    begin = time.monotonic()
    sweep(problem, sgd, axes, steps=100_000_000)
    assert time.monotonic() - begin < 60, "a hundred million steps would take hours"


def test_axes_of_floats_are_lanes_and_of_strings_are_static():
    axes = {"problem.activation": ["relu", "tanh"], "problem.init_scale": [0.5, 1.0], "learning_rate": [0.01, 0.1]}

    def factory(activation, init_scale=1.0):
        squash = {"relu": jax.nn.relu, "tanh": jnp.tanh}[activation]
        return Problem(lambda w: jnp.sum((squash(w) - 1) ** 2), lambda key: init_scale * jax.random.normal(key, (3,)))

    result = sweep(factory, sgd, axes, steps=5)
    assert result.data.sizes == {"problem.activation": 2, "problem.init_scale": 2, "learning_rate": 2, "seed": 1} | {
        "point": result.data.sizes["point"]
    }
    for activation in ("relu", "tanh"):
        alone = sweep(factory(activation, 0.5), sgd, {"learning_rate": [0.01, 0.1]}, steps=5)
        chosen = result.data["final_loss"].sel({"problem.activation": activation, "problem.init_scale": 0.5})
        np.testing.assert_allclose(chosen.values, alone.data["final_loss"].values, rtol=1e-5)


@pytest.mark.full
def test_static_and_lanes_give_the_same_numbers():
    traced = sweep(problems.parabola(), sgd, {"learning_rate": lanes([0.1, 0.2])}, steps=20)
    constant = sweep(problems.parabola(), sgd, {"learning_rate": static([0.1, 0.2])}, steps=20)
    np.testing.assert_allclose(traced.lanes["final_loss"], constant.lanes["final_loss"], rtol=1e-5)


@pytest.mark.full
def test_paired_axes_vary_together():
    pairs = {"learning_rate": [0.1, 0.2, 0.3], "momentum": [0.0, 0.5, 0.9]}
    result = sweep(problems.parabola(), sgd, paired(pairs), steps=30)
    assert result.data.sizes["pair"] == 3
    grid = sweep(problems.parabola(), sgd, pairs, steps=30).data["final_loss"].values
    # blocks of three lanes and of nine: their widths decide the rounding
    np.testing.assert_allclose(result.data["final_loss"].values[:, 0], np.diagonal(grid[..., 0]), rtol=1e-5)


def test_random_axes_are_log_uniform_and_repeatable():
    axes = random_axes({"learning_rate": (1e-4, 1.0)}, 2000, key=3)
    logs = np.log10(axes["learning_rate"])
    assert logs.min() > -4 and logs.max() < 0
    np.testing.assert_allclose(np.histogram(logs, 4, (-4, 0))[0] / 2000, 0.25, atol=0.05)
    assert axes == random_axes({"learning_rate": (1e-4, 1.0)}, 2000, key=3)


def test_optimizers_with_axes_of_their_own_keep_the_lanes_and_are_selected():
    choices = {"sgd": sgd, "momentum": (sgd, {"momentum": 0.9}), "adam": (optax.adam, {"learning_rate": [0.1, 0.3]})}
    result = sweep(problems.parabola(), None, {"optimizer": choices, "learning_rate": [0.01, 0.1, 0.2]}, steps=30)
    assert result.data.sizes["lane"] == 3 + 3 + 2
    assert result.optimizers == ("sgd", "momentum", "adam")
    alone = sweep(problems.parabola(), optax.adam, {"learning_rate": [0.1, 0.3]}, steps=30)
    chosen = result.select(optimizer="adam").data
    np.testing.assert_array_equal(chosen["final_loss"].values, alone.data["final_loss"].values)
    with pytest.raises(GdkitError, match=r"Choose one first: \.select\(optimizer=\.\.\.\)\.edge"):
        result.edge()
    assert result.recommend().at["optimizer"] in result.optimizers


def test_optimizers_with_equal_axes_make_a_product():
    axes = {"optimizer": ["sgd", "adam"], "learning_rate": [0.01, 0.1]}
    result = sweep(problems.parabola(), None, axes, steps=10)
    assert result.data.sizes["optimizer"] == 2 and result.data["optimizer"].values.tolist() == ["sgd", "adam"]


def test_edge_lies_between_the_last_calm_and_the_first_diverged_value():
    rates = [0.5, 0.9, 1.1, 2.0]
    edge = sweep(problems.parabola(), sgd, {"learning_rate": rates[::-1]}, steps=300).edge().squeeze("seed")
    assert (float(edge["low"]), float(edge["high"])) == (0.9, 1.1)
    np.testing.assert_allclose(edge["median"], np.sqrt(0.9 * 1.1))
    none = sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=30).edge().squeeze("seed")
    assert float(none["edge"]) == np.inf
    every = sweep(problems.parabola(), sgd, {"learning_rate": [5.0, 6.0]}, steps=30).edge().squeeze("seed")
    assert float(every["edge"]) == 0.0


def test_best_is_the_least_mean_over_seeds_and_never_looks_at_test(result):
    best = result.best()
    means = result.data["validation_loss"].mean("seed")
    assert best.by == "validation_loss"
    assert best.hyperparameters["learning_rate"] == RATES[np.argmin(means.values)]
    np.testing.assert_allclose(best.score, float(means.min()), rtol=1e-6)
    most = result.best("validation_accuracy", maximize=True)
    assert most.score == pytest.approx(float(result.data["validation_accuracy"].mean("seed").max()))


def test_recommendation_equals_its_definitions_by_hand():
    rates = np.array([1e-3, 0.02, 0.1, 0.4, 0.9, 1.1, 2.0])
    result = sweep(problems.parabola(), sgd, {"learning_rate": rates}, steps=40)
    found = result.recommend()
    loss = result.data["final_loss"].values[:, 0].astype(float)
    assert found.best == rates[np.nanargmin(np.where(rates > 1, np.inf, loss))]
    assert found.safe == 0.9
    assert found.edge == pytest.approx(np.sqrt(0.9 * 1.1))
    capped = np.minimum(np.where(rates > 1, np.inf, loss), 9.0)
    assert found.sensitivity == pytest.approx(np.mean(capped) - capped.min(), rel=1e-6)
    good = rates[(loss <= 1.05 * loss[3] + np.finfo(np.float32).eps * 9) & (rates < 1)]  # the optimum is 0
    assert found.plateau == (good.min(), good.max())
    assert any("1 seed" in text for text in found.caveats)


def test_what_is_not_known_is_said_and_never_nan():
    every = sweep(problems.parabola(), sgd, {"learning_rate": [5.0, 6.0]}, steps=30).recommend()
    assert every.best is None and every.safe is None
    assert "diverged" in str(every) and "nan" not in str(every)
    slow = sweep(problems.parabola(), sgd, {"learning_rate": [1e-5, 1e-4]}, steps=30).recommend()
    text = " ".join(slow.caveats)
    assert "the end of the axis" in text and "no run converged" in text and "no divergence found up to" in text


def test_bootstrap_interval_holds_the_best(result):
    found = result.recommend()
    assert found.interval[0] <= found.best <= found.interval[1]


def test_save_and_open_give_the_same_result(result, tmp_path):
    result.save(tmp_path / "result.nc")
    again = gdkit.open(tmp_path / "result.nc")
    assert again.lanes.identical(result.lanes.assign_attrs(again.lanes.attrs))
    assert again.grids == result.grids
    np.testing.assert_array_equal(again.regimes, result.regimes)
    assert str(again.recommend()) == str(result.recommend())


def test_store_argument_saves(tmp_path):
    result = sweep(problems.parabola(), sgd, {"learning_rate": [0.1]}, steps=5, store=tmp_path / "r.nc")
    assert gdkit.open(tmp_path / "r.nc").lanes.sizes == result.lanes.sizes


def test_a_failed_save_leaves_the_old_file_whole(result, tmp_path):
    path = tmp_path / "result.nc"
    result.save(path)
    before = path.read_bytes()
    full = FILES._replace(replace=lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match=r"result.nc: it cannot be written \(disk full\)"):
        store.save(result.lanes, path, files=full)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_opening_what_is_no_result_says_so(tmp_path):
    with pytest.raises(GdkitError, match="there is no result"):
        gdkit.open(tmp_path)
    (tmp_path / "results.nc").write_bytes(b"not netCDF at all")
    with pytest.raises(GdkitError, match="it has no checksum, or is cut short"):
        gdkit.open(tmp_path)
    with pytest.raises(GdkitError, match="its folder does not exist"):
        sweep(problems.parabola(), sgd, {"learning_rate": [0.1]}, steps=5).save(tmp_path / "no" / "r.nc")


def test_dataframe_has_a_row_a_lane_with_its_regime_by_name(result):
    frame = result.to_dataframe()
    assert len(frame) == 21 and set(frame["regime"]) <= {r.name for r in Regime}
    np.testing.assert_array_equal(frame["final_loss"], result.lanes["final_loss"])
    assert list(frame.columns[:3]) == ["learning_rate", "seed", "regime"]


def test_dataframe_leaves_out_what_a_monitor_recorded_along_the_way():
    path = Monitor(lambda s: jnp.zeros(3), lambda m, *seen: m + 1, lambda m: {"path": m, "last": m[-1]})
    frame = sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=4, monitors=[path]).to_dataframe()
    assert "path" not in frame and frame["last"].tolist() == [5.0, 5.0]


@pytest.mark.full
def test_progress_counts_every_lane_step_once(iris):
    told = []
    sweep(iris, sgd, {"learning_rate": RATES}, seeds=2, steps=30, plan=Plan(width=4, segment=10), progress=told.append)
    assert told[-1].done == told[-1].total == 7 * 2 * 30
    assert told[-1].lanes_done == told[-1].lanes == 14
    assert all(a.done <= b.done for a, b in itertools.pairwise(told))


def test_progress_in_plain_lines_ends_with_a_total(capsys):
    meter = Meter(print_lines(every=0.0), lanes=2, steps=5, every=0.0)
    meter.add(5)
    meter.add(5, lanes=2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("100 %  2 of 2 lanes")
    assert Progress(50, 100, 1, 2, 5.0).seconds_left == pytest.approx(5.0)


def test_the_rate_is_that_of_this_process_since_its_first_lane_moved():
    now, reports = [100.0], []
    meter = Meter(reports.append, lanes=10, steps=10, every=0.0, clock=lambda: now[0])
    meter.add_resumed(40, 4)
    assert not reports[-1].has_rate
    now[0] += 30  # compiling
    meter.add(0)  # a block begins
    now[0] += 2
    meter.add(20)
    assert (reports[-1].done, reports[-1].seconds, reports[-1].has_rate) == (60, 32.0, True)
    assert (reports[-1].rate, reports[-1].seconds_left) == (10.0, 4.0)


def test_the_first_moments_predict_nothing():
    assert not Progress(64, 10**6, 0, 8, 30.0, waited=29.9).has_rate


def test_an_error_in_a_worker_reaches_the_caller_and_ends_all_workers():
    def fail(*_, **__):
        raise RuntimeError("a block broke")

    settings = DEFAULT_SETTINGS._replace(run_block=fail)
    with pytest.raises(RuntimeError, match="a block broke"):
        run_sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=5, settings=settings)
    assert not [t for t in threading.enumerate() if t.name.startswith("gdkit")]


def test_blocks_hold_every_lane_once_but_for_padding():
    for points, seeds, shape in [(1, 1, (8, 1)), (7, 3, (4, 2)), (3, 10, (3, 4)), (100, 2, (16, 1)), (5, 5, (1, 1))]:
        blocks = cut_blocks(points, seeds, Shape(*shape))
        assert len({(b.points.shape, b.seeds.shape) for b in blocks}) == 1
        seen = {(p, s) for b in blocks for p in b.points for s in b.seeds}
        assert seen == {(p, s) for p in range(points) for s in range(seeds)}


@pytest.mark.full
def test_schedule_free_is_judged_at_its_average(iris):
    factory = optax.contrib.schedule_free_sgd
    result = sweep(iris, factory, {"learning_rate": [0.1]}, steps=20)
    key = jax.random.fold_in(jax.random.key(0), 0)
    run = descend(iris, factory, 20, hyperparameters={"learning_rate": 0.1}, key=key)
    average = optax.contrib.schedule_free_eval_params(run.opt_state, run.params)
    np.testing.assert_allclose(result.lanes["test_loss"].values, iris.loss(average, iris.test), rtol=1e-5)


def test_ascent_climbs_and_is_judged_by_the_negated_loss():
    hill = Problem(lambda x: 1.0 - (x - 3.0) ** 2, 0.0, optimum=1.0)
    climb = lambda learning_rate: gdkit.ascent(sgd(learning_rate))
    result = sweep(hill, climb, {"learning_rate": [0.2, 1.2]}, steps=100)
    assert [Regime(int(c)).name for c in result.regimes.values.ravel()] == ["CONVERGED", "DIVERGED"]
    np.testing.assert_allclose(result.lanes["final_loss"].values[0], -1.0, atol=1e-5)


def test_aux_goes_through_the_run():
    def loss(x, batch, count):
        return (x - 3.0) ** 2, count + 1

    problem = Problem(loss, lambda key: (jnp.float32(0.0), jnp.int32(0)), has_aux=True, optimum=0.0)
    run = descend(problem, sgd, 12, hyperparameters={"learning_rate": 0.2})
    assert run.aux == 12
    assert Regime(int(sweep(problem, sgd, {"learning_rate": [0.2]}, steps=60).regimes.values[0, 0])) is Regime.CONVERGED


def test_a_sweep_without_a_learning_rate_axis_is_about_the_first_axis_of_numbers():
    result = sweep(problems.parabola(), lambda momentum=0.0: sgd(0.05, momentum), {"momentum": [0.0, 0.5]}, steps=30)
    assert result.main_axis == "momentum" and "momentum: use" in repr(result)
    assert result.edge().sizes == {"seed": 1}


def test_a_sweep_without_axes_is_one_lane():
    result = sweep(problems.parabola(), sgd(0.1), {}, steps=5)
    assert result.lanes.sizes["lane"] == 1 and "1 lane of 5 steps" in repr(result)


@pytest.mark.full
def test_a_loss_without_a_floor_is_left_for_good_and_never_recommended():
    axes = {"learning_rate": [0.01, 0.1, 0.5]}
    result = sweep(Problem(lambda x: -(x**2), 1.0), sgd, axes, steps=400)
    assert [Regime(int(c)).name for c in result.regimes.values.ravel()] == ["DIVERGED"] * 3
    assert result.recommend().best is None
    deep = Problem(
        lambda x: (x - 3e4) ** 2 - 9e8, 0.0, optimum=-9e8
    )  # a floor that is known may lie as deep as it likes
    assert Regime(int(sweep(deep, sgd, {"learning_rate": [0.3]}, steps=400).regimes.values[0, 0])) is Regime.CONVERGED


@pytest.mark.full
def test_lanes_along_an_axis_hold_the_others_at_the_best_or_where_asked():
    axes = {"momentum": [0.0, 0.5], "learning_rate": [0.01, 0.1, 0.2]}
    result = sweep(problems.parabola(), sgd, axes, steps=30)
    one = result.along("learning_rate", at={"momentum": 0.5})
    np.testing.assert_array_equal(one.data["final_loss"].values, result.data["final_loss"].values[1])
    assert result.along("learning_rate").lanes["momentum"].values[0] == result.best().hyperparameters["momentum"]
    with pytest.raises(GdkitError, match="the sweep has no such point"):
        result.along("learning_rate", at={"momentum": 0.7})


def test_the_curve_of_a_lane_that_ended_does_not_depend_on_how_long_its_neighbours_go_on():
    # at 1.03 a lane ends after some hundred steps, between two that are recorded
    settings = {"steps": 300, "plan": Plan(width=2), "curve_points": 20}
    alone = sweep(problems.parabola(), sgd, {"learning_rate": [1.03, 1.035]}, **settings).data["curve_loss"]
    beside = sweep(problems.parabola(), sgd, {"learning_rate": [1.03, 0.1]}, **settings).data["curve_loss"]
    np.testing.assert_array_equal(alone.values[0], beside.values[0])
    assert np.isnan(alone.values[0]).any()


def test_a_warning_points_at_the_line_that_called():
    with pytest.warns(gdkit.GdkitWarning, match="seeds=2") as caught:
        sweep(problems.parabola(), sgd, {"learning_rate": [0.1]}, seeds=2, steps=5)
    assert caught[0].filename == __file__


def test_what_is_wrong_with_a_later_optimizer_is_found_before_any_runs():
    settings = DEFAULT_SETTINGS._replace(run_block=lambda *_, **__: pytest.fail("a block ran"))
    axes = {"optimizer": {"a": sgd, "b": lambda learning_rate: None}, "learning_rate": [0.1]}
    with pytest.raises(GdkitError, match="the factory did not return an"):
        run_sweep(problems.parabola(), None, axes, steps=5, settings=settings)


@pytest.mark.full
def test_params_of_half_precision_have_statistics_of_single():
    problem = Problem(lambda x: jnp.sum(x.astype(jnp.float32) ** 2), jnp.ones(3, jnp.bfloat16))
    run = descend(problem, sgd, 10, hyperparameters={"learning_rate": 0.1})
    result = sweep(problem, sgd, {"learning_rate": [0.1, 2.0]}, steps=10)
    assert result.lanes["late_mean"].dtype == np.float32
    assert result.lanes["final_loss"].values[0] == float(run.loss[-1]) == pytest.approx(3 * 0.8**20, rel=0.1)
    native = sweep(Problem(lambda x: jnp.sum(x**2), jnp.ones(3, jnp.bfloat16)), sgd, {"learning_rate": [0.1]}, steps=10)
    assert native.lanes["final_loss"].values[0] == pytest.approx(3 * 0.8**20, rel=0.1)
