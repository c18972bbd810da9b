"""The programs of a block, compiled: XLA options, fingerprints, calls."""

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.jaxprs import depends_on
from gdkit.sweeps.plan.shapes import count_visible_cores
from gdkit.sweeps.programs.build import Carry, Inputs, Program, Shared, program_of
from gdkit.sweeps.request import Recording


def jit_program(problem: Any, factory: Any, static: Mapping[str, Any], watching: Recording, unroll: int) -> Program:
    """`program_of` as JAX traces it when it is called; remembered, unless something static cannot be hashed."""
    try:
        return _jitted(problem, factory, tuple(sorted(static.items())), watching, unroll)
    except TypeError:
        return _jit(program_of(problem, factory, dict(static), watching, unroll))


@functools.lru_cache(maxsize=32)
def _jitted(problem: Any, factory: Any, static: tuple, watching: Recording, unroll: int) -> Program:
    return _jit(program_of(problem, factory, dict(static), watching, unroll))


def _jit(program: Program) -> Program:
    start, advance, finish = map(jax.jit, program[:3])
    return Program(start, advance, finish, loops=program.loops)


def compile_program(program: Program, inputs: tuple[Inputs, Shared], device: Any) -> Program:
    """The program's executables for blocks of inputs like these; compiled once a program, shape and device."""
    leaves, treedef = jax.tree.flatten(inputs)
    on = jax.sharding.SingleDeviceSharding(device)
    return _compiled(program, treedef, tuple(_shape(x, on) for x in leaves))


@functools.lru_cache(maxsize=64)
def _compiled(program: Program, treedef: Any, shapes: tuple[Any, ...]) -> Program:
    inputs, on = jax.tree.unflatten(treedef, shapes), shapes[0].sharding
    traced = program.start.trace(*inputs)
    start, used = traced.lower(), depends_on(traced.jaxpr.jaxpr)
    carry = jax.tree.map(lambda x: _shape(x, on), traced.out_info)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=on)
    advance = program.advance.lower(*inputs, carry, step, step)
    finish = program.finish.lower(*inputs, carry)
    texts = tuple(lowered.as_text() for lowered in (start, advance, finish))
    options = (start, START_OPTIONS), (advance, ADVANCE_OPTIONS), (finish, READ_OPTIONS)
    made = [_compile(lowered, on, own) for lowered, own in options]
    alike = not any(used[: len(inputs[0].traced)])
    return Program(*made, _fingerprint(texts, on), carry, finish.out_info.tree(), program.loops, alike)


# On a CPU. The start runs once a block, and its random numbers would take a second to optimise; statistics of a scalar
# take 0.7 of the time by the widest vectors, which XLA leaves out by default, and other programs as long as without.
# The newer analysis copies less of what a loop carries: 0.84 of the time for a scalar, 0.96 for networks, same bits.
# What reads a block out compiles in two thirds of the time without fusion emitters, and runs as fast.
START_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
ADVANCE_OPTIONS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_copy_insertion_use_region_analysis": True}
READ_OPTIONS = {"xla_cpu_use_fusion_emitters": False}


def _compile(lowered: Any, on: Any, options: Mapping[str, Any]) -> Any:
    """The executable; options that this version of XLA does not know are left out."""
    (device,) = on.device_set
    known = dict(options) if device.platform == "cpu" else {}
    while True:
        try:
            return lowered.compile(compiler_options=known or None)
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in known if f"No such compile option: '{name}'" in str(error)]
            if not unknown:
                raise
            del known[unknown[0]]


def _fingerprint(program: tuple[str, ...], on: Any) -> str:
    """A hash of lowered programs, without locations, and of all else that decides what they compute and how fast."""
    (device,) = on.device_set
    versions = (
        jax.__version__,
        jax.lib.__version__,
        os.environ.get("XLA_FLAGS", ""),
        (START_OPTIONS, ADVANCE_OPTIONS, READ_OPTIONS),
    )
    where = device.platform, device.device_kind, count_visible_cores()
    return hashlib.sha256(repr((program, where, versions)).encode()).hexdigest()


def _shape(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def advance_block(program: Program, inputs: tuple[Inputs, Shared], carry: Carry, t0: int, t1: int, steps: int) -> Carry:
    """The carry of step `t0` advanced to `t1`: by one call, or by one a step where the program has no loop."""
    for end in (t1,) if program.loops else range(t0 + 1, t1 + 1):
        carry = program.advance(*inputs, carry, np.int32(end), np.int32(steps))
    return carry


def read_block(program: Program, inputs: tuple[Inputs, Shared], carry: Carry) -> dict[str, np.ndarray]:
    """What lanes read in the end, on the host: name -> (seeds, points, ...)."""
    return jax.device_get(program.finish(*inputs, carry)).tree()
