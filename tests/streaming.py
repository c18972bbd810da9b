"""A sweep over batches from the host, with evaluation, patience and best states, of which each segment is recorded.

    python tests/streaming.py FOLDER TRACE

runs it in a run directory; the trace gets one line per segment that begins (process, block, step). Tests start such
processes, and kill them.
"""

import functools
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Plan, Problem, data, monitors, sgd
from gdkit.store.files import FILES, Files
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request

WORKERS, SEGMENT, STEPS, SEEDS = 2, 20, 120, 2
RATES = [1e-3, 3e-3, 0.01, 0.03, 0.1, 3.0]  # the last diverge, others lose patience
RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 8)).astype(np.float32)
Y = (X @ np.ones(8) + 2 * RNG.normal(size=200)).astype(np.float32)


def squares(params: Any, batch: Any) -> Any:
    """The mean squared error."""
    x, y = batch
    return jnp.mean((x @ params - y) ** 2)


@functools.cache  # all runs of a process share its programs
def make_request() -> SweepRequest:
    """The sweep: blocks of two learning rates and one seed, which advance in step."""
    problem = Problem(
        squares,
        lambda key: jax.random.normal(key, (8,)),
        batches=data.from_arrays((X[:40], Y[:40]), batch_size=4),
        validation=(X[40:], Y[40:]),
    )
    stop = [monitors.patience("validation_loss", checks=3)]
    plan = Plan(width=2, depth=1, tile=1, workers=WORKERS, segment=SEGMENT)
    settings = {"evaluate_every": 10, "keep_states": "best", "monitors": stop, "plan": plan}
    return check_request(problem, sgd, {"learning_rate": RATES}, steps=STEPS, seeds=SEEDS, **settings)


class Slots:
    """The slots of a block, which record the segments that begin within them."""

    def __init__(self, slots: Any, record: Any):
        self.slots, self.record, self.step = slots, record, 0

    def __enter__(self) -> None:
        self.slots.__enter__()
        self.record(self.step)

    def __exit__(self, *error: Any) -> Any:
        return self.slots.__exit__(*error)


def recording_run_block(record: Any) -> Any:
    """A `run_block` that calls ``record(block, step)`` where a segment begins; a block is named by point and seed."""

    def run_block(job: Any, block: Any, *, report_steps: Any, slots: Any, **options: Any) -> Any:
        name = int(block.points[0]) * SEEDS + int(block.seeds[0])
        recorded = Slots(slots, lambda step: record(name, step))

        def report(steps: int) -> None:
            recorded.step += steps
            report_steps(steps)

        return DEFAULT_SETTINGS.run_block(job, block, report_steps=report, slots=recorded, **options)

    return run_block


def run(folder: Path | None, record: Any, files: Files = FILES) -> Any:
    """The result of the sweep, in a run directory or in memory."""
    store = DEFAULT_SETTINGS.store_class

    class OtherStore(store):  # with other file operations
        @classmethod
        def create(cls, path: Any, wanted: Any) -> Any:
            return super().create(path, wanted, files=files)

    settings = DEFAULT_SETTINGS._replace(run_block=recording_run_block(record), store_class=OtherStore)
    directory = None if folder is None else RunDirectory(folder)
    return run_request(make_request(), directory=directory, settings=settings)[0]


def main(folder: str, trace: str) -> None:
    """Run the sweep in a run directory, and write the trace."""
    file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run(Path(folder), lambda block, step: os.write(file, b"%d %d %d\n" % (os.getpid(), block, step)))


if __name__ == "__main__":
    main(*sys.argv[1:])
