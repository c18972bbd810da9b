"""The planner: what it may choose, what it must not change, and what it costs."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import RecordingRunBlock, fail_for_memory, run_sweep

from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.errors import InputValueError
from gdkit.sweeps.execution.block import DEFAULT_SEGMENTS, SegmentSettings
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.plan.shapes import BlockLimits, Shape, choose_shape
from gdkit.sweeps.programs import timing
from gdkit.sweeps.programs.compile import _compile
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.request import check_request
from gdkit.trees import to_host

RATES = np.geomspace(1e-3, 1.5, 11)


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


@pytest.fixture(autouse=True)
def forgotten():
    timing.chosen_shapes.clear()


def plan_of(result):
    return result.plan


def same_bits(a, b):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name in a.lanes.data_vars:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=name)


# The rule


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 20), st.sampled_from([1, 8, 64, 1024]), st.integers(1, 16))
def test_rule_keeps_every_worker_busy_within_the_cache(points, seeds, most, workers):
    shape = choose_shape(points, seeds, BlockLimits(most, 4), Plan(), workers)
    assert 1 <= shape.lanes <= most
    blocks = -(-points // shape.width) * -(-seeds // shape.depth)
    rounds = -(-blocks // workers)
    alone = -(-points * seeds // most)  # the fewest blocks there could be
    assert rounds * shape.lanes <= 1.5 * max(-(-alone // workers) * most, 1) + most
    if points * seeds >= workers * most:
        assert blocks >= workers


def test_rule_gives_each_worker_one_block_of_a_small_sweep():
    assert choose_shape(64, 1, BlockLimits(64, 3), Plan(), 2) == Shape(32, 1)
    assert choose_shape(31, 3, BlockLimits(64, 3), Plan(), 2) == Shape(16, 3)  # not three blocks for two workers


def test_what_a_plan_fixes_is_kept():
    assert choose_shape(100, 5, BlockLimits(64, 3), Plan(width=7, depth=2, unroll=3), 2) == Shape(7, 2, 3)


# Bits


@pytest.mark.full
def test_calls_of_one_step_end_where_loops_do(iris):
    plan = Plan(width=4, unroll=1, segment=7)
    looped = sweep(iris, optax.adam, {"learning_rate": RATES}, steps=33, plan=plan)
    single = sweep(iris, optax.adam, {"learning_rate": RATES}, steps=33, plan=dataclasses.replace(plan, unroll=0))
    np.testing.assert_array_equal(looped.lanes["end_step"], single.lanes["end_step"])
    for name in ("final_loss", "min_loss", "late_mean", "reversal", "curve_loss"):
        np.testing.assert_allclose(looped.lanes[name], single.lanes[name], rtol=1e-5, atol=1e-7)


def test_a_cpu_makes_one_step_per_iteration(iris):
    several = sweep(iris, optax.adam, {"learning_rate": RATES}, steps=33, plan=Plan(width=4, unroll=5))
    assert several.plan["unroll"] == 1
    same_bits(several, sweep(iris, optax.adam, {"learning_rate": RATES}, steps=33, plan=Plan(width=4)))


@pytest.mark.full
def test_a_convolution_is_stepped_by_calls_on_a_cpu():
    def loss(kernel, images):
        made = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean((made - 1) ** 2)

    problem = Problem(loss, jnp.zeros((3, 3, 1, 1)), data=jnp.ones((2, 4, 4, 1)))
    result = sweep(problem, sgd, {"learning_rate": [0.01, 0.1, 1e3]}, steps=9)
    assert plan_of(result)["unroll"] == (0 if jax.default_backend() == "cpu" else 1)
    looped = sweep(problem, sgd, {"learning_rate": [0.01, 0.1, 1e3]}, steps=9, plan=Plan(width=1, unroll=1))
    np.testing.assert_array_equal(result.lanes["end_step"], looped.lanes["end_step"])
    np.testing.assert_allclose(result.lanes["final_loss"][:2], looped.lanes["final_loss"][:2], rtol=1e-5)


@pytest.mark.full
def test_segments_that_adapt_to_the_clock_give_the_same_bits(iris):
    plan = Plan(width=4, unroll=1)
    fixed = sweep(iris, sgd, {"learning_rate": RATES}, steps=200, plan=dataclasses.replace(plan, segment=13))
    short = DEFAULT_SETTINGS._replace(segments=SegmentSettings(first_steps=3, seconds=0.002))
    same_bits(fixed, run_sweep(iris, sgd, {"learning_rate": RATES}, steps=200, plan=plan, settings=short))


@pytest.mark.full
def test_a_sweep_that_ran_before_in_the_process_begins_at_its_pace(iris):
    plan, last = Plan(width=len(RATES), workers=1), 10 * DEFAULT_SEGMENTS.first_steps
    timing.seconds_per_step.clear()

    def segments_of_a_sweep():
        segments = []

        def run_block(job, block, *, report_steps, **options):
            record = lambda steps: (segments.append(steps), report_steps(steps))
            return DEFAULT_SETTINGS.run_block(job, block, report_steps=record, **options)

        settings = DEFAULT_SETTINGS._replace(run_block=run_block)
        run_sweep(iris, sgd, {"learning_rate": RATES}, steps=last, plan=plan, settings=settings)
        return segments

    assert segments_of_a_sweep()[:2] == [0, DEFAULT_SEGMENTS.first_steps]
    assert segments_of_a_sweep() == [0, last]


@pytest.mark.filterwarnings("ignore:seeds=2")
@pytest.mark.parametrize("alike", [True, False])
def test_blocks_share_a_start_where_no_swept_value_decides_it(iris, alike):
    problem = iris if alike else problems.parabola
    axes = {"learning_rate": RATES} if alike else {"problem.start": np.arange(1.0, 12.0)}
    factory, starts = functools.partial(sgd, learning_rate=0.1) if not alike else sgd, []

    def run_block(job, block, **options):
        (program,) = job.programs
        assert program.starts_alike == alike
        start = lambda *inputs: starts.append(inputs[0].seeds.tolist()) or program.start(*inputs)
        return DEFAULT_SETTINGS.run_block(job._replace(programs=[program._replace(start=start)]), block, **options)

    options = {"seeds": 2, "steps": 9, "plan": Plan(width=3, depth=1, workers=1)}
    counting = DEFAULT_SETTINGS._replace(run_block=run_block)
    straight = sweep(problem, factory, axes, **options)
    same_bits(straight, run_sweep(problem, factory, axes, **options, settings=counting))
    assert starts == [[0], [1]] * (1 if alike else 4)
    starts.clear()
    uncached = counting._replace(segments=SegmentSettings(start_cache_bytes=0))
    same_bits(straight, run_sweep(problem, factory, axes, **options, settings=uncached))
    assert starts == [[0], [1]] * 4


@pytest.mark.full
def test_what_is_known_of_a_problem_is_asked_again_in_another_precision():
    problem = Problem(lambda w: jnp.sum((w - 3) ** 2), lambda key: jax.random.normal(key, (3,)))
    found = lambda: sweep(problem, sgd, {"learning_rate": [0.1, 0.2]}, steps=5).lanes["final_loss"].dtype
    before = jax.config.read("jax_enable_x64")
    try:
        for precise, dtype in ((False, "float32"), (True, "float64"), (False, "float32")):
            jax.config.update("jax_enable_x64", precise)
            assert found() == dtype
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.full
def test_the_shape_does_not_depend_on_the_workers_of_a_run(iris):
    one, two = (sweep(iris, sgd, {"learning_rate": RATES}, seeds=2, steps=20, plan=Plan(workers=n)) for n in (1, 2))
    assert plan_of(one)["width"] == plan_of(two)["width"]
    same_bits(one, two)


# Timing


def test_a_short_sweep_is_not_timed(iris):
    assert plan_of(sweep(iris, sgd, {"learning_rate": RATES}, steps=5))["chosen"] == "rule"


# Times as if the sweep were long enough to pay for it.
GENEROUS = timing.PlannerSettings(share=1e6, time_lane_step=functools.partial(timing.time_lane_step, sample=0.01))


@pytest.mark.full
def test_a_timed_choice_is_recorded_and_remembered(iris):
    run = functools.partial(run_sweep, settings=DEFAULT_SETTINGS._replace(planner=GENEROUS))
    first = run(iris, sgd, {"learning_rate": RATES}, steps=40)
    assert plan_of(first)["chosen"] == "timed"
    again = run(iris, sgd, {"learning_rate": RATES}, steps=40)
    assert plan_of(again)["chosen"] == "remembered"
    assert [plan_of(r)[n] for r in (first, again) for n in ("width", "depth", "unroll")] == 2 * [
        plan_of(first)[n] for n in ("width", "depth", "unroll")
    ]
    same_bits(first, again)


@pytest.mark.full
def test_the_faster_shape_is_chosen(iris):
    speed = {2: 3.0, 4: 2.0, 8: 1.0, 16: 5.0}
    planner = GENEROUS._replace(time_lane_step=lambda job, workers: speed.get(len(job.blocks[0].points), 9.0))
    axes = {"learning_rate": np.geomspace(1e-3, 1, 64)}
    request = check_request(iris, sgd, axes, steps=10)
    (prepared,) = trace_groups(request)
    make = lambda shape: build_job(request, prepared, jax.local_devices()[:1], shape)
    plan = Plan(unroll=1)  # which is not varied then
    _, choice = timing.choose_job(make, Shape(2, 1), plan, most=64, lanes=64, workers=2, settings=planner)
    assert (choice.shape, choice.source) == (Shape(8, 1), "timed")


def test_a_padded_block_knows_its_sizes_in_any_order():
    for points, expected in (([4, 1, 7, 7], 3), ([5, 2, 0], 3), ([3, 3, 3], 1), ([9], 1)):
        assert Block(np.array(points), np.array([0, 2, 2])).sizes == (expected, 2)


def test_a_tree_of_lanes_is_packed_and_unpacked_as_it_was():
    key = jax.random.split(jax.random.key(0), 6).reshape(2, 3)
    numbers = {n: np.arange(6).reshape(2, 3).astype(n) for n in ("float32", "int32", "bool")}
    tree = {"w": np.ones((2, 3, 5), np.float32), "key": key, "more": 2 * numbers["float32"]} | numbers
    packed = jax.jit(Packed.pack)(tree)
    assert len(jax.tree.leaves(packed)) == 5, "two on their own, and one a dtype"
    shapes = jax.eval_shape(Packed.pack, tree).unpack()
    for back in (packed.unpack(), jax.jit(Packed.unpack)(packed)):
        assert jax.tree.structure(back) == jax.tree.structure(tree)
        for one, other, shape in zip(*map(jax.tree.leaves, (back, tree, shapes)), strict=True):
            assert one.dtype == other.dtype == shape.dtype and shape.shape == one.shape
            assert np.array_equal(to_host(one), to_host(other))


def test_choices_survive_a_process_and_nonsense_is_left_out():
    timing.import_choices({"a": [4, 2, 1, 0], "b": "wide", "c": [1, 2], "d": [0, 1, 1, 0], "e": [True, 1, "x"]})
    assert timing.export_choices() == {"a": (4, 2, 1, 0)}


def test_the_command_line_keeps_choices_between_processes(tmp_path, monkeypatch):
    from gdkit.app.run.caches import store_plans

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with store_plans():
        timing.import_choices({"a": [4, 2, 1, 0]})
    (file,) = tmp_path.rglob("plans.json")
    timing.chosen_shapes.clear()
    with store_plans():
        assert timing.export_choices() == {"a": (4, 2, 1, 0)}
    file.write_text("{damaged")
    timing.chosen_shapes.clear()
    with store_plans():
        assert timing.export_choices() == {}
        timing.import_choices({"b": [1, 1, 1, 0]})
    assert json.loads(file.read_text()) == {"b": [1, 1, 1, 0]}


def test_fingerprints_tell_programs_apart_and_not_where_they_are_written(iris):
    def fingerprint(loss, steps=10):
        problem = Problem(loss, jnp.ones(3))
        request = check_request(problem, sgd, {"learning_rate": RATES}, steps=steps)
        (prepared,) = trace_groups(request)
        job = build_job(request, prepared, jax.local_devices()[:1], Shape(4, 1))
        return job.programs[0].fingerprint

    one = fingerprint(lambda x: jnp.sum(x**2))
    # the same loss on another line
    same = fingerprint(lambda x: jnp.sum(x**2))
    assert one == same == fingerprint(lambda x: jnp.sum(x**2), steps=99)
    assert one != fingerprint(lambda x: jnp.sum(x**4))
    captured = jnp.arange(3.0)
    assert one != fingerprint(lambda x: jnp.sum(x**2 + captured))


# Memory


def test_a_device_that_runs_out_of_memory_gets_narrower_blocks(iris):
    expected = sweep(iris, sgd, {"learning_rate": RATES}, seeds=2, steps=20, plan=Plan(width=2, depth=1))
    fail = lambda job, block: fail_for_memory() if job.lanes_per_block > 2 else None
    options = {"seeds": 2, "steps": 20, "plan": Plan(width=4, depth=1)}
    settings = DEFAULT_SETTINGS._replace(run_block=RecordingRunBlock(fail))
    result = run_sweep(iris, sgd, {"learning_rate": RATES}, **options, settings=settings)
    np.testing.assert_allclose(result.lanes["final_loss"], expected.lanes["final_loss"], rtol=1e-5)
    assert "memory" in plan_of(result)["chosen"]
    assert min(plan_of(result)["width"]) <= 2


def test_a_program_that_does_not_compile_within_memory_is_made_narrower(iris):
    build = lambda *given: fail_for_memory() if given[3].width > 2 else build_job(*given)
    settings = DEFAULT_SETTINGS._replace(build_job=build)
    result = run_sweep(iris, sgd, {"learning_rate": RATES}, steps=20, settings=settings)
    assert (plan_of(result)["chosen"], plan_of(result)["width"]) == ("memory", 2)


def test_one_lane_that_does_not_fit_is_an_error(iris):
    settings = DEFAULT_SETTINGS._replace(run_block=RecordingRunBlock(fail_for_memory))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        run_sweep(iris, sgd, {"learning_rate": [0.1, 0.2]}, steps=5, settings=settings)
    assert not [t for t in threading.enumerate() if t.name.startswith("gdkit")]


# Devices


def test_a_plan_of_more_devices_than_there_are_is_refused(iris):
    with pytest.raises(InputValueError, match=r"plan.devices=99: there are 1"):
        sweep(iris, sgd, {"learning_rate": [0.1]}, steps=5, plan=Plan(devices=99))


SPLIT = """
import jax, jax.numpy as jnp, numpy as np
from gdkit import Plan, Problem, sgd, sweep
assert len(jax.local_devices()) == 3
problem = Problem(lambda x: jnp.sum(x**4), lambda key: jax.random.normal(key, (3,)))
axes = {"learning_rate": np.geomspace(1e-3, 1.5, 16)}
run = lambda devices: sweep(problem, sgd, axes, seeds=2, steps=30, plan=Plan(width=2, depth=1, devices=devices))
all_, one = run(3), run(1)
plan = all_.plan
assert (plan["devices"], plan["workers"]) == (3, 3), plan
for name in all_.lanes.data_vars:
    np.testing.assert_array_equal(all_.lanes[name].values, one.lanes[name].values)
print("same")
"""


def test_many_devices_share_a_sweep_and_give_the_bits_of_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3"
    done = subprocess.run(
        [sys.executable, "-c", SPLIT],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


# Early ends


def test_a_block_whose_lanes_have_all_ended_stops_inside_a_segment():
    steps = 200_000
    problem = problems.parabola()
    run = lambda rates: sweep(problem, sgd, {"learning_rate": rates}, steps=steps, plan=Plan(width=4, segment=steps))
    run([1.5, 1.6, 1.7, 1.8])  # compiles
    begin = time.process_time()
    dead = run([1.5, 1.6, 1.7, 1.8])
    took = time.process_time() - begin
    begin = time.process_time()
    run([0.9, 0.91, 0.92, 0.93])
    assert dead.lanes["end_step"].max() < 100
    assert took < 0.5 * (time.process_time() - begin)  # it makes under a thousandth of the steps


def test_options_that_this_xla_does_not_know_are_left_out_and_other_errors_are_not():
    lowered = jax.jit(lambda x: 2 * x).lower(np.ones(3, np.float32))
    device = jax.devices()[0]
    options = {"xla_of_tomorrow": 1, "xla_cpu_prefer_vector_width": 512, "xla_of_yesterday": False}
    made = _compile(lowered, device, options)
    np.testing.assert_array_equal(made(np.ones(3, np.float32)), np.full(3, 2.0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_cpu_prefer_vector_width"):
        _compile(lowered, device, {"xla_cpu_prefer_vector_width": "wide"})
