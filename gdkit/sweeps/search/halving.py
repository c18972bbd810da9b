"""successive_halving: rounds of more and more steps for fewer and fewer points."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gdkit import checks
from gdkit.errors import bad_value
from gdkit.monitors import EndKind
from gdkit.problems import ProblemLike
from gdkit.sweeps.axes import group_points
from gdkit.sweeps.execution.progress import Progress
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.programs.groups import inspect_loss
from gdkit.sweeps.request import SweepRequest, check_options, check_request, select_devices
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.resume.origin import Origin
from gdkit.sweeps.sweep import run_request
from gdkit.types import OptimizerLike


def successive_halving(
    problem: ProblemLike,
    optimizer: OptimizerLike | str | None,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    steps: int,
    least: int | None = None,
    keep: float = 1 / 3,
    by: str | None = None,
    maximize: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Run all points for a few steps, the best of them for more, and so on (Jamieson and Talwalkar 2016).

    Each round resumes the remaining lanes, in blocks of one shape, so that one program serves every round and no
    step is run twice. Points are ranked by their mean over seeds; those that diverged are dropped first. If `least` is
    so small that the ranking differs from that of long runs, good points are discarded: large learning rates often look
    best early.

    Args:
      problem, optimizer, axes: as in `sweep`.
      steps: of the last round.
      least: steps of the first round; by default at least 10, and so few that all rounds take about the same time.
      keep: the share of points that the next round resumes.
      by, maximize: the variable to compare, and whether larger is better, as in `SweepResult.best`.
      progress: a callback, as in `sweep`.
      options: further arguments of `sweep`: seeds, key, monitors, curve_points, target, diverged_above, plan.

    Returns:
      A SweepResult of all lanes, each with the steps that it ran; ``attrs["rounds"]`` lists steps and points of each
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
    checks.check_number("keep", keep)
    if not 0 < keep < 1:
        raise bad_value("keep", keep, "not a share between 0 and 1", "Leave it out for a third")
    check_options(options)
    request = check_request(problem, optimizer, axes, steps=steps, **options)
    points = request.lane_count // request.seeds
    lengths = _round_lengths(points, steps, least, keep)
    request = request._replace(plan=narrow_plan(request, lengths, keep))
    result, lanes = run_request(request._replace(steps=lengths[0]), progress)
    by, maximize = result.score_name(by), result.is_maximized(by, maximize)
    rounds = [[lengths[0], points]]
    for length in lengths[1:]:
        if lanes is None:
            size = f"{request.lane_count} lanes"
            raise bad_value("axes", size, "they are too large to keep in memory", "Sweep fewer at a time")
        best = _best_points(result, max(1, math.ceil(rounds[-1][1] * keep)), by, maximize)
        if not best.size:
            break
        rounds.append([length, int(best.size)])
        places = [np.flatnonzero(np.isin(g.number_points(request.seeds), best)) for g in lanes.groups]
        result, lanes = run_request(request._replace(steps=length), progress, resumed=lanes, points=places)
    states = None if lanes is None else Origin(lambda: lanes, run_request).state
    return dataclasses.replace(result, lanes=result.lanes.assign_attrs(rounds=json.dumps(rounds)), states=states)


def _round_lengths(points: int, steps: int, least: int | None, keep: float) -> list[int]:
    """The steps of each round, in total since the start."""
    if least is not None:
        checks.check_integer("least", least)
        if least > steps:
            raise bad_value("least", least, f"more than steps={steps}", "Pass fewer, or leave it out")
    count = 1 + math.floor(math.log(max(points, 1)) / -math.log(keep) + 1e-9)
    lengths = [round(steps * keep**i) for i in range(count)]
    first = min(least or 10, steps)
    return sorted({length for length in lengths if length >= first} | ({least} if least else set()))


def narrow_plan(request: SweepRequest, lengths: Sequence[int], keep: float) -> Plan:
    """The plan with narrow blocks, so that the few points of later rounds occupy all workers with little padding."""
    group, plan = group_points(request.sections[0])[0], request.plan
    facts = inspect_loss(request, group)
    if plan.width is not None or plan.chunk is not None or facts.runs_step_by_step:
        return plan
    most, overhead, _ = facts.limits
    widths = np.arange(max(1, most // 8), most + 1)  # narrower blocks of small lanes would spend their time on calls
    workers = count_workers(plan, len(select_devices(plan)))
    points, cost = request.lane_count // request.seeds, np.zeros(len(widths))
    for steps in np.diff(lengths, prepend=0):
        cost += steps * np.ceil(np.ceil(points / widths) * request.seeds / workers) * (widths + overhead)
        points = max(1, math.ceil(points * keep))
    return dataclasses.replace(plan, width=int(widths[np.argmin(cost)]), depth=plan.depth or 1)


def _best_points(result: SweepResult, count: int, by: str | None, maximize: bool | None) -> np.ndarray:
    """The places of the `count` best points that ran the last round and did not diverge."""
    scores = result.scores(by, maximize).reshape(-1, result.seeds).mean(axis=1)
    is_left = result.lanes["end_step"].values.reshape(-1, result.seeds).max(axis=1) >= result.lanes.attrs["steps"]
    has_ended = np.isin(result.lanes["end_kind"].values, (EndKind.TARGET, EndKind.STOPPED))
    scores = np.where(is_left | has_ended.reshape(-1, result.seeds).any(axis=1), scores, np.inf)
    order = np.argsort(scores, kind="stable")[:count]
    return order[np.isfinite(scores[order])]
