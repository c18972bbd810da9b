"""Sweeps that choose their lanes from what earlier lanes did."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gdkit import checks
from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.problems import Problem
from gdkit.sweeps import request
from gdkit.sweeps.axes import group_points
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.programs.groups import inspect_loss
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.sweep import go_on, run_request


def successive_halving(
    problem: Problem | Callable[..., Problem],
    optimizer: Any,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    steps: int,
    least: int | None = None,
    keep: float = 1 / 3,
    by: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Run all points for a few steps, the best of them for more, and so on (Jamieson and Talwalkar 2016).

    The lanes that go on do so from where they stand, in blocks of one shape, so that one program serves every round and
    no step is run twice. Points are judged by their mean over seeds; those that diverged go first. With a `least` of
    steps in which the order of points is not yet that of long runs, good points are lost: large learning rates often
    look best early.

    Args:
      problem, optimizer, axes: as in `sweep`.
      steps: of the points that are left in the end.
      least: of the first round; by default so few that each round of `keep` has its share of the work, 10 at least.
      keep: the share of points that goes on from one round to the next.
      by: the variable to be small, as in `SweepResult.best`.
      progress: a callback, as in `sweep`.
      options: what else `sweep` takes: seeds, key, monitors, curve_points, target, diverged_above, plan.

    Returns:
      A SweepResult of every lane with the steps that it was given; ``attrs["rounds"]`` lists steps and points of each
      round.

    Raises:
      GdkitError: an argument cannot be used.

    >>> from gdkit import problems, sgd
    >>> rates = {"learning_rate": np.geomspace(1e-3, 10, 41)}
    >>> found = successive_halving(problems.parabola(), sgd, rates, steps=270)
    >>> json.loads(found.lanes.attrs["rounds"])
    [[10, 41], [30, 14], [90, 5], [270, 2]]
    """
    checks.check_integer("steps", steps)
    if not 0 < keep < 1:
        raise bad_value("keep", keep, "not a share between 0 and 1", "Leave it out for a third")
    wanted = request.check_request(problem, optimizer, axes, steps=steps, **options)
    points = wanted.lane_count // wanted.seeds
    lengths = _rounds(points, steps, least, keep)
    result, kept = run_request(wanted._replace(steps=lengths[0], plan=_narrow(wanted, lengths, keep)), progress)
    rounds = [[lengths[0], points]]
    for length in lengths[1:]:
        if kept is None:
            raise bad_value(
                "axes", f"{wanted.lane_count} lanes", "they are too large to be kept", "Sweep fewer at a time"
            )
        best = _best(result, max(1, math.ceil(rounds[-1][1] * keep)), by)
        if not best.size:
            break
        rounds.append([length, int(best.size)])
        places = [np.flatnonzero(np.isin(p.offset // wanted.seeds + p.group.points, best)) for p in kept.prepared]
        result, kept = go_on(kept, length, places, tell=progress)
    lanes = result.lanes.assign_attrs(rounds=json.dumps(rounds))
    return dataclasses.replace(result, lanes=lanes)


# Inside successive halving


def _rounds(points: int, steps: int, least: int | None, keep: float) -> list[int]:
    """The steps of each round, the last `steps`."""
    if least is not None:
        checks.check_integer("least", least)
        if least > steps:
            raise bad_value("least", least, f"more than steps={steps}", "Pass fewer, or leave it out")
    count = 1 + math.floor(math.log(max(points, 1)) / -math.log(keep) + 1e-9)
    lengths = [round(steps * keep**i) for i in range(count)]
    first = min(least or 10, steps)
    return sorted({length for length in lengths if length >= first} | ({least} if least else set()))


def _narrow(wanted: request.SweepRequest, lengths: Sequence[int], keep: float) -> Plan:
    """The plan, with blocks so narrow that the few points which go on keep the workers busy and are padded little."""
    group, plan = group_points(wanted.sections[0])[0], wanted.plan
    known = inspect_loss(wanted, group)
    if plan.width is not None or known.runs_step_by_step:
        return plan
    most, overhead = known.limits
    widths = np.arange(max(1, most // 8), most + 1)  # of small lanes, what calling a block costs counts too
    workers = count_workers(plan, len(request.select_devices(plan)))
    points, cost = wanted.lane_count // wanted.seeds, np.zeros(len(widths))
    for steps in np.diff(lengths, prepend=0):
        cost += steps * np.ceil(np.ceil(points / widths) * wanted.seeds / workers) * (widths + overhead)
        points = max(1, math.ceil(points * keep))
    return dataclasses.replace(plan, width=int(widths[np.argmin(cost)]), depth=plan.depth or 1)


def _best(result: SweepResult, count: int, by: str | None) -> np.ndarray:
    """The points, by their place in the sweep, that are best among those which went furthest and have not diverged."""
    scores = result.scores(by).reshape(-1, result.seeds).mean(axis=1)
    went = result.lanes["end_step"].values.reshape(-1, result.seeds).max(axis=1) >= result.lanes.attrs["steps"]
    reached = (result.lanes["end_kind"].values == EndKind.TARGET).reshape(-1, result.seeds).any(axis=1)
    scores = np.where(went | reached, scores, np.inf)
    order = np.argsort(scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]
