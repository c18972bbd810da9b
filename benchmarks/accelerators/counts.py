"""Programs of gdkit and by hand, compiled for accelerators that this machine need not have, and counted."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.peers import Start, bare_lane, start_of, watched_lane
from benchmarks.workloads import Workload, make
from gdkit import sgd
from gdkit.sweeps.plan.shapes import LANES, Place
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.groups import compile_absent, trace_groups
from gdkit.sweeps.programs.kernels import Counter, Work, count_per_step
from gdkit.sweeps.programs.layout import ON_ACCELERATOR
from gdkit.sweeps.programs.places import get_device
from gdkit.sweeps.request import check_request
from gdkit.types import Array

MODELS = ("scalar", "small_mlp", "digits_mlp", "wide_mlp", "cnn", "attention")
OPTIMIZERS = ("sgd", "adam")
COMPARED = (("scalar", "sgd"), ("digits_mlp", "sgd"), ("digits_mlp", "adam"), ("cnn", "sgd"), ("attention", "adam"))
WAYS = ("gdkit, all", "gdkit, ends", "by hand, all", "by hand, bare")


class Case(NamedTuple):
    """One program: of a model and an optimizer, written in one of the ways, for a device."""

    device: str
    model: str
    optimizer: str
    way: str


class Row(NamedTuple):
    """What was counted in a program."""

    case: Case
    lanes: int
    work: Work
    memory: int  # bytes of the program's arguments, outputs and temporaries
    compile_seconds: float
    collectives: int = 0  # in its loops


MESHES = {"h200 × 8": ("h200", "1x1x8"), "v5e × 4": ("v5e", "v5e:2x2")}  # whose devices share the lanes of a block
LONGER, SHORTER = "gdkit, all, strides of 16", "gdkit, all, four steps per iteration"
VARIANTS = {
    LONGER: ON_ACCELERATOR._replace(unroll=2, stride=16),
    SHORTER: ON_ACCELERATOR._replace(unroll=4),
}


def list_cases() -> Iterator[Case]:
    """All programs: for the H200, of whose steps some were measured, all models and ways; else those to compare."""
    compared = (WAYS[0], WAYS[-1])
    for device in targets.TARGETS:
        is_main = device == "h200"
        for model, optimizer in itertools.product(MODELS, OPTIMIZERS):
            if (model, optimizer) in COMPARED or is_main:
                ways = WAYS if is_main and optimizer == "sgd" else compared
                yield from (Case(device, model, optimizer, way) for way in ways)
    yield Case("h200", "digits_mlp", "sgd", LONGER)
    yield Case("h200", "scalar", "sgd", SHORTER)
    yield from (Case(mesh, "digits_mlp", "sgd", WAYS[0]) for mesh in MESHES)


def count(case: Case) -> Row:
    """Compile a program and count it; its lanes are those of the workload in one block."""
    work, place = make(case.model), _get_place(case.device)
    kind, statistics, *_ = case.way.split(", ")
    factory = {"sgd": sgd, "adam": optax.adam}[case.optimizer]
    begin = time.process_time()  # of all threads, which the load of the machine does not change
    if kind == "gdkit":
        axes = {"learning_rate": work.rates}
        request = check_request(work.problem, factory, axes, steps=work.steps, statistics=statistics)
        (group,) = trace_groups(request)
        job = compile_absent(request, group, place, VARIANTS.get(case.way))
        compiled, lanes = job.programs[0].advance, job.lanes_per_block
        counted = count_per_step(compiled.as_text(), job.programs[0].layout.stride)
    else:
        bare = bare_lane(work, optimizer=getattr(optax, case.optimizer))
        lane = bare if statistics == "bare" else watched_lane(work, optimizer=factory)
        compiled, lanes = _compile_lanes(lane, work, get_device(place)), len(work.rates)
        counter = Counter(compiled.as_text())
        loops = map(counter.count_loop, counter.find_loops(counter.entry))
        counted = Work().plus(max(loops), 1 / work.steps)  # of the scan over the steps
    seconds = time.process_time() - begin
    analysis: Any = compiled.memory_analysis()
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    memory = sum(getattr(analysis, part) for part in parts)
    return Row(case, lanes, counted, memory, seconds, _count_collectives(compiled.as_text()))


def _get_place(device: str) -> Place:
    """The device, or the mesh, of a name."""
    if device not in MESHES:
        return targets.get_device(device)
    return jax.sharding.Mesh(np.array(targets.get_devices(*MESHES[device])), (LANES,))


def _count_collectives(text: str) -> int:
    """Operations in which devices wait for each other, in all loops of a program."""
    counter = Counter(text)
    loops = (own for name, own in counter.computations.items() if name != counter.entry)
    return sum(op.kind.startswith(("all-", "collective-", "reduce-scatter")) for own in loops for op in own)


def _compile_lanes(lane: Callable[[Array, Start], Any], work: Workload, device: jax.Device) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(device)
    shape = lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)
    given = jax.tree.map(shape, (work.rates, start_of(work)))
    return jax.jit(jax.vmap(lane, in_axes=(0, None))).lower(*given).compile()
