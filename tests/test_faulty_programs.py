"""A compiled program that does not advance its lanes as it was asked is an error, and nothing of it is stored."""

import numpy as np
import pytest
from shared import run_sweep

from gdkit import Plan, problems, sgd, sweep
from gdkit.app.cli import main
from gdkit.app.run.hooks import Hooks
from gdkit.errors import RunError
from gdkit.store import Store
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.sweep import run_request

RATES = {"learning_rate": [0.01, 0.1, 0.2, 0.3]}
PLAN = Plan(width=2, depth=1, tile=1, workers=1)


def stays(program, inputs, shared, carry, end, steps):
    """The loop makes no step."""
    return carry


def falls_short(program, inputs, shared, carry, end, steps):
    """The loop ends one step too early."""
    return program.advance(inputs, shared, carry, np.int32(end - 1), steps)


def stops_at_20(program, inputs, shared, carry, end, steps):
    """The loop never passes step 20."""
    return program.advance(inputs, shared, carry, np.int32(min(end, 20)), steps)


def settings_with(advance, only_resumed=False):
    """Settings under which every block, or every resumed one, is run by a program that advances it so."""

    def run_block(job, block, **options):
        is_faulty = job.resumed is not None or not only_resumed
        replace = lambda program: program._replace(advance=lambda *given: advance(program, *given))
        faulty = job._replace(programs=list(map(replace, job.programs))) if is_faulty else job
        return DEFAULT_SETTINGS.run_block(faulty, block, **options)

    return DEFAULT_SETTINGS._replace(run_block=run_block)


@pytest.mark.parametrize("segment", [None, 7])
@pytest.mark.parametrize(("advance", "step"), [(stays, 0), (falls_short, 49), (stops_at_20, 19)])
def test_a_program_that_does_not_reach_the_last_step_is_an_error_and_stores_nothing(advance, step, segment, tmp_path):
    plan = Plan(width=2, depth=1, tile=1, workers=1, segment=segment)
    options = {"steps": 50, "plan": plan, "store": tmp_path, "settings": settings_with(advance)}
    place = "group 0, block of points 0 to 1 and seeds 0 to 0"
    with pytest.raises(RunError, match=rf"{place}: .* 2 of 2 lanes at step {step} of 50.*jaxlib.*XLA_FLAGS"):
        run_sweep(problems.parabola(), sgd, RATES, **options)
    assert not Store.open(tmp_path).finished().any()
    whole = sweep(problems.parabola(), sgd, RATES, steps=50, plan=plan)
    repaired = sweep(problems.parabola(), sgd, RATES, steps=50, plan=plan, store=tmp_path)
    np.testing.assert_array_equal(repaired.lanes["final_loss"], whole.lanes["final_loss"])


def test_a_resumed_block_that_stays_is_an_error():
    result = sweep(problems.parabola(), sgd, RATES, steps=30, plan=PLAN)
    short, settings = result.origin.sweep, settings_with(stays, only_resumed=True)
    with pytest.raises(RunError, match=r"2 of 2 lanes at step \d+ of 50"):
        run_request(short.request._replace(steps=50), resumed=short, settings=settings)
    assert (result.extend(50).lanes["end_step"] == 50).all()


def test_the_command_line_fails_and_counts_no_run_as_finished(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text(
        "name: small\nproblem: {name: parabola}\noptimizer: {name: sgd}\n"
        "sweep: {axes: {learning_rate: [0.01, 0.1]}, steps: 40}\n"
    )
    words = ["run", str(config), "--output", str(tmp_path / "run")]
    assert main(words, Hooks(settings=settings_with(stays))) == 1
    assert "lanes at step 0 of 40, and the block is discarded" in capsys.readouterr().err
    assert Store.open(tmp_path / "run").status().finished == 0
