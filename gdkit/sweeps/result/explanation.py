"""Why a lane ended as it did: its curvature against the edge of stability, beside the runs around the divergence."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gdkit.formatting import count, format_number, html, text_table
from gdkit.regimes import Regime
from gdkit.sweeps.scoring.lane_values import SweepLike, hyperparameters_of

_AT_EDGE = 0.95  # share of the edge from which a run counts as at the edge: eigenvalues oscillate around it
_APART = 1.5  # least ratio of an eigenvalue to the next for which it and those above are outliers


class FlowPart(NamedTuple):
    """A part of a run, and what its central flow predicts there."""

    step: np.ndarray  # (points,) of the run
    loss: np.ndarray  # (points,) mean loss of the run from one point to the next
    predicted: np.ndarray  # (points,) by the central flow, of the mean loss
    flow_loss: np.ndarray  # (points,) at the params of the flow


class ExplainedRun(NamedTuple):
    """A lane that was run again, with its curvature."""

    lane: int
    place: str  # "", "just below divergence" or "just above divergence"
    hyperparameters: dict[str, object]  # with the seed
    value: float  # of the axis
    regime: Regime
    end_step: int
    loss: np.ndarray  # (steps + 1,), up to the end
    step: np.ndarray  # (points,) of the following
    sharpness: np.ndarray  # (points,) of all data; of an optimizer with second moments preconditioned
    edge: np.ndarray | None  # (points,) the sharpness above which steps are unstable; None if it is not known
    batch_sharpness: np.ndarray | None  # (points,) None without minibatches
    flow: FlowPart | None  # None where there is none

    @property
    def ratio(self) -> np.ndarray:
        """Sharpness over its edge, (points,); NaN where that is not known."""
        return self.sharpness / self.edge if self.edge is not None else np.full(len(self.sharpness), np.nan)

    @property
    def arrival_step(self) -> int | None:
        """The first measured step at which the sharpness is at the edge; None if it stays below."""
        at_edge = np.flatnonzero(self.ratio >= _AT_EDGE)
        return int(self.step[at_edge[0]]) if at_edge.size else None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a lane ended as it did; prints as a paragraph and a table.

    Attributes:
      axis: the axis along which divergence begins, None without a numeric one.
      runs: the lane, and the last run below and the first run above where divergence begins along `axis`, with the same
        seed and the same other values.
      eigenvalues: the largest of the Hessian on all data at the end of the lane, descending, (k,).
      outliers: the number of them that are well separated from the rest.
      is_preconditioned: whether sharpnesses are of the Hessian in the coordinates that the optimizer rescales.
      flow_note: why there is no central flow; empty where there is.
    """

    axis: str | None
    runs: tuple[ExplainedRun, ...]
    eigenvalues: np.ndarray
    outliers: int
    is_preconditioned: bool = False
    flow_note: str = ""

    @property
    def text(self) -> str:
        """The paragraph."""
        return " ".join([*(part for run in self.runs for part in self._describe(run)), *self._describe_end()])

    def __str__(self) -> str:
        return f"{self.text}\n\n{self._table()}"

    _repr_html_ = html.preformat

    @property
    def sharpness_name(self) -> str:
        """What the figures and words call the sharpness."""
        return "preconditioned sharpness" if self.is_preconditioned else "sharpness"

    def _describe(self, run: ExplainedRun) -> Iterator[str]:
        """Sentences about one run."""
        name = f"Run {run.lane}" + (f", {run.place} along {self.axis}," if run.place else "")
        at = ", ".join(f"{key} {_plain(value)}" for key, value in run.hyperparameters.items())
        losses = f"its loss went from {format_number(run.loss[0])} to {format_number(run.loss[-1])}"
        yield f"{name} ({at}) {_OUTCOMES[run.regime]} after {count(run.end_step, 'step')}: {losses}."
        yield from self._describe_sharpness(run)
        if run.batch_sharpness is not None and run.edge is not None:
            batch = run.batch_sharpness / run.edge
            last = _last_finite(batch)
            yield (
                f"On minibatches the curvature along the gradient, the batch sharpness, was {format_number(last, 2)} "
                f"of the edge at the end and at most {format_number(np.nanmax(batch, initial=-np.inf), 2)}."
            )
        if run.flow is not None:
            yield self._describe_flow(run.flow)

    def _describe_sharpness(self, run: ExplainedRun) -> Iterator[str]:
        name, finite = self.sharpness_name, run.sharpness[np.isfinite(run.sharpness)]
        if not finite.size:
            yield f"Its {name} could not be measured."
            return
        moved = f"Its {name} went from {format_number(finite[0])} to {format_number(finite[-1])}"
        if run.edge is None:
            yield f"{moved}; the edge of stability of this optimizer is not known."
            return
        ratio = run.ratio[np.isfinite(run.ratio)]
        yield f"{moved}, from {format_number(ratio[0], 2)} to {format_number(ratio[-1], 2)} of the edge of stability."
        yield _judge(run, ratio)

    def _describe_flow(self, flow: FlowPart) -> str:
        means = [float(np.mean(part)) for part in (flow.loss, flow.predicted, flow.flow_loss)]
        error = abs(means[1] / means[0] - 1) if means[0] else np.nan
        return (
            f"From step {flow.step[0]:,} to {flow.step[-1]:,} its mean loss was {format_number(means[0])}; the central "
            f"flow predicts {format_number(means[1])}, {error:.0%} off, of which {format_number(means[2])} is without "
            "oscillation."
        )

    def _describe_end(self) -> Iterator[str]:
        if self.flow_note:
            yield f"There is no central flow: {self.flow_note}."
        if self.outliers:
            first, last = (format_number(self.eigenvalues[i], 3) for i in (0, self.outliers - 1))
            which = f"from {last} to {first}" if self.outliers > 1 else f"of {first}"
            after = format_number(self.eigenvalues[self.outliers], 3)
            yield (
                f"At the end of run {self.runs[0].lane} {count(self.outliers, 'eigenvalue')} {which} of the Hessian "
                f"{'stand' if self.outliers > 1 else 'stands'} apart; the next is {after}."
            )

    def _table(self) -> str:
        heads = ["run", self.axis or "", "regime", "loss", self.sharpness_name, "edge", "at the edge from step"]
        rows = [
            [
                str(run.lane),
                format_number(run.value) if self.axis else "",
                run.regime.name,
                format_number(run.loss[-1]),
                format_number(_last_finite(run.sharpness)),
                format_number(run.edge[-1]) if run.edge is not None else "–",
                "–" if run.arrival_step is None else f"{run.arrival_step:,}",
            ]
            for run in self.runs
        ]
        return text_table(heads, rows, ">><>>>>")


_OUTCOMES = {
    Regime.SLOW: "was still descending",
    Regime.CONVERGED: "converged",
    Regime.OSCILLATING: "oscillated",
    Regime.CATAPULT: "converged after a catapult",
    Regime.BOUNCING: "bounced",
    Regime.STALLED: "stalled",
    Regime.DIVERGED: "diverged",
    Regime.UNKNOWN: "ended",
}


def _judge(run: ExplainedRun, ratio: np.ndarray) -> str:
    """What the sharpness over the edge says about a run; `ratio` are its finite values."""
    has_diverged, arrival = run.regime == Regime.DIVERGED, run.arrival_step
    if ratio[0] > 1 and has_diverged:
        return "It starts above the edge, where steps overshoot, and oscillations grew before it reached a flat region."
    if ratio[0] > 1 and ratio[-1] <= 1.05:
        return "It starts above the edge: steps overshot until it reached a region flat enough for them, a catapult."
    if ratio[0] > 1:
        return "It starts above the edge, where steps overshoot."
    if arrival is None and has_diverged:
        return "The measured sharpness stays below the edge, so that curvature between measurements or noise ended it."
    if arrival is None:
        return "It stays below the edge, where steps follow the gradient flow; a larger value would be stable too."
    if has_diverged:
        return f"It reaches the edge at step {arrival:,}; from there oscillations grow faster than the curvature falls."
    return f"It reaches the edge at step {arrival:,}, where oscillations hold it: the run is at the edge of stability."


def count_outliers(eigenvalues: np.ndarray) -> int:
    """How many of the eigenvalues, in descending order, are above the widest gap; 0 if none is wide.

    >>> count_outliers(np.array([9.0, 8.0, 2.0, 1.9])), count_outliers(np.array([4.0, 3.0, 2.5]))
    (2, 0)
    """
    positive = eigenvalues[eigenvalues > 0]
    if positive.size < 2:
        return 0
    ratios = positive[:-1] / positive[1:]
    return int(ratios.argmax()) + 1 if ratios.max() >= _APART else 0


def choose_lanes(result: SweepLike, lane: int) -> tuple[str | None, dict[int, str]]:
    """The numeric axis, and the lanes to explain with their places: the lane, and those around the first divergence."""
    axis, places = result.main_axis, {lane: ""}
    if axis is None:
        return None, places
    line = _find_line(result, lane, axis)
    diverged = np.flatnonzero(result.lane_regimes[line] == Regime.DIVERGED)
    if diverged.size:
        first = int(diverged[0])
        places[int(line[first])] = "just above divergence"
        if first > 0:
            places[int(line[first - 1])] = "just below divergence"
    return axis, {lane: places.pop(lane)} | dict(sorted(places.items(), key=lambda item: item[1], reverse=True))


def _find_line(result: SweepLike, lane: int, axis: str) -> np.ndarray:
    """The finished lanes that differ from a lane in `axis` and what is paired with it, in ascending order of it."""
    paired = {name for grid in result.grids for _, names, _ in grid.dimensions if axis in names for name in names}
    others = {*result.axes, "optimizer", "seed"} - paired
    mine = result.finished.copy()
    for name in others & set(result.lanes.coords):
        values = result.lanes[name].values
        both_lack_it = values.dtype.kind == "f" and np.isnan(values) & np.isnan(values[lane])
        mine &= (values == values[lane]) | both_lack_it
    line = np.flatnonzero(mine)
    return line[np.argsort(result.lanes[axis].values[line], kind="stable")]


def describe_lane(result: SweepLike, lane: int) -> dict[str, object]:
    """The hyperparameters of a lane, and its seed."""
    return hyperparameters_of(result, lane) | {"seed": int(result.lanes["seed"].values[lane])}


def _last_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def _plain(value: object) -> str:
    return format_number(value) if isinstance(value, float) else str(value)
