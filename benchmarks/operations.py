"""Time of each kind of operation in a step, from XLA's profiler: gdkit's steps, and the same written by hand."""

import collections
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gdkit
from benchmarks import timing
from benchmarks.peers import LANES, start_of
from benchmarks.workloads import Workload
from gdkit import monitors
from gdkit.monitors import Monitor
from gdkit.sweeps.plan.shapes import Shape, count_visible_cores
from gdkit.sweeps.programs.build import program_of
from gdkit.sweeps.programs.compile import ADVANCE_OPTIONS
from gdkit.sweeps.programs.job import Job, get_block_inputs
from gdkit.sweeps.programs.layout import Layout
from gdkit.sweeps.request import Recording

KINDS = ("products", "sums", "elementwise", "copies", "random numbers", "between operations")


def operations(work: Workload, job: Job, shape: Shape, points: int) -> dict[str, dict[str, float]]:
    """Microseconds per step of a block by kind of operation, for each implementation, with all cores busy."""
    ways = {
        "gdkit": _advance(work, job, shape, monitors.DEFAULT, points),
        "gdkit, nothing observed": _advance(work, job, shape, (), 0),
        "by hand, all statistics": _by_hand(work, shape, "all"),
        "by hand, bare": _by_hand(work, shape, "bare"),
    }
    return {name: _by_kind(run, text, work.steps) for name, (run, text) in ways.items()}


def _advance(
    work: Workload, job: Job, shape: Shape, watched: tuple[Monitor, ...], points: int
) -> tuple[Callable[[], Any], str]:
    curve = tuple(int(t) for t in monitors.curve_steps(points)) if points else ()
    watching = Recording(watched, curve)
    program = program_of(work.problem, gdkit.sgd, {}, watching, Layout(unroll=shape.unroll, chunk=shape.chunk))
    inputs, last = get_block_inputs(job, job.blocks[0]), np.int32(work.steps)
    carry = jax.jit(program.start)(*inputs)
    compiled = _compile(jax.jit(program.advance).lower(*inputs, carry, last, last), ADVANCE_OPTIONS)
    return lambda: compiled(*inputs, carry, last, last), compiled.as_text()


def _by_hand(work: Workload, shape: Shape, flavour: str) -> tuple[Callable[[], Any], str]:
    given = work.rates[: shape.width], start_of(work)
    compiled = _compile(jax.jit(jax.vmap(LANES[flavour](work, shape.unroll), in_axes=(0, None))).lower(*given), {})
    return lambda: compiled(*given), compiled.as_text()


def _compile(lowered: Any, options: Mapping[str, Any]) -> Any:
    """The executable with all its operations visible to the profiler."""
    return lowered.compile(compiler_options={**options, "xla_cpu_enable_xprof_traceme": True})


def _by_kind(run: Callable[[], Any], text: str, steps: int) -> dict[str, float]:
    """Microseconds per step, one block per core, without the time of the profiler between operations."""
    kinds, spent, cores = kinds_of(text), dict.fromkeys(KINDS, 0.0), count_visible_cores()
    blocks = lambda: side_by_side(lambda _: run(), range(cores))
    blocks()
    whole = np.median([timing.seconds(blocks) for _ in range(5)]) * 1e6
    for name, microseconds in _profile(blocks).items():
        if name in kinds:
            spent[kinds[name]] += microseconds / cores
    spent["between operations"] = max(float(whole) - sum(spent.values()), 0.0)
    return {kind: taken / steps for kind, taken in spent.items()}


def side_by_side(run: Callable[[Any], Any], given: Sequence[Any]) -> None:
    """Run it for each argument in its own thread."""
    with ThreadPoolExecutor(len(given)) as pool:
        list(pool.map(lambda each: jax.block_until_ready(run(each)), given))


def _profile(run: Callable[[], Any]) -> dict[str, float]:
    """Microseconds of each operation by its name in the compiled program."""
    options, spent = jax.profiler.ProfileOptions(), collections.defaultdict(float)
    options.host_tracer_level, options.python_tracer_level = 3, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    spent[event.name] += event.duration_ns / 1e3
    return spent


def kinds_of(text: str) -> dict[str, str]:
    """Kind of each operation of a compiled program, by name; loops and branches count as their contents.

    >>> kinds_of('''
    ... %summed (p: f32[8]) -> f32[] {
    ...   ROOT %r = f32[] reduce(%p, %z), dimensions={0}, to_apply=%add
    ... }
    ... ENTRY %main (x: f32[8]) -> f32[] {
    ...   %c = f32[8]{0} copy(%x)
    ...   ROOT %f = f32[] fusion(%c), kind=kLoop, calls=%summed
    ... }''')["f"]
    'sums'
    """
    inside: dict[str, set[str]] = {}
    lines: list[tuple[str, str, str]] = []  # name, opcode, the computation that it calls
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            operations = inside.setdefault(head[1], set())
        elif found := _OPERATION.match(line):
            name, opcode = found.groups()
            called = _CALLED.search(line)
            operations.add(opcode)
            lines.append((name, opcode, called[1] if called else ""))
    return {name: _kind(opcode, inside.get(called, set())) for name, opcode, called in lines if opcode not in _OPEN}


_COMPUTATION = re.compile(r"(?:ENTRY )?%([\w.\-]+) .*\{$")
_OPERATION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(")
_CALLED = re.compile(r"(?:calls|to_apply)=%([\w.\-]+)")
_OPEN = {"while", "conditional", "parameter", "tuple", "get-tuple-element", "constant", "bitcast"}


def _kind(opcode: str, inside: set[str]) -> str:
    if opcode in ("copy", "call"):
        return {"copy": "copies", "call": "random numbers"}[opcode]
    found = {opcode} | (inside if opcode == "fusion" else set())
    if "dot" in found or "convolution" in found:
        return "products"
    return "sums" if found & {"reduce", "reduce-window"} else "elementwise"
