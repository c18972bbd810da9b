"""Share of the machine that the MLPs use: arithmetic relative to the best matmul, and the bandwidth of the memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing, workloads
from benchmarks.compare import plan_of
from benchmarks.peers import gdkit_peer
from benchmarks.workloads import Workload
from gdkit.sweeps.plan.shapes import count_visible_cores

MLPS = ("small_mlp", "digits_mlp", "wide_mlp")
SIZES = (256, 512, 1024, 2048)


def run(*, quick: bool = False) -> dict[str, Any]:
    """The peak before and after the MLPs, and the share of it that they reach."""
    sizes, rounds = (SIZES[:1], 1) if quick else (SIZES, 5)
    peaks = matmul_peak(sizes, rounds)
    bandwidth = memory_bandwidth(2**20 if quick else 2**26, rounds)
    reached: dict[str, dict[str, Any]] = {}
    for name in MLPS[:1] if quick else MLPS:
        work = workloads.make(name, quick=quick)
        peer = gdkit_peer(work)
        peer.run()
        seconds = min(timing.seconds(peer.run) for _ in range(rounds))
        alone = min(timing.seconds(products_alone(work)) for _ in range(rounds))
        reached[name] = {"title": work.title, "flops": flops(work), "seconds": seconds, "products_alone": alone}
    again = matmul_peak(sizes, rounds)
    peaks = {name: max(value, again[name]) for name, value in peaks.items()}
    best = max(peaks.values())
    for row in reached.values():
        speed = row["flops"] / row["seconds"]
        row |= {"speed": speed, "share": speed / best, "products_share": row["products_alone"] / row["seconds"]}
    return {"matmul": peaks, "peak": best, "bandwidth": bandwidth, "reached": reached}


def flops(work: Workload) -> float:
    """Operations of the matmuls of a sweep: forward and both backward, without the gradient of the inputs."""
    pairs = [a * b for a, b in zip(work.sizes, work.sizes[1:], strict=False)]
    step = 6 * work.rows * sum(pairs) - 2 * work.rows * pairs[0]
    return float(step) * work.steps * len(work.rates)


def products_alone(work: Workload) -> Callable[[], Any]:
    """Only the matmuls of a sweep, in blocks of gdkit's width on all cores: an upper bound for the sweep."""
    width = plan_of(work)["width"]
    keys = jax.random.split(jax.random.key(0), len(work.sizes))
    x = jax.random.normal(keys[0], (work.rows, work.sizes[0]))
    pairs = zip(keys[1:], work.sizes, work.sizes[1:], strict=False)
    weights = [jax.random.normal(key, (width, n, m)) / n**0.5 for key, n, m in pairs]

    @jax.jit
    def run(weights: list[Any]) -> Any:
        def step(weights: list[Any], _: Any) -> tuple[list[Any], None]:
            inputs = [x]
            for w in weights:
                inputs.append(inputs[-1] @ w)
            out, moved = inputs.pop(), []
            for w, h in zip(reversed(weights), reversed(inputs), strict=True):
                moved.append(w - 1e-30 * (jnp.swapaxes(h, -1, -2) @ out))
                out = out @ jnp.swapaxes(w, -1, -2) if h is not x else out
            return moved[::-1], None

        return jax.lax.scan(step, weights, length=work.steps)[0]

    blocks = -(-len(work.rates) // width)
    pool = ThreadPoolExecutor(count_visible_cores())
    jax.block_until_ready(run(weights))
    return lambda: list(pool.map(lambda _: jax.block_until_ready(run(weights)), range(blocks)))


def matmul_peak(sizes: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Largest number of single-precision operations per second of a matmul over sizes, by library."""
    cores = count_visible_cores()
    multiply = jax.jit(jnp.matmul)
    peaks = {"JAX": 0.0, "JAX, one a core": 0.0, "NumPy": 0.0}
    with ThreadPoolExecutor(cores) as pool:
        for n in sizes:
            a = np.random.default_rng(0).standard_normal((n, n), np.float32)
            x, repeats = jnp.asarray(a), max(1, int(2e10 / (2 * n**3)) if rounds > 1 else 1)
            alone = lambda x=x, repeats=repeats: [multiply(x, x).block_until_ready() for _ in range(repeats)]
            side_by_side = lambda alone=alone: list(pool.map(lambda _: alone(), range(cores)))
            ways: dict[str, tuple[Callable[[], Any], int]] = {
                "JAX": (alone, repeats),
                "JAX, one a core": (side_by_side, cores * repeats),
                "NumPy": (lambda a=a, repeats=repeats: [a @ a for _ in range(repeats)], repeats),
            }
            for name, (way, count) in ways.items():
                way()
                peaks[name] = max(peaks[name], *(2 * n**3 * count / timing.seconds(way) for _ in range(rounds)))
    return peaks


def memory_bandwidth(floats: int, rounds: int) -> float:
    """Bytes per second, read and written, when every core scales an array larger than its cache."""
    cores = count_visible_cores()
    parts = np.array_split(np.ones(floats, np.float32), cores)
    outs = [np.empty_like(part) for part in parts]
    with ThreadPoolExecutor(cores) as pool:
        scale = lambda: list(pool.map(lambda a, out: np.multiply(a, np.float32(2), out=out), parts, outs))
        scale()
        return 8 * floats / min(timing.seconds(scale) for _ in range(rounds))
