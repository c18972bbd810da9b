"""Caveats of a recommendation: what the sweep does not show, one sentence each."""

import json
from collections.abc import Iterator

import numpy as np

from gdkit.formatting import count, format_number, format_range
from gdkit.monitors import EndKind
from gdkit.regimes import Regime
from gdkit.sweeps.axes import is_log
from gdkit.sweeps.scoring.direction import orient
from gdkit.sweeps.scoring.lane_values import SweepLike, hyperparameters_of
from gdkit.sweeps.scoring.ranking import Ranking
from gdkit.sweeps.scoring.scores import find_bracket, rounding_error

UNFINISHED = "not finished yet."  # the end of the caveat that counts unfinished runs
FEW_ROWS = 100  # with fewer rows the standard error of an accuracy of 95 % exceeds 2 %
WORSE_ON_TEST = 2.0  # times as far from the optimum on test data as on validation data

# Regimes of runs that reached the optimum, or may have.
MAY_HAVE_CONVERGED = (Regime.CONVERGED, Regime.OSCILLATING, Regime.CATAPULT, Regime.UNKNOWN)


def find_caveats(
    result: SweepLike, axis: str, by: str, maximize: bool, ranking: Ranking, line: np.ndarray
) -> tuple[str, ...]:
    """The caveats of the recommendation of a value of `axis` among the points of `line`, (values,)."""
    values = result.lanes[axis].values[line * result.seeds].astype(float)
    choice = _about_choice(result, axis, by, maximize, ranking, line, values)
    divergence = _about_divergence(result, axis, ranking, line, values)
    data = json.loads(result.lanes.attrs.get("caveats", "[]"))
    return (*choice, *divergence, *_about_effort(result, ranking), *data)


def _about_choice(
    result: SweepLike, axis: str, by: str, maximize: bool, ranking: Ranking, line: np.ndarray, values: np.ndarray
) -> Iterator[str]:
    """What limits the choice of the value."""
    if not np.isfinite(ranking.total[line]).any():
        regimes = result.lane_regimes.reshape(-1, result.seeds)[line]
        if (regimes == Regime.DIVERGED).all():
            yield f"no best {axis}: every run diverged."
            return
        diverged = (regimes == Regime.DIVERGED).any(axis=1)
        reasons = ["diverged"] * bool(diverged.any()) + [f"has no finite {by}"] * (not diverged.all())
        reasons += ["is not finished"] * (not result.finished.all())
        yield f"no best {axis}: at every value some seed {' or '.join(reasons)}."
        return
    if len(values) == 1:
        yield f"only one {axis} was run to its end, {format_number(values[0])}: there is nothing to compare."
        return
    place = int(np.flatnonzero(line == ranking.top)[0])
    if ranking.isolated[ranking.top] and 0 < place < len(values) - 1:
        yield "the recommended point is isolated: its neighbors are far worse; add values between them."
    yield from _about_plain_best(result, axis, by, maximize, ranking)
    tied = ranking.total[line] <= ranking.total[ranking.top] + ranking.tie
    if tied.sum() > 1:
        bounds = format_range((values[tied][0], values[tied][-1]))
        which = "smaller" if tied.sum() == 2 else "middle"
        yield f"{axis} {bounds} tie; the {which} one is recommended."
    elif place in (0, len(values) - 1) and not result.finished.all():
        which = "smallest" if place == 0 else "largest"
        yield f"the best {axis} is the {which} that has finished; finish the other runs before you change the axis."
    elif place in (0, len(values) - 1):
        side, end = ("below", values[0]) if place == 0 else ("above", values[-1])
        beyond = next_range(values, below=place == 0)
        remedy = f"; try {format_range(beyond)}" if beyond else ""
        yield f"the best {axis} is at the end of the axis; a better one may lie {side} {format_number(end)}{remedy}."
    if ranking.unsettled[ranking.top]:
        yield f"runs at {axis} {format_number(values[place])} keep bouncing; a decay of the learning rate may help."
    yield from _about_data(result, by, maximize, ranking)


def _about_plain_best(result: SweepLike, axis: str, by: str, maximize: bool, ranking: Ranking) -> Iterator[str]:
    """Why the point with the best mean is not the one that is recommended."""
    top, plain = ranking.top, ranking.plain
    rounding = rounding_error(result.lanes["initial_loss"].values)
    if not np.isfinite(ranking.mean[plain]) or ranking.mean[top] <= ranking.mean[plain] + rounding:
        return
    own, other = (hyperparameters_of(result, point * result.seeds) for point in (top, plain))
    different = {name: value for name, value in other.items() if own.get(name) != value} or {axis: other[axis]}
    where = ", ".join(f"{n} {format_number(v) if isinstance(v, float) else v}" for n, v in different.items())
    score = format_number(orient(float(ranking.mean[plain]), maximize))
    reason = (
        "it is isolated: its neighbors are far worse" if ranking.isolated[plain]
        else "its runs keep bouncing" if ranking.unsettled[plain] and not ranking.unsettled[top]
        else "the difference is too small to matter" if not ranking.has_noise
        else "it is not better by more than the noise, estimated from seeds and neighbors"
    )  # fmt: skip
    yield f"the best mean {by} is {score}, at {where}; it is not recommended because {reason}."


def next_range(values: np.ndarray, *, below: bool) -> tuple[float, float] | None:
    """The range beyond an end of the axis, as wide as its nearest four steps; None if it would hold negative values."""
    ends = (values[0], values[min(4, len(values) - 1)]) if below else (values[-1], values[-min(5, len(values))])
    end, inner = map(float, ends)
    beyond = end**2 / inner if is_log(values) else 2 * end - inner
    if min(values) > 0 and beyond <= 0:
        return None
    return (beyond, end) if below else (end, beyond)


def _about_data(result: SweepLike, by: str, maximize: bool, ranking: Ranking) -> Iterator[str]:
    """Whether there are few validation rows, and whether the score on test data is far worse."""
    mean, rows, scale = float(ranking.mean[ranking.top]), ranking.rows, ranking.scale
    is_mean = by.removeprefix("validation_") in ("loss", "accuracy", "r2")  # other scores may be no mean over rows
    if rows and rows < FEW_ROWS and scale.floor is not None and is_mean:
        resolved = scale.resolution
        if maximize and ranking.optimum == -1.0 and by.endswith("accuracy"):
            error = (rows * (mean + 1) + 0.5) / (rows + 1)
            resolved = float(np.sqrt(max(error * (1 - error), 0.0) / rows))
        yield f"{by} is over {rows} rows only: differences of less than {format_number(resolved, 2)} mean little."
    test = "test_" + by.removeprefix("validation_")
    if not by.startswith("validation_") or test not in result.lanes:
        return
    lanes = ranking.top * result.seeds + np.flatnonzero(ranking.finished[ranking.top])
    on_test = float(orient(result.lanes[test].values[lanes].astype(float), maximize).mean())
    both = scale.apply(np.array([on_test, mean]))
    if not np.isfinite(on_test) or both[0] - both[1] > np.log(WORSE_ON_TEST):
        shown = format_number(orient(on_test, maximize))
        yield f"{test} at the recommended point is far worse than {by}: {shown}."


def _about_divergence(
    result: SweepLike, axis: str, ranking: Ranking, line: np.ndarray, values: np.ndarray
) -> Iterator[str]:
    """Whether runs converged, and where they diverged."""
    lanes = line[:, None] * result.seeds + np.arange(result.seeds)
    finished, regimes = result.finished[lanes], result.lane_regimes[lanes]
    diverged = regimes == Regime.DIVERGED
    own = np.isin(line, ranking.top)[:, None] & finished
    if result.lanes.attrs.get("regimes_known", 1):
        if not result.lanes.attrs["optimum_known"] and own.any() and (regimes[own] == Regime.SLOW).all():
            yield "the loss still falls at the end of these runs; train longer, or check that it is bounded below."
        elif not np.isin(regimes[finished], MAY_HAVE_CONVERGED).any() and not diverged[finished].all():
            yield "no run converged; try more steps or other values."
    yield from _about_starts(result)
    if not diverged.any():
        partial = "" if result.finished.all() else " in the runs that have finished"
        yield f"no divergence found up to {format_number(values[-1])}{partial}."
    elif diverged[0].all():
        yield f"even the smallest value, {format_number(values[0])}, diverged: divergence begins below the axis."
    if any(not find_bracket(values[ok], own[ok])[2] for own, ok in zip(diverged.T, finished.T, strict=True)):
        yield "some values did not diverge although smaller ones did: divergence does not begin at a single value."


def _about_starts(result: SweepLike) -> Iterator[str]:
    """How many runs ended at their start although their loss is finite there."""
    lanes = result.lanes
    ended = (lanes["end_kind"].values == EndKind.NONFINITE) & (lanes["end_step"].values == 0)
    stuck = int(np.sum(ended & np.isfinite(lanes["initial_loss"].values)))
    if stuck:
        yield f"{count(stuck, 'run')} ended at step 0: the loss is finite there, and its gradient or the update is not."


def _about_stops(result: SweepLike) -> Iterator[str]:
    """How many runs a stopping rule ended, and whether it did so while their loss was above the initial one."""
    lanes = result.lanes
    stopped = lanes["end_kind"].values == EndKind.STOPPED
    if not stopped.any():
        return
    has_patience = any(str(name).startswith("patience_") for name in lanes.data_vars)
    number, rule = int(stopped.sum()), "patience" if has_patience else "a stopping rule"
    yield f"{count(number, 'run')} {'was' if number == 1 else 'were'} stopped by {rule}."
    higher = int(np.sum(stopped & (lanes["final_loss"].values > lanes["initial_loss"].values)))
    if higher:
        yield f"whether {count(higher, 'run')} stopped above the initial loss would have diverged is unknown."


def _about_effort(result: SweepLike, ranking: Ranking) -> Iterator[str]:
    """Unfinished runs, few seeds, an optimum that is not known."""
    unfinished = int(np.sum(~result.finished))
    if unfinished:
        yield f"{unfinished:,} of {count(result.finished.size, 'run')} {UNFINISHED}"
    yield from _about_stops(result)
    if not result.has_all_statistics:
        yield "regimes are not available with statistics='ends': runs that keep bouncing cannot be identified."
    if result.seeds < 3:
        yield f"{count(result.seeds, 'seed')}: too few to estimate the noise; use at least 3."
    elif not ranking.has_noise:
        yield "all seeds have the same scores: the noise is unknown."
    has_converged = np.isin(result.lane_regimes, MAY_HAVE_CONVERGED).any()
    if not result.lanes.attrs["optimum_known"] and result.lanes.attrs.get("regimes_known", 1) and has_converged:
        yield "the optimum is unknown: convergence is judged by the lowest training loss of any run."
