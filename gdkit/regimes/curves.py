"""Loss curves of runs that were trained elsewhere: their statistics, and the regimes that follow from losses alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from gdkit import monitors
from gdkit.checks import check_diverged_above
from gdkit.errors import bad_type, bad_value
from gdkit.monitors import Limits, Record
from gdkit.regimes.classification import DEFAULT_THRESHOLDS, Thresholds, Verdict, classify
from gdkit.types import Array, Context, Info, State

_WATCHED = (monitors.loss_statistics(), monitors.norms())
_CHANGES = {"update_norm": "late_change", "peak_update_norm": "peak_change", "late_predicted": "late_variation"}


def classify_curve(
    losses: ArrayLike,
    *,
    optimum: ArrayLike | None = None,
    stochastic: bool = False,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    diverged_above: float = 1e6,
) -> Verdict:
    """Judge the regime of runs that were trained elsewhere, from their losses at every step.

    The statistics of a run are replayed over its losses, and `classify` judges them. What needs gradients or updates
    is not known. Whether updates reverse does not show in a loss that falls: a run that arrived by reversing updates is
    CONVERGED, never OSCILLATING. In place of the decrease that the slopes promised stands the sum of all changes of
    the loss, rises and falls: a run that does not arrive is BOUNCING where its late losses change much and fall little,
    and STALLED where they hardly change, although its params may still move at equal loss. With `stochastic`, where
    losses change by noise, it is SLOW instead of BOUNCING or STALLED.

    Args:
      losses: (steps + 1,), or (..., steps + 1) for several runs, the last axis along the steps: the loss before each
        update, and that at the final params. A loss that is not finite is a divergence, so that a run that ended early
        is passed by itself.
      optimum: the lowest possible loss; if it is None, the lowest loss observed in these runs.
      stochastic: whether these are losses of minibatches.
      thresholds: the borders between regimes.
      diverged_above: as in `sweep`.

    Returns:
      The verdict; every array has the shape of `losses` without its last axis.

    Raises:
      InputValueError, InputTypeError: no numbers, no axis along the steps, or no losses.

    >>> from gdkit.regimes import Regime
    >>> falling, rising = 0.5 ** np.arange(50.0), 1.5 ** np.arange(50.0)
    >>> [Regime(int(code)).name for code in classify_curve([falling, rising], optimum=0.0).regime]
    ['CONVERGED', 'DIVERGED']
    """
    curves = check_curves("losses", losses)
    flat = curves.reshape(-1, curves.shape[-1])
    statistics = curve_statistics(flat, is_optimum_known=optimum is not None, diverged_above=diverged_above)
    shaped: dict[str, ArrayLike] = {name: x.reshape(curves.shape[:-1]) for name, x in statistics.items()}
    shaped["stochastic"] = stochastic
    return classify(shaped, optimum=optimum, thresholds=thresholds, diverged_above=diverged_above)


def check_curves(argument: str, losses: ArrayLike) -> np.ndarray:
    """The losses as floats, with at least one along the last axis."""
    curves = np.asarray(losses)
    if curves.dtype.kind not in "fiu":
        remedy = "Pass an array of shape (steps + 1,) or (..., steps + 1)"
        raise bad_type(argument, losses, f"not an array of real numbers, but of {curves.dtype}", remedy)
    if curves.ndim == 0 or curves.size == 0:
        remedy = "Pass the losses of all steps, with the steps along the last axis"
        raise bad_value(argument, losses, f"no loss along the last axis of the shape {curves.shape}", remedy)
    return curves.astype(float)


def curve_statistics(
    losses: np.ndarray, *, is_optimum_known: bool, diverged_above: float = 1e6
) -> dict[str, np.ndarray]:
    """The statistics that losses alone determine, as `classify` reads them; each (lanes,).

    They are those of `monitors.loss_statistics` and the end of the run, and in place of the norms of updates
    ``late_change`` and ``peak_change``, the late mean and the largest change of the loss in one step, and
    ``late_variation``, the sum of late changes; these are NaN for a single loss.

    Args:
      losses: (lanes, steps + 1).
      is_optimum_known: whether a run that falls without bound has not diverged.
      diverged_above: as in `sweep`.
    """
    check_diverged_above(diverged_above)
    limits = Limits(diverged_above, unbounded_below=np.inf if is_optimum_known else diverged_above)
    read = {name: np.asarray(x) for name, x in _replay(jnp.asarray(losses), limits).items()}
    found = {_CHANGES.get(name, name): x for name, x in read.items() if name not in ("grad_norm", "skipped_steps")}
    found["late_variation"] = np.where(np.isnan(found["late_change"]), np.nan, found["late_variation"])
    return found


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def _replay(losses: Array, limits: Limits) -> dict[str, Array]:
    """What the monitors read of one run, given its losses, (steps + 1,).

    The monitor of norms sees a run whose only param is its loss and whose slope points along each change, so that every
    change counts as promised.
    """
    after = jnp.append(losses[1:], losses[-1:])
    last = jnp.arange(len(losses)) == len(losses) - 1

    def observe(record: Record, step: tuple[Array, ...]) -> tuple[Record, None]:
        t, loss, following, is_last = step
        before, change = State(loss, (), ()), following - loss
        record = jax.lax.cond(
            monitors.starts_window(t), lambda r: monitors.roll(_WATCHED, r, before), lambda r: r, record
        )
        info = Info(loss, -jnp.sign(change), change)
        going = record.end_kind == monitors.EndKind.RUNNING
        record = monitors.end_record(record, info, t, limits, is_last)
        moves = record.end_kind == monitors.EndKind.RUNNING
        context = Context(t, jnp.zeros(()), {}, (), moves, going)
        after = State(following, (), ())
        return monitors.fold(_WATCHED, optax.identity(), record, before, after, info, context), None

    start = monitors.start_record(_WATCHED, State(losses[0], (), ()))
    steps = jnp.arange(len(losses), dtype=jnp.int32), losses, after, last
    record, _ = jax.lax.scan(observe, start, steps)
    return monitors.read(_WATCHED, record)
