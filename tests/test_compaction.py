"""Compaction: the running lanes of a wide block are advanced in a narrower one, which changes no result."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick, run_sweep, walk

from gdkit import Plan, Problem, problems, sgd
from gdkit.monitors import patience
from gdkit.sweeps.execution.block import SegmentSettings
from gdkit.sweeps.execution.compaction import Selection, gather, scatter
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.programs.build import Carry
from gdkit.sweeps.programs.groups import build_job
from gdkit.sweeps.programs.layout import ON_ACCELERATOR, ON_CPU
from gdkit.sweeps.programs.packing import Packed

RATES = {"learning_rate": [0.01, 1.5, 0.1, 2.0, 0.2, 0.3, 2.5, 3.0]}  # those above 1 diverge
PLAN = Plan(width=8, depth=2, segment=16, unroll=1)


def noisy():
    """Noisy gradients of x²."""
    sample = lambda key, t, data: jax.random.normal(jax.random.fold_in(key, t), (2,))
    validation = jnp.zeros(2)
    loss = lambda x, batch: jnp.sum((x - 0.1 * batch) ** 2)
    return Problem(
        loss, lambda key: jax.random.normal(key, (2,)), data=validation, sample=sample, validation=validation
    )


def run(layout, problem, optimizer, *, gain=0.0, **options):
    """A sweep in one layout, and the narrower blocks that it compiled, as (seeds, points)."""
    jobs = []

    def build(*arguments, **own):
        jobs.append(build_job(*arguments, layout=layout, **own))
        return jobs[-1]

    segments = SegmentSettings(compaction_gain=gain)
    settings = DEFAULT_SETTINGS._replace(build_job=build, segments=segments, progress_seconds=0.0)
    options = {"steps": 60, "seeds": 2, "plan": PLAN, "diverged_above": 10.0} | options
    result = run_sweep(problem, optimizer, RATES, settings=settings, **options)
    return result, {key[1:] for job in jobs for key in job.narrower or {}}


def test_the_narrower_block_is_the_running_lanes_padded():
    is_running = np.zeros((2, 5), bool)
    is_running[1, [0, 2, 4]] = True
    seeds, points = selection = Selection.of_running(is_running)
    assert seeds.tolist() == [1] and points.tolist() == [0, 2, 4, 5]
    values, curve = np.arange(10.0).reshape(2, 5), np.arange(30.0).reshape(3, 2, 5)
    carry = Carry(jnp.int32(3), Packed.pack({"x": jnp.asarray(values)}), jnp.asarray(curve), jnp.bool_(True))
    narrow = gather(carry, selection)
    np.testing.assert_array_equal(narrow.lanes.unpack()["x"], values[[1]][:, [0, 2, 4, 4]])
    moved = narrow._replace(t=jnp.int32(7), lanes=jax.tree.map(jnp.negative, narrow.lanes), curve=-narrow.curve)
    whole = scatter(carry, moved, selection)
    np.testing.assert_array_equal(whole.lanes.unpack()["x"], np.where(is_running, -values, values))
    np.testing.assert_array_equal(whole.curve, np.where(is_running, -curve, curve))
    assert whole.t == 7


@pytest.mark.full
def test_a_block_is_not_compacted_where_that_saves_less_than_compiling():
    ends = functools.partial(run, ON_CPU._replace(compacts=True), problems.parabola(), sgd, seeds=1)
    assert ends(gain=1e9)[1] == set()
    assert ends()[1] == {(1, 4)}
    assert ON_ACCELERATOR.compacts and not ON_CPU.compacts


def assert_same(a, b):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name, values in a.lanes.data_vars.items():
        np.testing.assert_allclose(b.lanes[name], values, rtol=2e-4, atol=1e-6, err_msg=str(name))


CASES = {
    "evaluated, with a stopping rule": (noisy(), sgd, {"evaluate_every": 10, "monitors": (patience(checks=20),)}),
    "a key in the state": (walk(), None, {"curve_points": 0}),
    "momentum": (noisy(), functools.partial(optax.sgd, momentum=0.1), {}),
}


@pytest.mark.parametrize("case", quick(list(CASES), *list(CASES)[:1]))
def test_lanes_keep_their_values(case):
    problem, optimizer, options = CASES[case]
    wide, none = run(ON_CPU, problem, optimizer, **options)
    narrow, widths = run(ON_CPU._replace(compacts=True), problem, optimizer, **options)
    assert none == set()
    assert widths  # the block was compacted
    assert all(points in (1, 2, 4, 8) and seeds in (1, 2) for seeds, points in widths)
    assert_same(wide, narrow)


@pytest.mark.parametrize("case", quick(list(CASES), *list(CASES)[:1]))
def test_lanes_that_are_resumed_keep_their_values(case, tmp_path):
    """Their carry is on the host: that of an extended run, and that of a checkpoint."""
    problem, optimizer, options = CASES[case]
    wide, _ = run(ON_CPU, problem, optimizer, **options)
    narrow = functools.partial(run, ON_CPU._replace(compacts=True), problem, optimizer, **options)
    assert_same(wide, narrow(steps=30)[0].extend(60))
    stop = threading.Event()
    stop_midway = lambda progress: stop.set() if progress.done > progress.total / 3 else None
    part, _ = narrow(store=tmp_path, progress=stop_midway, stop=stop)
    resumed, widths = narrow(store=tmp_path)
    assert part.missing and widths
    assert_same(wide, resumed)
