"""Kernels, copies, host synchronizations and bytes of a compiled program per step, counted in its scheduled HLO."""

import functools
import math
import re
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|f8\w*|[suf]\d+|c64|c128|token)\[([\d,]*)\]")
_LOOP = re.compile(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_LENGTH = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"to_apply=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{|(?:true|false)_computation=)%?([\w.\-]+)")
_LEAST_OF_A_GRAPH = 5  # fewest kernels in a graph: xla_gpu_graph_min_graph_size
# Bookkeeping of the compiler, which launches nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier"}

_OF_A_COUNT = {"parameter", "constant", "get-tuple-element"}  # in the condition of a loop of static length, on a TPU


class Work(NamedTuple):
    """The work of one step, or of one computation."""

    kernels: float = 0.0  # operations that are launched, copies included
    copies: float = 0.0
    launches: float = 0.0  # by the host, which launches several kernels in a row as one graph
    syncs: float = 0.0  # waits of the host for a condition that is computed on the device
    bytes: float = 0.0  # upper bound on what kernels read and write
    carry_copies: float = 0.0  # copies of arrays of the shape of one that their loop carries, constants left out

    def plus(self, other: "Work", times: float = 1.0) -> "Work":
        """The sum with `other`, done so many times."""
        return Work(*(a + times * b for a, b in zip(self, other, strict=True)))


class XlaOperation(NamedTuple):
    """One operation of a computation."""

    name: str
    shape: str
    kind: str
    rest: str  # operands and attributes


class Counter:
    """The computations of a compiled program.

    >>> text = '''ENTRY %main (x: f32[4]) -> f32[4] {
    ...   %x = f32[4] parameter(0)
    ...   ROOT %y = f32[4] copy(%x)
    ... }'''
    >>> Counter(text).count(Counter(text).entry)
    Work(kernels=1.0, copies=1.0, launches=1.0, syncs=0.0, bytes=32.0, carry_copies=0.0)
    """

    def __init__(self, text: str):
        self.entry, self.computations = "", {}
        own: list[XlaOperation] = []
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                own = self.computations.setdefault(head[2], [])
                self.entry = head[2] if head[1] else self.entry
            elif found := _OPERATION.match(line.strip()):
                own.append(XlaOperation(*found.groups()))
        self.count = functools.cache(self._count)

    def _count(self, computation: str) -> Work:
        """The work of one call of a computation."""
        work, shapes, row, fixed = Work(), {}, 0, set()  # fixed: operations that depend on no argument
        operations = self.computations.get(computation, [])
        carried = _find_carried(operations)
        for op in operations:
            shapes[op.name] = op.shape
            operands = re.findall(r"%([\w.\-]+)", op.rest.split("), ")[0])
            if op.kind != "parameter" and fixed.issuperset(operands):
                fixed.add(op.name)
            if op.kind in _FREE or op.kind.endswith("-done"):
                continue
            if op.kind in ("while", "conditional", "call"):
                work, row = work.plus(Work(launches=_launch(row))), 0
            if op.kind == "while":
                work = work.plus(self.count_loop(op))
            elif op.kind in ("conditional", "call"):
                branches = _BRANCHES.findall(op.rest) or _CALLED.findall(op.rest)
                work = work.plus(max(map(self.count, branches), default=Work()))
            else:
                size = _size(op.shape) + sum(_size(shapes.get(name, "")) for name in operands)
                is_copy = op.kind.startswith("copy")
                of_carry = is_copy and op.name not in fixed and not carried.isdisjoint(_ARRAY.findall(op.shape))
                work = work.plus(Work(1.0, float(is_copy), bytes=size, carry_copies=float(of_carry)))
                row += 1
        return work.plus(Work(launches=_launch(row)))

    def count_loop(self, op: XlaOperation) -> Work:
        """The work of a loop; if its length is unknown, that of one iteration and of waiting for its condition."""
        condition, body = _LOOP.findall(op.rest)[0]
        length = self.find_length(op)
        if length is not None:
            return Work().plus(self.count(body), length)
        return self.count(body).plus(self.count(condition)).plus(Work(syncs=1.0))

    def find_length(self, op: XlaOperation) -> int | None:
        """The iterations of a loop; None where they are not known when it is compiled.

        The compiler of TPUs does not note them: they are then the constant with which the condition compares a count.
        """
        if noted := _LENGTH.search(op.rest):
            return int(noted[1])
        *others, root = self.computations[_LOOP.findall(op.rest)[0][0]]
        constants = [int(other.rest.split(")")[0]) for other in others if other.kind == "constant"]
        is_count = root.kind == "compare" and "direction=LT" in root.rest and len(constants) == 1
        return constants[0] if is_count and {other.kind for other in others} <= _OF_A_COUNT else None

    def find_loops(self, computation: str) -> list[XlaOperation]:
        """The loops of a computation and of those that it calls, in the order in which they run."""
        loops = []
        for op in self.computations[computation]:
            if op.kind == "while":
                loops.append(op)
            elif op.kind == "call":
                loops += [loop for called in _CALLED.findall(op.rest) for loop in self.find_loops(called)]
        return loops


def count_per_step(text: str, steps: int) -> Work:
    """The work per step of a program of lanes whose innermost loop of unknown length makes `steps` steps per iteration.

    Args:
      text: the HLO of the compiled `Program.advance`.
      steps: the stride of its layout, or with a stride of 1 its `unroll`.
    """
    counter = Counter(text)
    # generators of random numbers have loops too, of known length
    find_loops = lambda computation: [op for op in counter.find_loops(computation) if counter.find_length(op) is None]
    windows, *_ = find_loops(counter.entry) or [None]
    if windows is None:  # a program without a loop makes one step per call
        return counter.count(counter.entry).plus(Work(syncs=1.0))
    loops = find_loops(_LOOP.findall(windows.rest)[0][1])
    return Work().plus(counter.count_loop(loops[0]), 1 / steps)


def _find_carried(operations: list[XlaOperation]) -> set[tuple[str, str]]:
    """Types and sizes of the arrays that a loop carries, in its body; none in other computations."""
    carries = (op.shape for op in operations if op.kind == "parameter" and op.shape.startswith("("))
    return {array for shape in carries for array in _ARRAY.findall(shape) if array[1]}  # a number is a count of steps


def _launch(row: int) -> int:
    """Launches of so many kernels in a row: XLA makes a graph of five or more."""
    return 1 if row >= _LEAST_OF_A_GRAPH else row


def _size(shape: str) -> float:
    """Bytes of the arrays of a shape."""
    count = lambda sizes: math.prod(map(int, filter(None, sizes.split(","))))
    return sum(_bytes_of(dtype) * count(sizes) for dtype, sizes in _ARRAY.findall(shape))


def _bytes_of(dtype: str) -> float:
    bits = re.search(r"\d+", dtype.removeprefix("b"))
    return 1.0 if bits is None else max(int(bits[0]) // 8, 1)
