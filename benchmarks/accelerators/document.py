"""docs/accelerators.md, written from what was counted."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerators.counts import LONGER, MESHES, MODELS, OPTIMIZERS, SHORTER, WAYS, Case, Row, list_cases
from benchmarks.workloads import WORKLOADS
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.kernels import Work

MEASURED = Path(__file__).parents[1] / "results" / "nvidia-h200-16-cores-plain.json"
SLACK = {"scalar": 0.0, "attention": 0.06}  # launches beyond those by hand: of a scalar none, of a transformer a share
MOST_LAUNCHES = 3  # of other models
HEAD = """# Accelerators

What gdkit's programs do per step on accelerators, counted in the programs that XLA compiles for them on a machine that
has none. A program wrote this page from `docs/accelerators.json` (`make accelerators`), and
`gdkit check CONFIG --device NAME` counts the same for a sweep of yours. Nothing here is a measurement, except where it
says so.

- *Kernels* are launched one after the other, copies among them; XLA puts five or more in a row into one *launch*.
- At a *host sync* the host of a GPU waits for a condition that the device computes.
- *Bytes* are those of the arrays that kernels read and write, at most: a part of an array counts as the whole.
- "By hand" is one `jit(vmap(scan))` with optax: *bare* with the final and lowest loss and the end of each run, *all*
  with the statistics of gdkit.
- All lanes of a workload of the [benchmark](performance.md) are one block.
- A TPU runs loops without its host. Its *kernels* are all operations in its schedule, and its *copies* include those
  between its memories, which run beside other operations. Sampling a batch within a step takes many operations on
  single numbers there, which gdkit does at once for the batches of a stride.

gdkit takes eight steps per *stride*, a loop of static length: the host waits once per stride, and what is per stride
(sampling, writing the losses to the curve, the condition) is divided by eight. The inner loop makes two steps per
iteration, since one that reads the previous update of a lane and writes the next one would copy it. The second step
reads what the first one has written: XLA would otherwise recompute params from the moments of an optimizer such as
adam, and copy these. Other copies are those of the counter of a loop, and of zeros to which gradients are added.
"""


def page(found: Mapping[Case, Row], compaction: Mapping[str, Any] | None = None) -> str:
    """The text of the page, from what was counted, and from what `compaction.measure` measured."""
    cases = list(list_cases())
    counted = sum(case in found for case in cases)
    rest = f"Counted: {counted} of {len(cases)} programs; the same command counts the others.\n"
    parts = [
        HEAD,
        *([] if len(found) == len(cases) else [rest]),
        *_differences(found),
        *_shorter(found),
        *_longer(found),
        *_meshes(found),
    ]
    parts += [*(_compaction(compaction) if compaction else []), *_model(found)]
    for device in targets.TARGETS:
        rows = [found[case] for case in found if case.device == device]
        if rows:
            parts += [f"## {targets.TARGETS[device].title}\n", _count_table(rows)]
    return "\n".join(parts)


def _differences(found: Mapping[Case, Row]) -> Iterator[str]:
    """Kernels of gdkit beyond those by hand and bare, against the targets."""
    lines: list[tuple[str, ...]] = []
    for case, row in found.items():
        bare = found.get(case._replace(way=WAYS[-1]))
        if case.way != WAYS[0] or bare is None or case.device in MESHES:
            continue
        if targets.TARGETS[case.device].platform == "tpu":
            continue
        most = SLACK[case.model] * bare.work.kernels if case.model in SLACK else MOST_LAUNCHES
        more = row.work.kernels - bare.work.kernels
        name = f"{WORKLOADS[case.model]().title}, {case.optimizer}"
        counted = (f"{x:.3g}" for x in (bare.work.kernels, row.work.kernels, row.work.carry_copies, more, most))
        lines.append((targets.TARGETS[case.device].title, name, *counted, "yes" if more <= most else "no"))
    yield "## Kernels per step, against those by hand\n"
    head = ("device", "program", "by hand, bare", "gdkit, all statistics")
    yield _table((*head, "copies of the carry", "more", "at most", "holds"), lines)


def _shorter(found: Mapping[Case, Row]) -> Iterator[str]:
    """What iterations of half a stride would save for a scalar, and what they would cost."""
    case = Case("h200", "scalar", "sgd", SHORTER)
    if case not in found or case._replace(way=WAYS[0]) not in found:
        return
    own, shorter = (found[each].work for each in (case._replace(way=WAYS[0]), case))
    yield _fill(
        "All steps of a stride of a scalar are one iteration. XLA divides it into a few kernels, and copies what one "
        f"writes before another has read it: {own.carry_copies:.3g} arrays per step on an H200. With four steps per "
        f"iteration it would be {shorter.carry_copies:.3g}, and {shorter.kernels:.3g} kernels per step in place of "
        f"{own.kernels:.3g}."
    )


def _longer(found: Mapping[Case, Row]) -> Iterator[str]:
    """What strides of twice the length would save."""
    case = Case("h200", "digits_mlp", "sgd", LONGER)
    if case not in found or case._replace(way=WAYS[0]) not in found:
        return
    own, longer = (found[each].work for each in (case._replace(way=WAYS[0]), case))
    times = [f"{1e6 * targets.estimate_seconds(work, targets.TARGETS['h200']):.3g} µs" for work in (own, longer)]
    yield _fill(
        f"Strides of 16 steps would take {longer.kernels:.3g} kernels per step of the digits MLP on an H200 in place "
        f"of {own.kernels:.3g}, and by the model below {times[1]} in place of {times[0]}. But windows of "
        "the statistics are shorter than that in the first 64 steps, which would all be single ones, as would up to 15 "
        "at the end of a run; with strides of eight these are 32 and 7."
    )


def _meshes(found: Mapping[Case, Row]) -> Iterator[str]:
    """Lanes of a block that are divided among devices."""
    lines = []
    for device, (one, _) in MESHES.items():
        case = Case(device, "digits_mlp", "sgd", WAYS[0])
        pair = [found[each] for each in (case._replace(device=one), case) if each in found]
        if len(pair) == 2:
            counts = (f"{row.work.kernels:.3g}" for row in pair)
            sizes = (f"{row.memory / 1e6:.3g}" for row in pair)
            lines.append((device, WORKLOADS[case.model]().title, *counts, *sizes, f"{pair[1].collectives}"))
    if not lines:
        return
    yield "## One block on several devices\n"
    yield _fill(
        "With `Plan(mesh=True)` one program advances a block on all devices, which divide its points among them. No "
        "lane depends on others: each device goes through its own loops, and they agree on the step once per call."
    )
    head = ("devices", "program", "kernels per step on one", "on each", "MB of memory on one", "on each")
    yield _table((*head, "collectives in the loops"), lines)


def _compaction(found: Mapping[str, Any]) -> Iterator[str]:
    """Half of an axis diverges early."""
    ratios = found["ratios"]
    yield "## Half of the axis diverges early\n"
    shares = [f"{ratios[way]:.2f}" for way in ("compacted", "not compacted")]
    yield _fill(
        f"Processor time, measured on a CPU in the layout of accelerators: one block of {found['lanes']} learning "
        f"rates and {found['steps']} steps, of which the upper half diverges in the first steps. It takes {shares[0]} "
        f"of the time of an axis where nothing diverges (the target is at most 0.65), and {shares[1]} without "
        "compaction. A program of half the width is compiled first, where the steps that are left save more time than "
        "that takes. A device that is not busy with half of the lanes takes as long for them; gdkit then leaves the "
        "block as it is."
    )


def _model(found: Mapping[Case, Row]) -> Iterator[str]:
    """The time model, against steps measured on an H200."""
    yield "## Time per step of an H200: the model, and what was measured\n"
    yield _fill(
        "The model adds a time per kernel, per launch and per host sync, and is at least what moving the bytes takes. "
        "Its three numbers come from steps measured on an H200: the two bare rows, and single steps of gdkit as it was "
        "then. The rows below were measured there, by hand, with the versions that [the benchmark](performance.md) "
        "names. Of a condition the longer branch is counted: by hand with all statistics it moves the windows of "
        "the statistics up, which few steps do, so that the model is too high there."
    )
    lines = []
    for case, seconds in _measured_steps():
        if case in found:
            model = targets.estimate_seconds(found[case].work, targets.TARGETS["h200"])
            shown = (f"{1e6 * x:.3g} µs" for x in (model, seconds))
            lines.append((WORKLOADS[case.model]().title, case.way, *shown, f"{model / seconds:.2f}"))
    yield _table(("program, sgd", "way", "model", "measured", "ratio"), lines)
    errors = [abs(np.log(float(line[-1]))) for line in lines]
    if errors:
        median, worst = (f"{np.exp(error):.2f}" for error in (np.median(errors), max(errors)))
        yield f"The median ratio is off by a factor of {median}, the worst by {worst}.\n"


def _measured_steps() -> Iterator[tuple[Case, float]]:
    parts = json.loads(MEASURED.read_text(encoding="utf-8"))["parts"]
    for model in MODELS:
        for peer in parts[model]["result"]["peers"] if model in parts else []:
            if peer["title"] == "jit(vmap(scan))":
                steps = parts[model]["result"]["steps"]
                yield Case("h200", model, "sgd", f"by hand, {peer['flavour']}"), peer["seconds"] / steps


def _count_table(rows: Sequence[Row]) -> str:
    order = sorted(rows, key=lambda row: (MODELS.index(row.case.model), OPTIMIZERS.index(row.case.optimizer)))
    head = ("program", "way", "kernels", "copies", "launches", "host syncs", "KB per step", "KB per lane", "time")
    return _table((*head, "CPU time of compiling"), map(_describe, order))


def _describe(row: Row) -> tuple[str, ...]:
    work: Work = row.work
    target = targets.TARGETS[row.case.device]
    seconds = targets.estimate_seconds(work, target)
    time = f"{'≥ ' if target.platform == 'tpu' else ''}{1e6 * seconds:.3g} µs"
    counts = [f"{x:.3g}" for x in (work.kernels, work.copies, work.launches, work.syncs)]
    counts[2:] = ("–", "–") if target.platform == "tpu" else counts[2:]
    sizes = (f"{work.bytes / 1e3:,.0f}", f"{row.memory / row.lanes / 1e3:,.1f}")
    name = f"{WORKLOADS[row.case.model]().title}, {row.case.optimizer}"
    return (name, row.case.way, *counts, *sizes, time, f"{row.compile_seconds:.0f} s")


def _fill(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    align = "|".join("---" if column < 2 else "---:" for column in range(len(head)))
    lines = [" | ".join(head), align, *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if line is not align else f"|{line}|" for line in lines) + "\n"
