"""The programs of a block, compiled: XLA options, fingerprints, calls."""

import functools
import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from gdkit.environment import read_precision
from gdkit.factories import cache_if_hashable
from gdkit.problems import ProblemLike
from gdkit.sweeps.plan.shapes import count_visible_cores
from gdkit.sweeps.programs import places
from gdkit.sweeps.programs.build import BlockInputs, Carry, Program, keep_unchanged, program_of
from gdkit.sweeps.programs.layout import Layout
from gdkit.sweeps.programs.packing import Packed
from gdkit.sweeps.programs.places import Place
from gdkit.sweeps.request import Recording
from gdkit.tracing.jaxprs import depends_on
from gdkit.types import OptimizerLike, StaticHyperparameters

# XLA options on a CPU, with their measured gains.
# YNNPACK's products and sums take longer (0.9 of the time without, for an MLP), and of jaxlib 0.10.2 some end the
# process by a segmentation fault: networks of several sizes trained side by side in the lanes of a sweep.
COMMON_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# The start runs once per block, and optimizing its random numbers would take a second.
START_OPTIONS = COMMON_OPTIONS | {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# The widest vectors, which XLA leaves out by default: 0.7 of the time for statistics of a scalar, 1.0 for the rest.
# The newer analysis copies less of a loop's carry: 0.84 of the time for a scalar, 0.96 for networks, same bits.
ADVANCE_OPTIONS = COMMON_OPTIONS | {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_copy_insertion_use_region_analysis": True,
}
# Without fusion emitters the program that reads a block out compiles in two thirds of the time and runs as fast.
READ_OPTIONS = COMMON_OPTIONS | {"xla_cpu_use_fusion_emitters": False}
# On NVIDIA the newer analysis copies nothing where windows move up, in place of 31 arrays.
GPU_OPTIONS = {"xla_gpu_copy_insertion_use_region_analysis": True}


compile_seconds: dict[str, float] = {}  # fingerprint -> time that this process took to compile the programs of a block


@cache_if_hashable(maxsize=32)
def jit_program(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters, recording: Recording, layout: Layout
) -> Program:
    """The jitted program of lanes that share `static`; cached in the process where all arguments are hashable."""
    program = program_of(problem, optimizer, dict(static), recording, layout)
    start, advance, finish = map(jax.jit, program[:3])
    evaluate, observe = (None if f is None else jax.jit(f) for f in (program.evaluate, program.observe))
    return Program(start, advance, finish, layout, evaluate=evaluate, observe=observe)


def compile_program(program: Program, inputs: BlockInputs, place: Place) -> Program:
    """The executables for blocks of the shapes of `inputs`; compiled once per program, shapes and place."""
    leaves, treedef = jax.tree.flatten(places.describe(inputs, places.INPUTS, place))
    return _compile_shapes(_divide(program, place), treedef, tuple(leaves), place, read_precision())


def _divide(program: Program, place: Place) -> Program:
    """A jitted program as it runs on a device, or on the devices of a mesh, which divide the points of its blocks."""
    return places.divide(program, place) if isinstance(place, Mesh) and places.divides_lanes(place) else program


@functools.lru_cache(maxsize=64)
def _compile_shapes(
    program: Program, treedef: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], place: Place, precision: Any
) -> Program:
    begin = time.monotonic()
    inputs = jax.tree.unflatten(treedef, shapes)
    traced = program.start.trace(*inputs)
    start, used = traced.lower(), depends_on(traced.jaxpr.jaxpr)
    carry = places.describe(traced.out_info, places.CARRY, place)
    if places.divides_arrays(place):
        program, carry = _keep_division(program, inputs, carry, start, place)
        start = program.start.lower(*inputs)
    step = places.describe(jax.ShapeDtypeStruct((), jnp.int32), places.EVERYWHERE, place)
    advance = program.advance.lower(*inputs, carry, step, step)
    finish = program.finish.lower(*inputs, carry)
    options = [(start, START_OPTIONS), (advance, ADVANCE_OPTIONS), (finish, READ_OPTIONS)]
    if program.evaluate is not None:
        options += [(program.evaluate.lower(*inputs, carry), READ_OPTIONS)]
    if program.observe is not None:
        values = places.describe(options[3][0].out_info, places.OUTPUT, place)
        options += [(program.observe.lower(*inputs, carry, values), READ_OPTIONS)]
    texts = tuple(lowered.as_text() for lowered, _ in options)
    executables = [_find_executable(*each, place) for each in zip(texts, *zip(*options, strict=True), strict=True)]
    fingerprint = _hash_programs(texts, place)
    compile_seconds[fingerprint] = time.monotonic() - begin
    starts_alike = not any(used[: len(inputs[0].traced)])
    start, advance, finish, *along = executables
    evaluate, observe = (*along, None, None)[:2]
    output, evaluated = options[2][0].out_info.unpack(), None if not along else options[3][0].out_info.unpack()
    return Program(
        start, advance, finish, program.layout, fingerprint, carry, output, starts_alike,
        evaluate=evaluate, evaluated=evaluated, observe=observe,
    )  # fmt: skip


def _keep_division(
    program: Program, inputs: BlockInputs, carry: Carry, start: Lowered, place: Place
) -> tuple[Program, Carry]:
    """The shapes of a carry whose devices divide its arrays as the start divides params, and the program to keep it so.

    Arrays of the shape of such params, such as moments of gradients, are divided like them.
    """
    shardings = _find_executable(start.as_text(), start, START_OPTIONS, place).output_shardings
    divide_as = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    placed = jax.tree.map(divide_as, carry, shardings)
    params = [x for x in jax.tree.leaves(placed.lanes.unpack().state.params) if x.sharding]  # scalars are stacked
    divided = {x.shape: x.sharding for x in params if not x.sharding.is_fully_replicated}
    placed = jax.tree.map(lambda x: divide_as(x, divided.get(x.shape, x.sharding)), placed)

    def keep(function: Any, *arguments: Any) -> Any:
        moved = jax.eval_shape(function, *inputs, *arguments)
        keep_sharding = lambda x, like: None if x is None else like.sharding
        divided = jax.tree.map(keep_sharding, moved, placed, is_leaf=lambda x: x is None)
        return jax.jit(function, out_shardings=divided)

    step = jax.ShapeDtypeStruct((), jnp.int32)
    observe = program.observe and keep(program.observe, placed, jax.eval_shape(program.evaluate, *inputs, placed))
    advance = keep(program.advance, placed, step, step)
    return program._replace(start=keep(program.start), advance=advance, observe=observe), placed


def compile_narrower(jitted: Program, program: Program, inputs: BlockInputs, carry: Carry) -> Program:
    """`program`, whose functions are those of `jitted`, with `advance` for a narrower block, compiled once.

    `inputs` and `carry` are those of the narrower block.
    """
    place = places.get_place(program)
    leaves, treedef = jax.tree.flatten(places.describe((*inputs, carry), (*places.INPUTS, places.CARRY), place))
    advance, fingerprint = _compile_advance(_divide(jitted, place), treedef, tuple(leaves), place)
    return program._replace(advance=advance, fingerprint=fingerprint)


@functools.lru_cache(maxsize=64)
def _compile_advance(
    jitted: Program, treedef: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], place: Place
) -> tuple[Compiled, str]:
    step = places.describe(jax.ShapeDtypeStruct((), jnp.int32), places.EVERYWHERE, place)
    lowered = jitted.advance.lower(*jax.tree.unflatten(treedef, shapes), step, step)
    text = lowered.as_text()
    return _find_executable(text, lowered, ADVANCE_OPTIONS, place), _hash_programs((text,), place)


_executables: dict[tuple[Any, ...], Compiled] = {}  # executables of this process, by what they compute
_MOST_EXECUTABLES = 192  # as many as the programs that `_compile_shapes` holds have


def _find_executable(text: str, lowered: Lowered, options: Mapping[str, Any], place: Place) -> Compiled:
    """The executable of a lowered program, shared with equal programs, such as those of a factory defined again.

    Programs with callbacks are compiled again: their text does not say which function they call.
    """
    if "callback" in text:
        return _compile(lowered, place, options)
    digest = hashlib.sha256(text.encode()).digest()
    avals = str(lowered.in_avals)  # includes arguments that the program does not use, which the text omits
    key = digest, avals, lowered.in_tree, lowered.out_tree, tuple(sorted(options.items())), place
    executable = _executables.pop(key, None) or _compile(lowered, place, options)
    _executables[key] = executable  # the most recently used last
    while len(_executables) > _MOST_EXECUTABLES:
        _executables.pop(next(iter(_executables)), None)
    return executable


def _compile(lowered: Lowered, place: Place, options: Mapping[str, Any]) -> Compiled:
    """The executable; options unknown to this version of XLA are omitted."""
    platform = places.get_device(place).platform
    accepted = dict({"cpu": options, "gpu": GPU_OPTIONS, "cuda": GPU_OPTIONS}.get(platform, {}))
    while True:
        try:
            return lowered.compile(compiler_options=accepted or None)
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in accepted if f"No such compile option: '{name}'" in str(error)]
            if not unknown:
                raise
            del accepted[unknown[0]]


def _hash_programs(texts: tuple[str, ...], place: Place) -> str:
    """A hash of lowered programs without source locations, and of what else decides their bits and their speed."""
    options = START_OPTIONS, ADVANCE_OPTIONS, READ_OPTIONS
    versions = jax.__version__, jax.lib.__version__, os.environ.get("XLA_FLAGS", ""), options
    device = places.get_device(place)
    machine = device.platform, device.device_kind, count_visible_cores()
    return hashlib.sha256(repr((texts, machine, versions)).encode()).hexdigest()


def advance_block(program: Program, inputs: BlockInputs, carry: Carry, t0: int, t1: int, steps: int) -> Carry:
    """Advance a carry from step `t0` to `t1`: in one call, or in one call per step where the program has no loop."""
    for end in (t1,) if program.layout.unroll else range(t0 + 1, t1 + 1):
        carry = keep_unchanged(carry, program.advance(*inputs, carry, np.int32(end), np.int32(steps)))
    return carry


def evaluate_along(program: Program, inputs: BlockInputs, carry: Carry) -> tuple[Carry, Packed]:
    """Evaluate a block on validation data, without waiting for it: name -> (seeds, points).

    Also the carry after its monitors have observed the values.
    """
    values = program.evaluate(*inputs, carry)
    if program.observe is not None:
        carry = keep_unchanged(carry, program.observe(*inputs, carry, values))
    return carry, values


def read_block(program: Program, inputs: BlockInputs, carry: Carry) -> dict[str, np.ndarray]:
    """Copy the statistics and evaluations of a block to the host: name -> (seeds, points, ...)."""
    return jax.device_get(program.finish(*inputs, carry)).unpack()
