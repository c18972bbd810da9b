"""Where a program runs: on a device, or on all devices of a mesh.

They divide the points of a block among them, on a mesh of the axis `LANES`; or the arrays of one lane, on the mesh that
the user's loss names in its sharding annotations.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from gdkit.sweeps.plan.shapes import LANES, Place
from gdkit.sweeps.programs.build import Carry, Inputs, Program, Shared
from gdkit.types import Array, PyTree

# How a mesh divides the arguments and results of a program; P() is an array that every device has.
EVERYWHERE = P()
INPUTS = Inputs._make((P(LANES), P(LANES), EVERYWHERE)), EVERYWHERE  # of a block, and shared
CARRY = Carry(EVERYWHERE, P(None, LANES), P(None, None, LANES), EVERYWHERE, EVERYWHERE)
OUTPUT = P(None, LANES)


def get_device(place: Place) -> jax.Device:
    """The device, or the first of a mesh."""
    return place.devices.flat[0] if isinstance(place, Mesh) else place


def count_devices(place: Place) -> int:
    """The number of devices of a mesh; 1 for a device."""
    return place.size if isinstance(place, Mesh) else 1


def divides_lanes(place: Place) -> bool:
    """Whether the devices of a mesh divide the points of a block among them."""
    return isinstance(place, Mesh) and LANES in place.axis_names


def divides_arrays(place: Place) -> bool:
    """Whether the devices of a mesh divide the arrays of a lane among them, as the loss says."""
    return isinstance(place, Mesh) and not divides_lanes(place)


def get_sharding(place: Place, spec: P = EVERYWHERE) -> Sharding:
    """How an array is placed: on the device, or on the mesh as `spec` says."""
    if isinstance(place, Mesh):
        return NamedSharding(place, spec if divides_lanes(place) else EVERYWHERE)
    return SingleDeviceSharding(place)


def get_place(program: Program) -> Place:
    """The device or the mesh for which a program is compiled."""
    sharding = program.carry.curve.sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else next(iter(sharding.device_set))


def put(tree: PyTree, place: Place, specs: PyTree = EVERYWHERE) -> PyTree:
    """The arrays of a tree on the device, or on the devices of a mesh as `specs` say, a prefix of the tree."""
    place_by = functools.partial(get_sharding, place)
    return jax.device_put(tree, jax.tree.map(place_by, specs, is_leaf=lambda x: isinstance(x, P)))


def describe(tree: PyTree, specs: PyTree, place: Place) -> PyTree:
    """The shapes of a tree as placed; `specs` is a prefix of it."""
    shape = lambda spec, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=get_sharding(place, spec))
    of_part = lambda spec, part: jax.tree.map(functools.partial(shape, spec), part)
    return jax.tree.map(of_part, specs, tree, is_leaf=lambda x: isinstance(x, P))


def fit_place(place: Place, points: int) -> Place:
    """`place`, or as many devices of a mesh as divide the points of a block."""
    if not isinstance(place, Mesh) or not divides_lanes(place):
        return place
    most = next(count for count in range(place.size, 0, -1) if points % count == 0)
    return Mesh(place.devices[:most], place.axis_names)


@functools.lru_cache(maxsize=32)
def divide(program: Program, mesh: Mesh) -> Program:
    """The functions of a program for blocks whose points are divided among the devices of a mesh.

    No lane depends on others, so each device goes through its own steps; at the end of a call they agree on the step.
    """
    arguments = (*INPUTS, CARRY)

    def spread(function: Callable[..., Any], inputs: PyTree, outputs: PyTree) -> Any:
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False))

    def start(inputs: Inputs, shared: Shared) -> Carry:
        return _agree(program.start(inputs, shared))

    def advance(inputs: Inputs, shared: Shared, carry: Carry, t1: Array, steps: Array) -> Carry:
        return _agree(program.advance(inputs, shared, carry, t1, steps))

    return program._replace(
        start=spread(start, INPUTS, CARRY),
        advance=spread(advance, (*arguments, EVERYWHERE, EVERYWHERE), CARRY),
        finish=spread(program.finish, arguments, OUTPUT),
        evaluate=program.evaluate and spread(program.evaluate, arguments, OUTPUT),
        observe=program.observe and spread(program.observe, (*arguments, OUTPUT), CARRY),
    )


def _agree(carry: Carry) -> Carry:
    """The carry with the step of the device whose lanes ran longest, and whether a lane of any device is running."""
    going = jax.lax.pmax(carry.going.astype(jnp.int32), LANES) > 0
    return carry._replace(t=jax.lax.pmax(carry.t, LANES), going=going)
