"""The learning-rate range test."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import checks, factories, html
from gdkit.errors import InputValueError, bad_value
from gdkit.problems import Problem
from gdkit.stability import CriticalLearningRate, critical_learning_rate
from gdkit.sweeps import request
from gdkit.sweeps.result.result import SweepResult
from gdkit.sweeps.sweep import sweep

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
    optimizer: Any,
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
      problem, optimizer: as in `sweep`; the factory takes a schedule as its ``learning_rate``.
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
        seeds = 3 if request.depends_on_seed(concrete, checks.as_key(key)) else 1
    for argument, value in (("seeds", seeds), ("trials", trials)):
        checks.check_integer(argument, value)
    others = dict(hyperparameters or {})
    log_ratio = math.log(high / low) / (steps - 1)

    def growing(low: float) -> Any:
        return optimizer(learning_rate=lambda count: low * jnp.exp(log_ratio * count), **others)

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
    trial = sweep(problem, functools.partial(optimizer, **others), {"learning_rate": around}, **options)
    limit = _limit(problem, optimizer, others, checks.as_key(key), steps, around)
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
