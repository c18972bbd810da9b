"""Gradient descent at many learning rates, as written without gdkit.

Every peer uses gdkit's minibatches and start, and arrives at its final losses. Two flavours:

- bare: what one would write by hand: the final loss, the lowest loss, and the first step with a loss out of bounds;
- all: gdkit's lane with all of its statistics, in a plain scan.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gdkit
from benchmarks.workloads import Workload
from gdkit import binding, checks, descent, monitors
from gdkit.monitors import Limits
from gdkit.sweeps.plan.shapes import count_visible_cores
from gdkit.types import Array, Key, OptimizerLike, Params, PyTree

BOUND = 1e6  # a run counts as diverged if its loss rises by this many times the initial one
CURVE_POINTS = 200
# Of a sweep, by flavour: all statistics and a curve, or what bare peers compute.
OPTIONS: dict[str, dict[str, Any]] = {"all": {}, "ends": {"statistics": "ends", "curve_points": 0}}


class Peer(NamedTuple):
    """One implementation of a workload."""

    title: str
    flavour: str  # "bare" or "all"; of gdkit "ends" or "all"
    run: Callable[[], Any]  # -> final losses of `lanes`
    lanes: np.ndarray  # places in the workload's rates; a loop runs some of them, and its time is scaled up
    detail: str = ""  # what was chosen for it by timing


class Start(NamedTuple):
    """Initial state of every lane."""

    params: Params
    init_key: Key
    key: Key  # of the batches
    data: PyTree


def start_of(work: Workload, key: int = 0) -> Start:
    """The start of the first seed of a sweep with that key, on the device."""
    init_key, sample_key = descent.split_key(jax.random.fold_in(checks.as_key(key), 0))
    problem = work.problem
    params = jax.jit(problem.init)(init_key) if problem.init_is_function else problem.init
    return jax.device_put(Start(params, init_key, sample_key, problem.data))


# --- gdkit


def gdkit_peer(work: Workload, statistics: str = "all") -> Peer:
    """The sweep as a user calls it, from arrays to the labeled result."""
    axes, options = {"learning_rate": work.rates}, OPTIONS[statistics]

    def run() -> np.ndarray:
        result = gdkit.sweep(work.problem, gdkit.sgd, axes, steps=work.steps, **options)
        return result.data["final_loss"].values[:, 0]

    return Peer("gdkit", statistics, run, np.arange(len(work.rates)))


# --- one lane, as a function that can be mapped


def make_objective(work: Workload) -> Callable[[Params, Array, Start], Array]:
    """``(params, t, start) -> loss`` of the batch of step `t`."""
    loss, sample = work.problem.loss, work.problem.sample

    def objective(params: Params, t: Array, start: Start) -> Array:
        if start.data is None:
            return loss(params)
        return loss(params, start.data if sample is None else sample(start.key, t, start.data))

    return objective


def bare_lane(
    work: Workload, unroll: int = 1, optimizer: Callable[[Array], Any] = optax.sgd
) -> Callable[[Array, Start], dict[str, Array]]:
    """``(rate, start) -> statistics``: a scan with optax, and the bare statistics that a person would write."""
    objective = make_objective(work)

    def run(rate: Array, start: Start) -> dict[str, Array]:
        chosen = optimizer(rate)

        def body(carry: tuple, t: Array) -> tuple[tuple, None]:
            params, state, least, first, initial = carry
            value, grad = jax.value_and_grad(objective)(params, t, start)
            initial = jnp.where(t == 0, value, initial)
            in_bounds = value <= initial + BOUND * jnp.maximum(jnp.abs(initial), 1)  # false for NaN
            update, state = chosen.update(grad, state, params)
            first = jnp.where(in_bounds, first, jnp.minimum(first, t))
            return (optax.apply_updates(params, update), state, jnp.minimum(least, value), first, initial), None

        state = chosen.init(start.params)
        carry = start.params, state, jnp.float32(jnp.inf), jnp.int32(work.steps), jnp.float32(0)
        (params, _, least, first, _), _ = jax.lax.scan(body, carry, jnp.arange(work.steps), unroll=unroll)
        final = objective(params, jnp.int32(work.steps), start)
        return {"final_loss": final, "min_loss": jnp.minimum(least, final), "end_step": first}

    return run


def watched_lane(
    work: Workload, unroll: int = 1, optimizer: OptimizerLike = gdkit.sgd
) -> Callable[[Array, Start], dict[str, Array]]:
    """``(rate, start) -> statistics``, with all default statistics of gdkit."""
    problem = work.problem
    watched = (*monitors.DEFAULT, monitors.curve(CURVE_POINTS))
    step = descent.observed_step(problem, optimizer, watched)
    floor = math.inf if problem.optimum is not None else BOUND
    limits = Limits(jnp.float32(BOUND), jnp.float32(-math.inf), jnp.float32(floor))

    def run(rate: Array, start: Start) -> dict[str, Array]:
        chosen = {"learning_rate": rate}

        def body(lane: descent.Lane, t: Array) -> tuple[descent.Lane, None]:
            inputs = descent.StepInputs(chosen, t, start.key, start.data)
            return step(lane, inputs, limits, t == work.steps)[0], None

        arrays = binding.get_arrays(problem)._replace(data=start.data)
        lane = descent.start_lane(problem, optimizer, watched, chosen, start.init_key, arrays)
        lane, _ = jax.lax.scan(body, lane, jnp.arange(work.steps + 1, dtype=jnp.int32), unroll=unroll)
        return monitors.read(watched, lane.record)

    return run


LANES = {"bare": bare_lane, "all": watched_lane}


# --- ways to run the lanes


def jax_peers(work: Workload, flavour: str) -> Iterator[Peer]:
    """Peers without a search for the best layout."""
    lane, start = LANES[flavour](work), start_of(work)
    every = np.arange(len(work.rates))
    rates = jax.device_put(work.rates)
    side_by_side = jax.jit(jax.vmap(lane, in_axes=(0, None)))
    yield Peer("jit(vmap(scan))", flavour, lambda: side_by_side(rates, start)["final_loss"], every)
    if jax.local_device_count() > 1:
        sharded = _over_devices(lane)
        yield Peer("jit(shard_map(vmap(scan)))", flavour, lambda: sharded(rates, start)["final_loss"], every)
    if flavour == "all":
        return
    few = space_lanes(len(every), work.some)
    mapped = jax.jit(lambda rates, start: jax.lax.map(lambda rate: lane(rate, start), rates))
    yield Peer("jit(lax.map(scan))", flavour, lambda: mapped(rates[few], start)["final_loss"], few)
    one = jax.jit(lane)
    loop = lambda: [one(rate, start)["final_loss"] for rate in work.rates[few]]
    yield Peer("loop over jit(scan)", flavour, lambda: np.stack(jax.block_until_ready(loop())), few)
    fewer = space_lanes(len(every), max(1, work.some // 8))
    yield Peer("loops over a jitted optax step", flavour, lambda: _stepwise(work, start, fewer), fewer)


def space_lanes(count: int, some: int) -> np.ndarray:
    """Indices of `some` of the lanes."""
    return np.unique(np.linspace(0, count - 1, min(some, count)).astype(int))


def _over_devices(lane: Callable) -> Any:
    automatic = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.local_device_count(),), ("lane",), axis_types=automatic)
    over, same = jax.sharding.PartitionSpec("lane"), jax.sharding.PartitionSpec()
    mapped = jax.vmap(lane, in_axes=(0, None))
    return jax.jit(jax.shard_map(mapped, mesh=mesh, in_specs=(over, same), out_specs=over, check_vma=False))


@functools.lru_cache(maxsize=8)
def _optax_step(problem: gdkit.Problem) -> Any:
    def step(params: Params, state: Any, rate: Array, t: Array, key: Key, data: PyTree) -> tuple[Params, Any, Array]:
        batch = binding.get_batch(problem, t, key, data)
        loss = problem.loss if data is None else lambda params: problem.loss(params, batch)
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = optax.sgd(rate).update(grad, state, params)
        return optax.apply_updates(params, updates), state, value

    return jax.jit(step)


def _stepwise(work: Workload, start: Start, lanes: np.ndarray) -> np.ndarray:
    step, final = _optax_step(work.problem), []
    for rate in work.rates[lanes]:
        params, state, losses = jax.tree.map(jnp.asarray, start.params), optax.sgd(rate).init(start.params), []
        for t in range(work.steps + 1):
            params, state, value = step(params, state, rate, np.int32(t), start.key, start.data)
            losses.append(value)
        final.append(np.asarray(losses)[-1])
    return np.stack(final)


# --- the best hand-written variant: tiles of lanes, scans unrolled, threads


class Tiling(NamedTuple):
    """Tile width and number of threads."""

    width: int
    unroll: int
    threads: int

    def __str__(self) -> str:
        return f"tiles of {self.width}, unroll {self.unroll}, threads {self.threads}"


WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
UNROLLS = (1, 2, 4)


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def widths_for(lanes: int) -> list[int]:
    """Layouts to search; on an accelerator large parts of all lanes, since narrow tiles leave it idle."""
    return [lanes // 4, lanes // 2, lanes] if on_accelerator() else [w for w in WIDTHS if w <= lanes]


class Tiled:
    """The lanes of a workload in tiles, run by threads."""

    def __init__(self, work: Workload, flavour: str):
        self.rates, self.start = work.rates, start_of(work)
        self.programs = {u: jax.jit(jax.vmap(LANES[flavour](work, u), in_axes=(0, None))) for u in UNROLLS}
        self.pool = ThreadPoolExecutor(max(2, count_visible_cores()))
        self.compiled: set[tuple[int, int]] = set()

    def run(self, tiling: Tiling, seconds: float = math.inf) -> np.ndarray:
        """Final losses of all lanes, or of as many as run in about `seconds`."""
        program, tiles = self.programs[tiling.unroll], self.tiles(tiling.width)
        if (tiling.width, tiling.unroll) not in self.compiled:  # compile once, before threads run it
            self.compiled.add((tiling.width, tiling.unroll))
            jax.block_until_ready(program(tiles[0], self.start))
        until, queue = time.perf_counter() + seconds, iter(enumerate(tiles))

        def work() -> list[tuple[int, np.ndarray]]:
            done = [self._next(program, queue)]
            while done[-1] and time.perf_counter() < until:
                done.append(self._next(program, queue))
            return [found for found in done if found]

        futures = [self.pool.submit(work) for _ in range(tiling.threads)]
        found = dict(itertools.chain.from_iterable(future.result() for future in futures))
        return np.concatenate([found[n] for n in sorted(found)])[: len(self.rates)]

    def _next(self, program: Any, queue: Iterator[tuple[int, np.ndarray]]) -> Any:
        taken = next(queue, None)
        return taken and (taken[0], np.asarray(program(taken[1], self.start)["final_loss"]))

    def tiles(self, width: int) -> list[np.ndarray]:
        """The rates, padded with the last one to fill the last tile."""
        places = np.arange(-(-len(self.rates) // width) * width)
        return list(self.rates[np.minimum(places, len(self.rates) - 1)].reshape(-1, width))

    def speed(self, tiling: Tiling, seconds: float) -> float:
        """Lanes per second, in a sample of about `seconds`."""
        if (tiling.width, tiling.unroll) not in self.compiled:
            self.run(tiling, 0)
        begun = time.perf_counter()
        return len(self.run(tiling, seconds)) / (time.perf_counter() - begun)


def best_tiling(tiled: Tiled, quick: bool) -> Tiling:
    """Successive elimination: widths and threads first, then unrolling of the best."""
    if quick:
        return Tiling(2, 2, count_visible_cores())
    speeds: dict[Tiling, float] = {}
    for width in widths_for(len(tiled.rates)):
        threads = {1, 2 if on_accelerator() else count_visible_cores()}
        some = [Tiling(width, 1, n) for n in threads if n == 1 or width < len(tiled.rates)]
        speeds |= {tiling: tiled.speed(tiling, 0.1) for tiling in some}
        if max(map(speeds.__getitem__, some)) < 0.5 * max(speeds.values()) and width >= 16:
            break  # wider tiles are slower still
    for tiling in _fastest(speeds, 2):
        speeds |= {t: tiled.speed(t, 0.4) for t in (tiling._replace(unroll=u) for u in UNROLLS)}
    (best,) = _fastest({tiling: tiled.speed(tiling, 1.0) for tiling in _fastest(speeds, 3)}, 1)
    return best


def _fastest(speeds: Mapping[Tiling, float], count: int) -> list[Tiling]:
    return sorted(speeds, key=speeds.__getitem__, reverse=True)[:count]


def tiled_peer(work: Workload, flavour: str, *, quick: bool = False) -> Peer:
    """The best layout of the search."""
    tiled = Tiled(work, flavour)
    tiling = best_tiling(tiled, quick)
    every = np.arange(len(work.rates))
    return Peer("best by hand: tiles, unrolled, threads", flavour, lambda: tiled.run(tiling), every, str(tiling))
