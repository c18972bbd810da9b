"""Blocks that run while the programs of later groups are compiled, before there is a run directory."""

import threading
from types import SimpleNamespace

import numpy as np
import optax
import pytest
from shared import assert_same_bits, run_sweep

from gdkit import Plan, problems
from gdkit.store import Store
from gdkit.sweeps.execution.head_start import HeadStart
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.blocks import Block
from gdkit.sweeps.programs.tiles import Checkpoint

SGD, MOMENTUM = optax.sgd, lambda learning_rate: optax.sgd(learning_rate, 0.9)
AXES = {"optimizer": {"sgd": SGD, "momentum": MOMENTUM}, "learning_rate": np.geomspace(0.01, 1.2, 4)}
PROBLEM, STEPS = problems.parabola(), 40
PLAN = Plan(width=1, depth=1, tile=1, workers=2, segment=5)


def run(store=None, plan=PLAN, **settings):
    settings = DEFAULT_SETTINGS._replace(**settings)
    return run_sweep(PROBLEM, None, AXES, steps=STEPS, plan=plan, store=store, settings=settings)


@pytest.fixture(scope="module")
def straight():
    return run()


class Compilation:
    """A `build_job` that compiles the second group once `run_block` has come to a point in the first."""

    def __init__(self, until):
        self.reached, self.calls, self._until = threading.Event(), [], until

    def build_job(self, request, group, *rest, **options):
        if group.number == 1:
            assert self.reached.wait(60)
        return DEFAULT_SETTINGS.build_job(request, group, *rest, **options)

    def run_block(self, job, block, *, report_steps, stop, **options):
        name, steps = threading.current_thread().name, []
        self.calls.append((name.rpartition("_")[0], job.group, int(block.points[0]), steps))

        def report(count):
            steps.append(count)
            report_steps(count)
            if job.group == 0 and "head-start" in name:
                self._until(self, block, sum(steps), stop)

        return DEFAULT_SETTINGS.run_block(job, block, report_steps=report, stop=stop, **options)


def when_finished(compilation, block, step, _):
    if block.points[0] == 2 and step == STEPS:
        compilation.reached.set()


def when_half_done(compilation, block, step, stop):
    if block.points[0] == 2 and step == STEPS // 2:
        compilation.reached.set()
        assert stop.wait(60)


def when_failing(compilation, block, *_):
    compilation.reached.set()
    raise ValueError("of the head start alone")


@pytest.mark.parametrize("until", [when_finished, when_half_done, when_failing])
def test_blocks_run_while_later_programs_are_compiled_and_go_on_from_there(until, straight, tmp_path):
    compilation = Compilation(until)
    settings = {"build_job": compilation.build_job, "run_block": compilation.run_block}
    assert_same_bits(run(tmp_path, **settings), straight)
    assert Store.open(tmp_path).finished().all()
    ahead, later = (
        [c[1:] for c in compilation.calls if ("head-start" in c[0]) == is_ahead] for is_ahead in (True, False)
    )
    again = {point: steps for group, point, steps in later if group == 0}
    if until is when_finished:
        assert {(0, 0), (0, 1)} <= {(group, point) for group, point, _ in ahead}
        assert again.keys() <= {2, 3}  # the first two were finished
    elif until is when_half_done:
        assert again.keys() == {2, 3} and again[2][0] == STEPS // 2  # counted as done
    else:
        assert again.keys() == {0, 1, 2, 3} and all(steps[0] == 0 for steps in again.values())


@pytest.mark.parametrize("change", ["one worker", "no memory", "a directory that exists"])
def test_nothing_runs_ahead_without_a_core_or_memory_for_it_or_where_tiles_are_stored(change, straight, tmp_path):
    compilation, plan, memory = Compilation(lambda *_: None), PLAN, DEFAULT_SETTINGS.lane_bytes
    compilation.reached.set()
    if change == "one worker":
        plan = Plan(width=1, depth=1, tile=1, workers=1, segment=5)
    elif change == "no memory":
        memory = 0
    else:
        run(tmp_path)
        next(path for path in (tmp_path / "tiles").rglob("*") if path.is_file()).unlink()
    result = run(tmp_path, plan, build_job=compilation.build_job, run_block=compilation.run_block, lane_bytes=memory)
    assert_same_bits(result, straight)
    assert compilation.calls and not [name for name, *_ in compilation.calls if "head-start" in name]


@pytest.mark.parametrize(("stored", "first", "written"), [(None, "early", ["early"]), ("later", "later", [])])
def test_a_block_continues_from_a_checkpoint_that_another_process_has_stored(stored, first, written):
    block, saved, begun = Block(np.arange(1), np.arange(1)), [], threading.Event()

    def run_block(job, block, *, stop=None, checkpoint, **options):
        if stop is None:
            return checkpoint.load(job, 0)
        checkpoint.save("early")
        begun.set()
        assert stop.wait(60)
        return None

    program = SimpleNamespace(fingerprint="a", carry=np.zeros(1))
    job = SimpleNamespace(programs=[program], source=None, group=0, blocks=[block], _replace=lambda **_: job)
    with HeadStart(1, 5, DEFAULT_SETTINGS._replace(run_block=run_block)) as head_start:
        head_start.add(job)
        assert begun.wait(60)
        settings = head_start.stop(DEFAULT_SETTINGS)
        checkpoint = Checkpoint(lambda *_: stored, saved.append)
        assert settings.run_block(job, block, device=0, report_steps=None, checkpoint=checkpoint) == first
    assert saved == written


def test_no_thread_is_left(tmp_path):
    run(tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gdkit")]
