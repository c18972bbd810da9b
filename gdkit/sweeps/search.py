"""Sweeps that choose their lanes from what earlier lanes did."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import checks, factories, html
from gdkit.errors import InputValueError, bad_value
from gdkit.monitors import EndKind
from gdkit.problems import Problem
from gdkit.stability import CriticalLearningRate, critical_learning_rate
from gdkit.sweeps import request
from gdkit.sweeps.axes import groups_of
from gdkit.sweeps.plan import Plan, workers_for
from gdkit.sweeps.prepared import known_of
from gdkit.sweeps.progress import Progress
from gdkit.sweeps.result import SweepResult
from gdkit.sweeps.run import go_on, run
from gdkit.sweeps.sweep import sweep


def successive_halving(
    problem: Problem | Callable[..., Problem],
    optimizer_factory: Any,
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
      problem, optimizer_factory, axes: as in `sweep`.
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
    wanted = request.check(problem, optimizer_factory, axes, steps=steps, **options)
    points = wanted.lanes // wanted.seeds
    lengths = _rounds(points, steps, least, keep)
    result, kept = run(wanted._replace(steps=lengths[0], plan=_narrow(wanted, lengths, keep)), progress)
    rounds = [[lengths[0], points]]
    for length in lengths[1:]:
        if kept is None:
            raise bad_value("axes", f"{wanted.lanes} lanes", "they are too large to be kept", "Sweep fewer at a time")
        best = _best(result, max(1, math.ceil(rounds[-1][1] * keep)), by)
        if not best.size:
            break
        rounds.append([length, int(best.size)])
        places = [np.flatnonzero(np.isin(p.offset // wanted.seeds + p.group.points, best)) for p in kept.prepared]
        result, kept = go_on(kept, length, places, tell=progress)
    lanes = result.lanes.assign_attrs(rounds=json.dumps(rounds))
    return dataclasses.replace(result, lanes=lanes)


# The learning-rate range test


class RangeTest(NamedTuple):
    """Losses of runs whose learning rate grows at every step, and what each rule would make of them."""

    learning_rate: np.ndarray  # (steps,)
    loss: np.ndarray  # (seeds, steps), NaN from where a run has left
    smooth: np.ndarray  # (steps,), median over seeds of the smoothed losses, up to where it leaves
    suggestions: dict[str, float]  # rule -> learning rate, NaN where a rule finds none
    trial: SweepResult  # runs of constant learning rates around what the curve suggests
    limit: CriticalLearningRate | None  # the largest that does not diverge, for seed 0; None where none did

    @property
    def best(self) -> float:
        """The learning rate whose trial did best; NaN where every trial diverged."""
        found = self.trial.recommend().best
        return float("nan") if found is None else found

    def __str__(self) -> str:
        lines = [f"{rule:>9}  {value:.3g}" for rule, value in self.suggestions.items()]
        limit = "none found" if self.limit is None else f"{self.limit.value:.3g}"
        lines += [f"{'trial':>9}  {self.best:.3g}", f"{'limit':>9}  {limit}"]
        return "\n".join([*lines, "", str(self.trial.recommend())])

    _repr_html_ = html.printed


def lr_range_test(
    problem: Problem | Callable[..., Problem],
    optimizer_factory: Any,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    seeds: int | None = None,
    key: Any = 0,
    hyperparameters: Mapping[str, Any] | None = None,
    stop: float = 4.0,
    smoothing: float = 0.98,
    trials: int = 9,
) -> RangeTest:
    """Let the learning rate grow from `low` to `high` within a run, and read off where the loss falls (Smith 2017).

    The rules: ``steepest``, gdkit's, the steepest descent of the median over seeds against the logarithm of the
    learning rate; ``minimum``, a tenth of where the loss is least; ``valley``, a middle part of the longest way down;
    ``slide``, where a window that slides down from the right first has like slopes at both ends (these three and the
    smoothing as in fastai); ``linear``, the steepest descent against the learning rate itself, as in Lightning, which
    favours the smallest learning rates, since there the least noise divided by the least distance is a slope. A curve
    tells of no more than its own short run: `trial` holds runs of constant learning rates, from ``valley`` or a
    tenth of ``steepest`` to where the curve leaves, and is what to go by. `limit` is where divergence begins, by
    `critical_learning_rate`, up to ten times the highest of them.

    Args:
      problem, optimizer_factory: as in `sweep`; the factory takes a schedule as its ``learning_rate``.
      low, high: the learning rate at the first and at the last step, in equal ratios.
      steps: of the growing run, and of each trial.
      seeds: runs side by side; by default three where the start or the batches depend on the seed, else one.
      key: what all seeds come from.
      hyperparameters: the optimizer's others.
      stop: a curve ends where its smoothed loss exceeds this times its least.
      smoothing: the share of the running mean in the next one.
      trials: how many constant learning rates are tried.

    Raises:
      GdkitError: an argument cannot be used; the loss leaves before there is a curve.

    >>> from gdkit import problems, sgd
    >>> found = lr_range_test(problems.quadratic([1.0, 4.0]), sgd, low=1e-4, high=10.0, seeds=1)
    >>> 0.05 < found.best < 0.5
    True
    """
    _check_range(low, high, steps, stop, smoothing)
    if seeds is None:
        concrete = problem if isinstance(problem, Problem) else factories.call("problem", problem, {})
        seeds = 3 if request.is_seeded(concrete, checks.as_key(key)) else 1
    for argument, value in (("seeds", seeds), ("trials", trials)):
        checks.check_integer(argument, value)
    others = dict(hyperparameters or {})
    log_ratio = math.log(high / low) / (steps - 1)

    def growing(low: float) -> Any:
        return optimizer_factory(learning_rate=lambda count: low * jnp.exp(log_ratio * count), **others)

    options: dict[str, Any] = {"steps": steps, "seeds": seeds, "key": key}
    dense = math.ceil(steps * (1 + math.log(max(10_000 / steps, 1)))) + 8  # a curve of so many points has every step
    grown = sweep(problem, growing, {"low": [low]}, curve_points=dense, **options)
    loss = grown.lanes["curve_loss"].values[:, :steps].astype(float)
    rates = low * np.exp(log_ratio * np.arange(steps))
    smooth = np.median([smoothed(row, smoothing) for row in loss], axis=0)
    smooth = smooth[: _leaves(smooth, stop)]
    if len(smooth) < 4:
        raise bad_value("low", low, "the loss leaves within four steps", "Begin with a smaller learning rate")
    kept = rates[: len(smooth)]
    suggestions = {rule: suggest(kept, smooth) for rule, suggest in RULES.items()}
    least = min(suggestions["steepest"] / 10, suggestions["valley"])  # either may be decades too high
    around = np.geomspace(least, max(kept[-1], 2 * suggestions["steepest"]), trials)
    trial = sweep(problem, functools.partial(optimizer_factory, **others), {"learning_rate": around}, **options)
    limit = _limit(problem, optimizer_factory, others, checks.as_key(key), steps, around)
    return RangeTest(rates, loss, smooth, suggestions, trial, limit)


def _limit(
    problem: Any, factory: Any, others: dict, key: Any, steps: int, around: np.ndarray
) -> CriticalLearningRate | None:
    """Where divergence begins for the first seed, between the lowest that was tried and ten times the highest."""
    ends = {"low": around[0], "high": 10 * around[-1]}
    first = jax.random.fold_in(key, 0)  # as in a sweep
    try:
        return critical_learning_rate(problem, factory, **ends, steps=steps, key=first, hyperparameters=others)
    except InputValueError:  # the other arguments have served the trial: nothing there diverges, or everything
        return None


def smoothed(loss: np.ndarray, share: float) -> np.ndarray:
    """The running mean of losses, corrected for its start at zero; infinite once one is not finite."""
    mean, found = 0.0, []
    for t, value in enumerate(loss, 1):
        mean = share * mean + (1 - share) * (value if np.isfinite(value) else np.inf)
        found.append(mean / (1 - share**t))
    return np.array(found)


def _leaves(smooth: np.ndarray, stop: float) -> int:
    """How many points there are before the curve exceeds `stop` times its least."""
    least = np.minimum.accumulate(smooth)
    beyond = ~(smooth <= stop * np.abs(least)) | ~np.isfinite(smooth)
    return int(np.argmax(beyond)) if beyond.any() else len(smooth)


def _steepest(rates: np.ndarray, loss: np.ndarray) -> float:
    return float(rates[np.argmin(np.gradient(loss, np.log(rates)))])


def _linear(rates: np.ndarray, loss: np.ndarray) -> float:
    return float(rates[np.argmin(np.gradient(loss, rates))])


def _minimum(rates: np.ndarray, loss: np.ndarray) -> float:
    return float(rates[np.argmin(loss)] / 10)


def _valley(rates: np.ndarray, loss: np.ndarray) -> float:
    """Halfway through the middle third of the longest sequence of ever lower losses, as far as it is long."""
    length = np.ones(len(loss), int)
    for i in range(1, len(loss)):
        length[i] += max(length[:i][loss[:i] > loss[i]], default=0)
    end = int(np.argmax(length))
    third = length[end] / 3
    return float(rates[max(end - length[end], 0) + int(third) + int(third / 2)])


def _slide(rates: np.ndarray, loss: np.ndarray, window: int = 15, alike: float = 0.005) -> float:
    """The left end of the last window, from the right, whose ends differ in slope; NaN for a curve of less than one."""
    if len(loss) <= window:
        return float("nan")
    slope = np.gradient(loss)
    differ = np.abs(slope[window:] - slope[:-window]) > alike  # by its left end
    slid = int(np.argmin(np.append(differ[::-1], False)))
    return float(rates[len(differ) - max(slid, 1)])


# (learning rates, smoothed losses), each (points,), -> learning rate
RULES = {"steepest": _steepest, "minimum": _minimum, "valley": _valley, "slide": _slide, "linear": _linear}


def _check_range(low: Any, high: Any, steps: Any, stop: Any, smoothing: Any) -> None:
    for argument, value in (("low", low), ("high", high), ("stop", stop), ("smoothing", smoothing)):
        if not factories.is_number(value) or not 0 < value < math.inf:
            raise bad_value(argument, value, "not a number above 0", "Leave it out for the default")
    if not low < high:
        raise bad_value("high", high, f"not above low={low}", "Pass low < high")
    checks.check_integer("steps", steps)
    if steps < 8:
        raise bad_value("steps", steps, "too few for a curve", "Pass at least 8")
    if not stop > 1:
        raise bad_value("stop", stop, "a curve would end where it begins", "Pass more than 1")
    if not smoothing < 1:
        raise bad_value("smoothing", smoothing, "nothing would be seen", "Pass less than 1")


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


def _narrow(wanted: request.Sweep, lengths: Sequence[int], keep: float) -> Plan:
    """The plan, with blocks so narrow that the few points which go on keep the workers busy and are padded little."""
    group, plan = groups_of(wanted.sections[0])[0], wanted.plan
    known = known_of(wanted, group)
    if plan.width is not None or known.is_stepped:
        return plan
    most, overhead = known.room
    widths = np.arange(max(1, most // 8), most + 1)  # of small lanes, what calling a block costs counts too
    workers = workers_for(plan, len(request.devices_of(plan)))
    points, cost = wanted.lanes // wanted.seeds, np.zeros(len(widths))
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
