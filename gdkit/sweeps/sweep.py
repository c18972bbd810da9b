"""sweep: from axes to a result."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gdkit.errors import bad_type
from gdkit.problems import Problem
from gdkit.sweeps import stored
from gdkit.sweeps.origin import finished
from gdkit.sweeps.plan import Plan
from gdkit.sweeps.pools import is_remote, pool_of
from gdkit.sweeps.progress import Progress, plain_lines
from gdkit.sweeps.request import check
from gdkit.sweeps.result import SweepResult
from gdkit.sweeps.run import run
from gdkit.types import Key, Monitor


def sweep(
    problem: Problem | Callable[..., Problem],
    optimizer_factory: Any,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    steps: int,
    key: int | Key = 0,
    monitors: Sequence[Monitor] = (),
    curve_points: int = 200,
    target: float | None = None,
    diverged_above: float = 1e6,
    store: Any = None,
    executor: Any = None,
    plan: Plan | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
) -> SweepResult:
    """Run every point of a grid for every seed, side by side, and tell what became of each.

    Args:
      problem: a Problem, or a factory of one for axes named ``problem.NAME``.
      optimizer_factory: a factory such as ``optax.adam``, or the name of one; None where `axes` has ``optimizer``.
      axes: name to values; their product is run. ``optimizer`` maps labels to factories or (factory, own axes).
        Values with any float are lanes of one program; others one program each (`gdkit.lanes`, `gdkit.static` say it
        outright). `gdkit.paired` axes vary together. A sequence of mappings is multiplied out too.
      seeds: runs a point; seed s has the same start and the same batches at every point.
      steps: updates a lane.
      key: what all seeds come from; the run of seed s is `descend` with ``key=jax.random.fold_in(key, s)``.
      monitors: further statistics.
      curve_points: recorded losses within the first 10,000 steps, geometrically spaced; 0 for none.
      target: a lane ends when its loss is at most this.
      diverged_above: a lane ends when its loss exceeds L₀ + diverged_above · max(|L₀|, 1), or falls as far below L₀
        where neither an optimum nor a target is known.
      store: where to keep the result: a netCDF file, ``NAME.nc``, written at the end; or a directory, which fills up
        while the sweep runs. There the same call goes on where it was stopped, with the same bits, after a crash too,
        and calls in several processes share the work, those of ``jax.distributed`` a shard each to begin with.
      executor: what runs tiles, in place of threads of our own: a ``concurrent.futures.Executor`` of threads or of
        processes (of the standard library, loky, mpi4py), or a ``dask.distributed.Client``. The bits stay the same. A
        directory as `store` must lie where all workers find it; without one, what lanes read comes back.
      plan: the shape of blocks, tile, segment, workers, devices; what is not given is chosen, by timing where the sweep
        takes long enough to pay for it.
      progress: True for lines on stderr, or a callback, called from worker threads.

    Returns:
      A SweepResult: a row for every lane, diverged ones too; `regimes`, `edge`, `best` and `recommend` judge them.

    Raises:
      GdkitError: an argument cannot be used; the message names it, its value and the remedy.

    >>> from gdkit import problems, sgd
    >>> result = sweep(problems.parabola(), sgd, {"learning_rate": [0.01, 0.2, 0.8, 1.0, 1.2]}, steps=400)
    >>> [result.regime_names[code] for code in result.regimes.squeeze("seed").values]
    ['CONVERGED', 'CONVERGED', 'OSCILLATING', 'BOUNCING', 'DIVERGED']
    """
    request = check(
        problem, optimizer_factory, axes, seeds=seeds, steps=steps, key=key, monitors=monitors,
        curve_points=curve_points, target=target, diverged_above=diverged_above, plan=plan,
    )  # fmt: skip
    if is_remote(executor):
        pool_of(executor)  # checks it
    if progress not in (None, True, False) and not callable(progress):
        raise bad_type("progress", progress, "not a callback", "Pass True for lines on stderr, or a function")
    tell = plain_lines() if progress is True else progress or None
    is_file = store is not None and Path(store).suffix == ".nc"
    where = stored.Directory(Path(store)).of_this_process() if store is not None and not is_file else None
    result = finished(*run(request, tell, executor, where=where))
    if is_file:
        result.save(store)
    return result
