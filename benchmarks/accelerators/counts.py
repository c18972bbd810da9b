"""Programs of gdkit and by hand, compiled for accelerators that are not there, and counted."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import BOUND, Start, start_of, watched_lane
from benchmarks.workloads import Workload, make
from gdkit import sgd
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.groups import compile_absent, trace_groups
from gdkit.sweeps.programs.kernels import Work, count_per_step, count_scan
from gdkit.sweeps.request import check_request
from gdkit.types import Array, Params, PyTree

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


def list_cases() -> Iterator[Case]:
    """All programs: for the H200, of whose steps some were measured, all models and ways; else those to compare."""
    compared = (WAYS[0], WAYS[-1])
    for device in targets.TARGETS:
        is_main = device == "h200"
        for model, optimizer in itertools.product(MODELS, OPTIMIZERS):
            if (model, optimizer) in COMPARED or is_main:
                ways = WAYS if is_main and optimizer == "sgd" else compared
                yield from (Case(device, model, optimizer, way) for way in ways)


def count(case: Case) -> Row:
    """Compile a program and count it; its lanes are those of the workload in one block."""
    work, device = make(case.model), targets.get_device(case.device)
    kind, statistics = case.way.split(", ")
    factory = {"sgd": sgd, "adam": optax.adam}[case.optimizer]
    begin = time.process_time()  # of all threads, which the load of the machine does not change
    if kind == "gdkit":
        request = check_request(
            work.problem, factory, {"learning_rate": work.rates}, steps=work.steps, statistics=statistics
        )
        (group,) = trace_groups(request)
        job = compile_absent(request, group, device)
        compiled, lanes = job.programs[0].advance, job.lanes_per_block
        counted = count_per_step(compiled.as_text(), job.programs[0].layout.stride)
    else:
        lane = hand_lane(work, case.optimizer) if statistics == "bare" else watched_lane(work, optimizer=factory)
        compiled, lanes = _compile_lanes(lane, work, device), len(work.rates)
        counted = count_scan(compiled.as_text(), work.steps)
    seconds = time.process_time() - begin
    analysis: Any = compiled.memory_analysis()
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return Row(case, lanes, counted, sum(getattr(analysis, part) for part in parts), seconds)


def _compile_lanes(lane: Callable[[Array, Start], Any], work: Workload, device: jax.Device) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(device)
    shape = lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)
    given = jax.tree.map(shape, (work.rates, start_of(work)))
    return jax.jit(jax.vmap(lane, in_axes=(0, None))).lower(*given).compile()


def hand_lane(work: Workload, optimizer: str) -> Callable[[Array, Start], dict[str, Array]]:
    """``(rate, start) -> statistics``: a scan with optax, and the bare statistics that a person would write."""
    loss, sample = work.problem.loss, work.problem.sample

    def objective(params: Params, t: Array, start: Start) -> Array:
        if start.data is None:
            return loss(params)
        return loss(params, start.data if sample is None else sample(start.key, t, start.data))

    def run(rate: Array, start: Start) -> dict[str, Array]:
        chosen = getattr(optax, optimizer)(rate)

        def body(carry: tuple[Any, ...], t: Array) -> tuple[tuple[Any, ...], None]:
            params, state, least, first, initial = carry
            value, grad = jax.value_and_grad(objective)(params, t, start)
            initial = jnp.where(t == 0, value, initial)
            fine = value <= initial + BOUND * jnp.maximum(jnp.abs(initial), 1)  # false for NaN
            update, state = chosen.update(grad, state, params)
            first = jnp.where(fine, first, jnp.minimum(first, t))
            return (optax.apply_updates(params, update), state, jnp.minimum(least, value), first, initial), None

        state: PyTree = chosen.init(start.params)
        carry = start.params, state, jnp.float32(jnp.inf), jnp.int32(work.steps), jnp.float32(0)
        (params, _, least, first, _), _ = jax.lax.scan(body, carry, jnp.arange(work.steps))
        return {"final_loss": objective(params, jnp.int32(work.steps), start), "min_loss": least, "end_step": first}

    return run
