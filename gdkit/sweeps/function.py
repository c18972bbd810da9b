"""sweep_function: a sweep over a pure function that trains and returns what it measured."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled

from gdkit import checks, user_code
from gdkit.binding import traced_dtype
from gdkit.errors import bad_type
from gdkit.factories import cache_if_hashable
from gdkit.sweeps.axes import Group, group_points, parse_free_axes
from gdkit.sweeps.description import describe_origin
from gdkit.sweeps.plan.shapes import Plan, count_workers
from gdkit.sweeps.result.arrays import Judging, arrange_lanes, check_lengths, check_value_names, choose_score
from gdkit.sweeps.result.result import SweepResult
from gdkit.types import Array, Hyperparameters, Key, StaticHyperparameters

Train = Callable[[Hyperparameters, Key], Mapping[str, Array]]


def sweep_function(
    train: Train,
    axes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    seeds: int = 1,
    key: int | Key = 0,
    by: str | None = None,
    maximize: bool | Sequence[str] = False,
    optimum: float | None = None,
    stochastic: bool = False,
    diverged_above: float = 1e6,
    curve_points: int = 200,
    plan: Plan | None = None,
) -> SweepResult:
    """Run a pure function at every point of a grid for every seed side by side, and compare what it returns.

    Use it where a run is more than steps of one loss: training loops of one's own, alternating updates, simulations.
    Each run is one call, so that it cannot be extended, interrupted or stored in parts; `sweep` can do that.

    Args:
      train: ``(hyperparameters, key) -> {name: value}``, traceable by JAX. `hyperparameters` has the value of every
        axis by name. A value is a scalar, or a curve (steps + 1,), which is recorded as ``curve_NAME`` with its last
        value as ``NAME``. ``loss`` is the training loss: of its curve regimes are judged as `classify_curve` does.
        Without it only divergence is known, of a run whose `by` is not finite.
      axes: as in `sweep`. Floats and learning rates are lanes of one program. All other values, integers too, are
        static, with one program per combination; `gdkit.lanes` makes integers lanes. ``optimizer`` holds labels, or
        maps them to what `train` gets.
      seeds: runs per point; seed s gets the key ``jax.random.fold_in(key, s)`` at every point.
      key: the root of all seeds.
      by, maximize, optimum, stochastic, diverged_above, curve_points: as in `SweepResult.from_arrays`.
      plan: `width` is the number of lanes per block, by default 8 on a CPU, and `workers` the number of threads. The
        curves of all runs are in memory at once.

    Returns:
      A SweepResult; see `SweepResult.best`, `SweepResult.recommend`, `SweepResult.edge` and `SweepResult.regimes`.

    Raises:
      GdkitError: an argument cannot be used, or `train` returns no mapping of scalars and curves of equal length.

    >>> def train(hyperparameters, key):
    ...     step = lambda x, _: (x - hyperparameters["learning_rate"] * 2 * x, x**2)
    ...     return {"loss": jax.lax.scan(step, jax.random.normal(key), length=100)[1]}
    >>> result = sweep_function(train, {"learning_rate": [0.01, 0.3, 1.2]}, seeds=3, optimum=0.0)
    >>> result.best().hyperparameters, result.recommend().unsafe
    ({'learning_rate': 0.3}, 1.2)
    """
    checks.check_integer("seeds", seeds)
    if not callable(train):
        raise bad_type("train", train, "not a function", "Pass train(hyperparameters, key) -> {name: value}")
    begin, plan, root, sections = time.monotonic(), plan or Plan(), checks.as_key(key), parse_free_axes(axes)
    offsets = np.cumsum([0, *(section.point_count for section in sections)])
    groups = [(g, offset) for s, offset in zip(sections, offsets[:-1], strict=True) for g in group_points(s)]
    names = [axis.name for section in sections for dimension in section.dimensions for axis in dimension.axes]
    for group, _ in groups:  # all of them are checked before the first one runs
        choose_score(_check_outputs(train, group, root, names), by)
    keys = jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.arange(seeds))
    workers, values = count_workers(plan, 1), {}
    with ThreadPoolExecutor(workers, thread_name_prefix="gdkit") as pool:
        for lanes, outputs in pool.map(_run_block, _cut_blocks(train, groups, keys, plan)):
            for name, output in outputs.items():
                values.setdefault(name, np.full((offsets[-1] * seeds, *output.shape[1:]), np.nan))[lanes] = output
    judging = Judging(by, maximize, optimum, stochastic, diverged_above, curve_points)
    settings = describe_origin(root, {"width": plan.width or _default_width(), "workers": workers, "chosen": "rule"})
    timings = {"seconds": time.monotonic() - begin}
    return SweepResult(*arrange_lanes(sections, seeds, values, judging, settings, timings))


class _TrainBlock(NamedTuple):
    """Lanes that one call trains."""

    program: Compiled
    lanes: np.ndarray  # (lanes,) int, their numbers in the result
    traced: dict[str, Array]  # name -> (width,), of which the first are those of the lanes
    keys: Key  # (width,)


def _run_block(block: _TrainBlock) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The numbers of the lanes, and their values by name."""
    outputs = block.program(block.traced, block.keys)
    return block.lanes, {name: np.asarray(value)[: len(block.lanes)] for name, value in outputs.items()}


def _cut_blocks(train: Train, groups: Sequence[tuple[Group, int]], keys: Key, plan: Plan) -> Iterator[_TrainBlock]:
    """The blocks of all groups, seeds innermost; the last lane of a group fills its last block."""
    for group, offset in groups:
        points, seeds = np.indices((len(group.points), len(keys))).reshape(2, -1)
        lanes = (offset + group.points[points]) * len(keys) + seeds
        width = min(plan.width or _default_width(), len(lanes))
        program = _compile(
            train, tuple(sorted(group.static.items())), tuple(group.traced), width, keys.dtype, traced_dtype()
        )
        for first in range(0, len(lanes), width):
            rows = np.minimum(np.arange(first, first + width), len(lanes) - 1)
            traced = {name: jnp.asarray(values[points[rows]], traced_dtype()) for name, values in group.traced.items()}
            yield _TrainBlock(program, lanes[first : first + width], traced, keys[seeds[rows]])


@cache_if_hashable(maxsize=32)
def _compile(
    train: Train, static: StaticHyperparameters, traced: tuple[str, ...], width: int, key: Any, wide: Any
) -> Compiled:
    """The program of `width` lanes that share their static values; `key` and `wide` are dtypes of keys and floats."""
    struct = functools.partial(jax.ShapeDtypeStruct, (width,))
    lanes = jax.vmap(lambda traced, key: dict(train(dict(static) | traced, key)))
    return jax.jit(lanes).lower({name: struct(wide) for name in traced}, struct(key)).compile()


def _check_outputs(train: Train, group: Group, key: Key, axes: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """What `train` returns; it must be a mapping of scalars and curves under names that a result can hold."""
    traced = {name: jax.ShapeDtypeStruct((), traced_dtype()) for name in group.traced}
    mapping: list[object] = []  # JAX only returns pytrees, which a mistaken output need not be

    def call(traced: dict[str, Array], key: Key) -> dict[str, Array]:
        mapping.append(train(group.static | traced, key))
        return {str(name): jnp.asarray(x) for name, x in mapping[0].items()} if isinstance(mapping[0], Mapping) else {}

    with user_code.translate_errors("train", train):
        values = jax.eval_shape(call, traced, key)
    remedy = "Return {name: value}, each value a scalar or a curve (steps + 1,)"
    if not isinstance(mapping[0], Mapping) or not values:
        raise bad_type("train", train, f"it returns {type(mapping[0]).__name__}, not a mapping with values", remedy)
    check_value_names("train", mapping[0], axes)
    for name, value in values.items():
        if value.ndim > 1 or jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise bad_type("train", train, f"{name!r} is {value.dtype} of shape {value.shape}", remedy)
    check_lengths("train", {name: value.shape[0] for name, value in values.items() if value.ndim})
    return values


def _default_width() -> int:
    """Lanes per block: on a CPU few, so that they stay in the caches of a core, and all cores have a block."""
    return 8 if jax.default_backend() == "cpu" else 1024
