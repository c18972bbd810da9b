"""The scalar workload in hand-written NumPy: all lanes in one array, or in chunks that fit in the cache."""

from collections.abc import Callable

import numpy as np

from benchmarks.peers import BOUND, CURVE_POINTS, Peer
from benchmarks.timing import seconds
from benchmarks.workloads import Workload
from gdkit.monitors import curve_steps

CENTER = np.float32(3.0)
CHUNKS = (4096, 32_768)  # lanes at a time that are tried, beside all of them


def bare(rates: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Final and smallest loss, and the first step that was out of bounds."""
    x, least = np.zeros_like(rates), np.full_like(rates, np.inf)
    first = np.full(len(rates), steps, np.int32)
    bound = _bound(CENTER**2)
    double = 2 * rates
    away, loss = np.empty_like(x), np.empty_like(x)
    for t in range(steps + 1):
        np.subtract(x, CENTER, out=away)
        np.square(away, out=loss)
        np.minimum(least, loss, out=least)
        fine = loss <= bound  # false for NaN
        if not fine.all():
            np.minimum(first, t, out=first, where=~fine)
        if t < steps:
            away *= double
            x -= away
    return {"final_loss": loss, "min_loss": least, "end_step": first}


def watched(rates: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """All default statistics of gdkit; a lane that is out of bounds stops there."""
    zeros = lambda: np.zeros_like(rates)
    x, rates, final = zeros(), rates.copy(), np.full_like(rates, np.inf)
    least, most, increases = np.full_like(rates, np.inf), np.full_like(rates, -np.inf), zeros()
    least_step, most_step, first, end = (np.full(len(rates), n, np.int32) for n in (0, 0, -1, steps))
    windows = [[0, zeros(), zeros(), zeros()] for _ in range(4)]  # count, shift, total, total of squares
    counts, cosines = [zeros(), zeros()], [zeros(), zeros()]  # of the newest window, and of the one before
    sums = [{name: zeros() for name in ("grad", "update", "predicted")} for _ in range(2)]
    moved, previous, peak = [0, 0], zeros(), zeros()
    recorded = set(curve_steps(CURVE_POINTS).tolist())
    curve, bound = [], _bound(CENTER**2)
    for t in range(steps + 1):
        if _starts_window(t):
            if windows[0][0]:
                windows = [[0, final.copy(), zeros(), zeros()], *windows[:-1]]
            sums, moved = [{name: zeros() for name in sums[0]}, sums[0]], [0, moved[0]]
            counted = counts[0] > 0  # a run that has arrived keeps the cosine it arrived with
            for pair in (cosines, counts):
                np.copyto(pair[1], pair[0], where=counted)
                np.copyto(pair[0], 0, where=counted)
        away = x - CENTER
        loss, grad = away * away, 2 * away
        fine = loss <= bound
        if not fine.all():
            np.minimum(end, t, out=end, where=~fine)
            rates[~fine] = 0
        lower, higher = loss < least, loss > most
        np.copyto(least, loss, where=lower)
        np.copyto(least_step, t, where=lower)
        np.copyto(most, loss, where=higher)
        np.copyto(most_step, t, where=higher)
        increases += loss > final
        window = windows[0]
        deviation = loss - window[1]
        window[0] += 1
        window[2] += deviation
        window[3] += deviation * deviation
        if t in recorded:
            curve.append(loss)
        final = loss
        if t < steps:
            update = -rates * grad
            size, now = np.abs(update), sums[0]
            moves = size > 4 * np.finfo(np.float32).eps * np.abs(x)
            cosine = np.sign(update) * np.sign(previous)
            counts[0] += moves & (cosine != 0)
            cosines[0] += np.where(moves, cosine, 0)
            np.copyto(first, t, where=(first < 0) & moves & (cosine < 0))
            np.copyto(previous, update, where=moves)
            moved[0] += 1
            now["grad"] += np.abs(grad)
            now["update"] += size
            now["predicted"] -= grad * update
            np.maximum(peak, size, out=peak)
            x += update
    total = {name: sums[0][name] + sums[1][name] for name in sums[0]}
    count = max(sum(moved), 1)
    with np.errstate(invalid="ignore"):
        late_mean, late_spread = _late(windows[:2])
        return {
            "final_loss": final, "min_loss": least, "min_step": least_step, "max_loss": most, "max_step": most_step,
            "late_mean": late_mean, "late_spread": late_spread, "earlier_mean": _late(windows[2:])[0],
            "increases": increases / max(steps, 1),
            "reversal": (cosines[0] + cosines[1]) / (counts[0] + counts[1]), "reversal_step": first,
            "grad_norm": total["grad"] / count, "update_norm": total["update"] / count,
            "peak_update_norm": peak, "late_predicted": total["predicted"], "end_step": end,
            "curve_loss": np.stack(curve, axis=1),
        }  # fmt: skip


def _bound(initial: np.floating) -> np.floating:
    return np.float32(initial + BOUND * max(abs(initial), 1))


def _starts_window(t: int) -> bool:
    return t % max(1, 2 ** (max(t, 1).bit_length() - 3)) == 0


def _late(windows: list) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread over the union of several windows."""
    filled = [w for w in windows if w[0]]
    if not filled:
        return np.full_like(windows[0][1], np.nan), np.full_like(windows[0][1], np.nan)
    counts = np.array([w[0] for w in filled], np.float32)[:, None]
    means = np.stack([w[1] + w[2] / w[0] for w in filled])
    squares = np.stack([w[3] - w[2] ** 2 / w[0] for w in filled])
    mean = np.sum(counts * means, axis=0) / counts.sum()
    spread = np.sum(squares + counts * (means - mean[None]) ** 2, axis=0) / counts.sum()
    return mean, np.sqrt(np.maximum(spread, 0))


FLAVOURS: dict[str, Callable[[np.ndarray, int], dict[str, np.ndarray]]] = {"bare": bare, "all": watched}


def peers(work: Workload) -> list[Peer]:
    """Both flavours, for the scalar workload only."""
    return [_best(work, flavour) for flavour in work.flavours] if work.name == "scalar" else []


def _best(work: Workload, flavour: str) -> Peer:
    """In chunks of the size that is fastest on a tenth of the steps."""
    sizes = [size for size in CHUNKS if size < len(work.rates)] + [len(work.rates)]
    size = min(sizes, key=lambda size: seconds(lambda: _run_chunks(work, flavour, size, work.steps // 10)))
    every = np.arange(len(work.rates))
    run = lambda: _run_chunks(work, flavour, size, work.steps)
    return Peer("NumPy over lanes, by hand", flavour, run, every, f"{size:,} lanes at a time")


def _run_chunks(work: Workload, flavour: str, size: int, steps: int) -> np.ndarray:
    chunks = [work.rates[low : low + size] for low in range(0, len(work.rates), size)]
    return np.concatenate([FLAVOURS[flavour](rates, steps)["final_loss"] for rates in chunks])
