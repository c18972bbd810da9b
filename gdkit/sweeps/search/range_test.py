"""The learning-rate range test."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, checks, factories
from gdkit.errors import InputValueError, bad_type, bad_value
from gdkit.formatting import format_number, html
from gdkit.problems import Learner, Problem, ProblemLike
from gdkit.stability import CriticalLearningRate, critical_learning_rate
from gdkit.sweeps import request
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.sweep import sweep
from gdkit.types import Key, Optimizer, OptimizerFactory


class RangeTest(NamedTuple):
    """Losses of runs whose learning rate grows at every step, and the learning rate that each rule suggests."""

    learning_rate: np.ndarray  # (steps,)
    loss: np.ndarray  # (seeds, steps), NaN after the end of a run
    smooth: np.ndarray  # (points,), median over seeds of the smoothed losses, up to where it blows up
    suggestions: dict[str, float]  # rule -> learning rate, NaN where the rule has no answer
    trial: SweepResult  # runs of constant learning rates around the suggestions
    limit: CriticalLearningRate | None  # where divergence begins, for seed 0; None if no run diverged

    @property
    def best(self) -> float:
        """The learning rate that is recommended among the trials, or that of the only one; NaN if all diverged."""
        found = self.trial.recommend()
        best = found.plain_best if found.best is None else found.best
        return float("nan") if best is None else best

    def __str__(self) -> str:
        lines = [f"{rule:>9}  {format_number(value, 3)}" for rule, value in self.suggestions.items()]
        limit = "no divergence found" if self.limit is None else format_number(self.limit.value, 3)
        lines += [f"{'trial':>9}  {format_number(self.best, 3)}", f"{'limit':>9}  {limit}"]
        return "\n".join([*lines, "", str(self.trial.recommend())])

    _repr_html_ = html.preformat


def lr_range_test(
    problem: ProblemLike,
    optimizer: OptimizerFactory,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    seeds: int | None = None,
    key: int | Key = 0,
    hyperparameters: Mapping[str, Any] | None = None,
    stop: float = 4.0,
    smoothing: float = 0.98,
    trials: int = 9,
) -> RangeTest:
    """Increase the learning rate from `low` to `high` within a run, and find where the loss falls (Smith 2017).

    The rules: ``steepest``, of gdkit, the steepest descent of the median over seeds against the logarithm of the
    learning rate; ``minimum``, a tenth of the learning rate of the lowest loss; ``valley``, the middle of the longest
    descent; ``slide``, where a window that moves from the right first has similar slopes at both ends (these three and
    the smoothing as in fastai); ``linear``, the steepest descent against the learning rate itself, as in Lightning
    since 2.5.3, which favors the smallest learning rates, where a little noise over a tiny distance is a steep slope
    (before, Lightning took the slope against the step, that is, against the logarithm). One short run
    shows little: prefer `trial`, which holds runs of constant learning rates, from ``valley`` or a tenth of
    ``steepest`` to where the curve blows up. `limit` is where divergence begins, by `critical_learning_rate`, searched
    up to ten times the highest of them.

    Args:
      problem: as in `sweep`.
      optimizer: a factory whose ``learning_rate`` may be a schedule.
      low, high: the learning rate at the first and at the last step; it grows by equal ratios.
      steps: of the run with a growing learning rate, and of each trial.
      seeds: number of runs; by default three if the start or the batches depend on the seed, else one.
      key: the key of all seeds.
      hyperparameters: the other hyperparameters of the optimizer.
      stop: the curve ends where the distance of the smoothed loss from the optimum exceeds `stop` times its least; if
        the optimum is unknown, where it rises above its lowest value by `stop` − 1 times its whole fall and the noise
        of its losses. A constant that is added to the loss changes nothing.
      smoothing: weight of the previous running mean in the next one.
      trials: number of constant learning rates.

    Raises:
      GdkitError: an argument cannot be used; the loss blows up within four steps.

    >>> from gdkit import problems, sgd
    >>> found = lr_range_test(problems.quadratic([1.0, 4.0]), sgd, low=1e-4, high=10.0, seeds=1)
    >>> 0.05 < found.best < 0.5
    True
    """
    _check_range(low, high, steps, stop, smoothing)
    if isinstance(problem, Learner):
        raise bad_type("problem", problem, "a Learner has no optimizer with a schedule", "Sweep its learning rate")
    others = checks.as_hyperparameters(hyperparameters, varied="learning_rate")
    binding.check_hyperparameters(problem, optimizer, ["learning_rate", *others])
    if seeds is None:
        concrete = problem if isinstance(problem, Problem) else factories.call("problem", problem, {})
        seeds = 3 if request.depends_on_seed(concrete, checks.as_key(key)) else 1
    for argument, value in (("seeds", seeds), ("trials", trials)):
        checks.check_integer(argument, value)
    log_ratio = math.log(high / low) / (steps - 1)

    def growing(low: float) -> Optimizer:
        return optimizer(
            learning_rate=lambda count: low * jnp.exp(log_ratio * count.astype(jnp.result_type(low))), **others
        )

    options: dict[str, Any] = {"steps": steps, "seeds": seeds, "key": key}
    dense = math.ceil(steps * (1 + math.log(max(10_000 / steps, 1)))) + 8  # so many points record every step
    grown = sweep(problem, growing, {"low": [low]}, curve_points=dense, **options)
    loss = grown.lanes["curve_loss"].values[:, :steps].astype(float)
    rates = low * np.exp(log_ratio * np.arange(steps))
    smooth = np.median([smoothed(row, smoothing) for row in loss], axis=0)
    optimum = None if grown.lanes.attrs["optimum_known"] == 0 else float(grown.lanes["reference_loss"].values[0])
    noise = _measure_noise(loss[:, : max(int(np.argmin(smooth)), 4) + 1])
    smooth = smooth[: _count_bounded(smooth, stop, noise, optimum)]
    stuck = int((grown.lanes["end_step"].values == 0).sum())
    if len(smooth) < 4 and stuck:
        cause = f"{stuck} of the runs end at step 0, where their loss or gradient is not finite"
        raise bad_value("seeds", seeds, cause, "Look at the start, the data and the loss; no learning rate helps")
    if len(smooth) < 4:
        raise bad_value("low", low, "the loss blows up within four steps", "Begin with a smaller learning rate")
    shown = rates[: len(smooth)]
    suggestions = {rule: suggest(shown, smooth) for rule, suggest in RULES.items()}
    least = min(suggestions["steepest"] / 10, suggestions["valley"])  # either may be decades too high
    around = np.geomspace(least, max(shown[-1], 2 * suggestions["steepest"]), trials)
    trial = sweep(problem, functools.partial(optimizer, **others), {"learning_rate": around}, **options)
    limit = _find_limit(problem, optimizer, others, checks.as_key(key), steps, around)
    return RangeTest(rates, loss, smooth, suggestions, trial, limit)


def _find_limit(
    problem: ProblemLike, optimizer: OptimizerFactory, others: dict[str, Any], key: Key, steps: int, around: np.ndarray
) -> CriticalLearningRate | None:
    """Where divergence begins for seed 0, between the lowest trial and ten times the highest."""
    ends = {"low": around[0], "high": 10 * around[-1]}
    first = jax.random.fold_in(key, 0)  # as in a sweep
    try:
        return critical_learning_rate(problem, optimizer, **ends, steps=steps, key=first, hyperparameters=others)
    except InputValueError:  # the trials have checked the other arguments: all runs diverge, or none does
        return None


def smoothed(loss: np.ndarray, share: float) -> np.ndarray:
    """The running mean of losses, corrected for its start at zero; infinite after the first loss that is not finite."""
    mean, means = 0.0, []
    for t, value in enumerate(loss, 1):
        mean = share * mean + (1 - share) * (value if np.isfinite(value) else np.inf)
        means.append(mean / (1 - share**t))
    return np.array(means)


def _count_bounded(smooth: np.ndarray, stop: float, noise: float, optimum: float | None) -> int:
    """Number of points before the curve rises by ``stop - 1`` times its scale above its lowest value so far.

    The scale is the distance of that value from a known optimum; if it is unknown, the whole fall of the curve and the
    noise of its losses. Neither changes with a constant that is added to the loss.
    """
    least = np.minimum.accumulate(smooth)
    scale = smooth[0] - least[-1] + noise if optimum is None else least - optimum
    beyond = ~(smooth - least <= (stop - 1) * scale) | ~np.isfinite(smooth)
    return int(np.argmax(beyond)) if beyond.any() else len(smooth)


def _measure_noise(loss: np.ndarray) -> float:
    """The standard deviation of successive losses (seeds, steps) about their trend, from the median of differences."""
    differences = np.abs(np.diff(loss, axis=1))
    finite = differences[np.isfinite(differences)]
    return float(np.median(finite)) / 0.954 if finite.size else 0.0  # the median of |N(0, 2)|, for independent noise


def _valley(rates: np.ndarray, loss: np.ndarray) -> float:
    """The middle of the middle third of the longest decreasing subsequence of losses, as in fastai.

    fastai counts from the point before that at which a subsequence of this length without gaps would begin, which is −1
    if that is the first point. For a curve of two points it then returns −1, the highest learning rate; this returns
    the lowest.
    """
    length = np.ones(len(loss), int)
    for i in range(1, len(loss)):
        length[i] += max(length[:i][loss[:i] > loss[i]], default=0)
    end = int(np.argmax(length))
    start = end - length[end] if length[end] > 1 else 0
    third = (end - start) / 3
    return float(rates[max(start + int(third) + int(third / 2), 0)])


def _slide(rates: np.ndarray, loss: np.ndarray, window: int = 15, similar: float = 0.005) -> float:
    """The left end of the rightmost window whose ends differ in slope; NaN for a curve shorter than a window."""
    if len(loss) <= window:
        return float("nan")
    slope = np.gradient(loss)
    differ = np.abs(slope[window:] - slope[:-window]) > similar  # per window, at its left end
    slid = int(np.argmin(np.append(differ[::-1], False)))
    return float(rates[len(differ) - max(slid, 1)])


# (learning rates, smoothed losses), each (points,), -> learning rate
RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "steepest": lambda rates, loss: float(rates[np.argmin(np.gradient(loss, np.log(rates)))]),
    "minimum": lambda rates, loss: float(rates[np.argmin(loss)] / 10),
    "valley": _valley,
    "slide": _slide,
    "linear": lambda rates, loss: float(rates[np.argmin(np.gradient(loss, rates))]),
}


def _check_range(low: float, high: float, steps: int, stop: float, smoothing: float) -> None:
    checks.check_interval(low, high, stop=stop, smoothing=smoothing)
    checks.check_integer("steps", steps)
    if steps < 8:
        raise bad_value("steps", steps, "too few for a curve", "Pass at least 8")
    if not stop > 1:
        raise bad_value("stop", stop, "a curve would end where it begins", "Pass more than 1")
    if not smoothing < 1:
        raise bad_value("smoothing", smoothing, "the mean would never change", "Pass less than 1")
