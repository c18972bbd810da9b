"""docs/performance.md and its figures, written from stored measurements."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import COMPARED, figures, records
from benchmarks.targets import TARGETS, judge
from gdkit.plots import style

DOCS = Path(__file__).parent.parent / "docs"

INTRO = """# Performance

`make bench` measures and writes this file; no number in it is typed. `python -m benchmarks --help` explains how to run
parts of it.

**How it is measured.** gdkit and its peers run in one process on the same work: the same loss, start, minibatches,
learning rates and steps, in single precision. The learning rates lie below the edge of stability, where runs are not
chaotic, and a peer whose final losses differ from gdkit's by more than a tolerance stops the benchmark. Nothing
compiles during the timing. Runs are interleaved, and each round starts with a different one. A ratio is the median over
rounds of the peer's time over gdkit's in the same round; above 1 the peer is slower than gdkit. gdkit is timed as a
user calls it, from `gdkit.sweep(...)` to the labeled result. Loops over lanes are timed on some lanes and scaled up.

**The same work.** Peers come in two variants. *Bare* (final loss only, in the figure) computes the final loss, the
smallest loss, and the first step that was out of bounds. *All* computes every statistic and the curve of gdkit: in JAX
with gdkit's own lane in a plain scan, in NumPy written by hand. Unless stated otherwise, gdkit computes all of them;
*ends* is gdkit with `statistics="ends"` and no curve: what bare peers compute.

**Real training.** The evaluations themselves are timed by the same program on as many workers, each call after as many
steps: steps and evaluations take the caches from each other, in any loop. Memory is measured with one arena of glibc's
allocator: arenas of single threads retain freed memory, by chance up to a tenth of the peak, in runs of any length.
"""

WHY = """Known reasons for targets that are not met, or only just:

- *MLPs*: with all statistics gdkit's time includes them. *Where the time goes* lists the cost of each, and the time of
  a step by kind of operation: products take the same time for all. Beyond the bare variant, gdkit squares and
  multiplies gradients, copies each for the cosine with the next one, and stops lanes whose loss has left its bounds.
  The bare variant is also the best of a search over widths of blocks and up to four steps per loop iteration.
- *The products alone*: for the gradient of a layer, whose left factor is transposed, XLA uses a slower library than for
  the other products; *Share of the machine* has what they reach by themselves.
- *A scalar with only its ends*: the variant by hand compares each loss with one bound. gdkit compares it with two
  bounds and a target, stops lanes that reach one, and keeps the step and the kind of each end. *Where the time goes*
  has the cost of these, as *ends*, and the time outside the workers, in which 131,072 values are checked and as many
  lanes labeled.
- *A tile*: it makes four calls, for the start, the steps, the last observation, and the readout. *Growth* has the time
  of one call. The rest is communication between threads that share Python's lock, and writing its rows.
- *More than a million lanes* take longer per lane: their results are written to memory that is touched for the first
  time, which a virtual machine requests from its host. The programs themselves are not slower.
- *Two workers on a CPU* take more processor time than one worker on one core for the same steps: XLA has one thread
  pool for all workers, and the cores share memory beyond their own caches.
- *On an accelerator* these are times of an earlier version, whose host waited for the device at every step;
  [Accelerators](accelerators.md) counts what programs launch now.
"""


def write(output: Path | None = None) -> Path:
    """Write the document and its figures to docs/, or to `output`, which then also holds the results."""
    docs, results = (DOCS, records.FOLDER) if output is None else (output, output)
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    texts = [INTRO]
    for number, machine in enumerate(records.read(results)):
        ending = f"_{machine['name']}" if number else ""
        for name, figure in figures.draw(results_of(machine)).items():
            style.save(figure, docs / "figures" / f"{name}{ending}")
        texts += section(machine, ending)
    path = docs / "performance.md"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def results_of(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Part -> its result."""
    return {name: part["result"] for name, part in machine["parts"].items()}


def section(machine: Mapping[str, Any], ending: str) -> Iterable[str]:
    """Section of one machine; `ending` is appended to the names of its figures."""
    about, parts = machine["machine"], results_of(machine)
    beside = "" if about["device"] == "cpu" else f"{about['device']} beside "
    yield f"## {beside}{about['processor']}, {about['cores']} cores (`{machine['name']}.json`)\n"
    yield "\n".join(_provenance(machine)) + "\n"
    yield "### Targets\n"
    verdicts = [judge(target, parts) for target in TARGETS]
    yield _table(("what", "target", "measured", ""), verdicts)
    if any("not met" in verdict[-1] for verdict in verdicts):
        yield WHY
    compared = [name for name in COMPARED if name in parts]
    if compared:
        yield "### Peers\n"
        yield f"![Times of the peers as multiples of gdkit's](figures/performance{ending}.png)\n"
    for name in compared:
        yield from _peers(parts[name])
    if "scaling" in parts:
        yield "### Growth\n"
        yield f"![Time and memory against lanes, steps and params](figures/performance_scaling{ending}.png)\n"
    texts = {"scaling": _scaling, "roofline": _roofline, "profile": _profile, "training": _training}
    for name, text in (texts | {"tuning": _tuning, "answer": _answer}).items():
        if name in parts:
            yield from text(parts[name])


def _provenance(machine: Mapping[str, Any]) -> Iterable[str]:
    about, parts = machine["machine"], machine["parts"].values()
    each = lambda key: " / ".join(dict.fromkeys(str(part[key]) for part in parts))
    loads = [part["load"] for part in parts]
    yield f"- Device: {about['devices']} × {about['device']}; {about['system']}."
    yield f"- Measured on {each('date')}, in {sum(part['seconds'] for part in parts) / 60:.0f} minutes."
    for versions in dict.fromkeys(", ".join(map(" ".join, part["versions"].items())) for part in parts):
        yield f"- Versions: {versions}."
    yield f"- XLA flags of all peers: `{each('xla_flags') or 'none'}`."
    yield f"- Load average at the start of the parts: {min(loads):.1f} to {max(loads):.1f}."
    if any(part["quick"] for part in parts):
        yield "- **Tiny sizes, to check that everything runs: the times are meaningless.**"
    for package, name in {"torch": "PyTorch", "optuna": "Optuna"}.items():
        if not all(package in part["versions"] for part in parts):
            yield f"- {name} was not installed for all parts, which lack its rows."


# --- parts


def _peers(part: Mapping[str, Any]) -> Iterable[str]:
    plan, rows = part["plan"], part["peers"]
    yield f"#### {part['title']}: {part['lanes']:,} learning rates × {part['steps']:,} steps\n"
    head = ("", "statistics", "time", "× gdkit", "spread", "lanes timed", "rounds")
    yield _table(head, map(_peer, rows))
    worst = max(row["difference"] for row in rows)
    workers, chunks = plan["workers"], f" in chunks of {plan['chunk']}" if plan.get("chunk") else ""
    yield f"""\
gdkit ran blocks of {plan["width"]} lanes{chunks} with unroll {plan["unroll"]} ({plan["chosen"]}) on {workers} workers.
Its first call, which checks, plans and compiles, took {_seconds(part["first_call_seconds"])}. Final losses differ from
gdkit's by at most {worst:.1g}; the tolerance is {part["rtol"]:g}.
"""


def _answer(part: Mapping[str, Any]) -> Iterable[str]:
    yield "### From the command to the answer\n"
    names = {
        "steps": "the sweep alone, in memory, in one warm process",
        "answer": "from the start of `gdkit run` to its printed answer; tiles and results are on disk by then",
        "end": "to the end of the command, with figures and report",
        "finished": "the same command on the finished run",
    }
    yield _table(("main job", "time"), [(text, _seconds(part[name])) for name, text in names.items()])
    yield _table(("imports of a process", "time"), [(f"`{n}`", _seconds(t)) for n, t in part["imports"].items()])
    yield """\
Compiled programs come from the cache of an earlier run. Before the first step the command imports JAX, traces and
lowers the program of the first group, and loads it. Tracing those of the other groups, which the manifest needs, keeps
one core busy while another runs blocks. After the last step the command draws figures. `sys` is Python alone.
"""
    if "fresh" in part:
        yield _fresh(part["fresh"])


def _fresh(fresh: Mapping[str, float]) -> str:
    size = f"{fresh['packages']} packages of {fresh['bytes'] / 2**20:.0f} MiB"
    compiling = fresh["first_answer"] - fresh["second_answer"]
    return f"""\
From a fresh clone, `make run` installs {size} in {_seconds(fresh["install"])}, downloads included, and prints its
answer {_seconds(fresh["first_answer"])} later. A second run takes {_seconds(fresh["second_answer"])}: the first one
compiles programs, and Python compiles the packages, for {_seconds(compiling)}.
"""


def _peer(row: Mapping[str, Any]) -> tuple[str, ...]:
    title = row["title"] + (f" ({row['detail']})" if row["detail"] else "")
    times = (_seconds(row["seconds"]), f"{row['ratio']:.3g}", f"±{row['spread']:.0%}")
    return (title, row["flavour"], *times, f"{row['lanes']:,}", str(row["rounds"]))


def _scaling(part: Mapping[str, Any]) -> Iterable[str]:
    lanes, steps, workers, million = part["lanes"], part["steps"], part["workers"], part["million"]
    divergence, repacking, job, sharpness = (part[n] for n in ("divergence", "repacking", "main_job", "sharpness"))
    own = f", and {job['processor_share']:.1%} of its processor time" if "processor_share" in job else ""
    large = [s for n, s in zip(lanes["lanes"], lanes["slopes"], strict=False) if n >= 1000] or lanes["slopes"]
    threads = ", ".join(f"{n}: {_seconds(t)}" for n, t in zip(workers["workers"], workers["seconds"], strict=True))
    yield f"""\
- {lanes["steps"]} steps of a scalar take {_seconds(lanes["a"])} plus {_seconds(lanes["b"])} per lane. From a thousand
  lanes, the slope between sizes is {_seconds(min(large))} to {_seconds(max(large))}.
- {steps["lanes"]:,} lanes of a scalar for {", ".join(f"{n:,}" for n in steps["steps"])} steps: peak memory of the
  process {", ".join(map(_bytes, steps["peak"]))}.
- {million["lanes"]:,} lanes of a scalar with all statistics and no curves: peak memory {_bytes(million["peak"])}, of
  which {_bytes(million["before"])} before the sweep.
- The MLP sweep by workers: {threads}.
- An axis whose upper half diverges within {divergence["latest_end"]} of {divergence["steps"]} steps takes
  {divergence["ratio"]:.2f} of the time of one without divergence.
- In one block of all lanes that is not compacted, that axis takes {repacking["half"]:.2f} of the time, since the block
  runs until its last lane ends. Half of the lanes alone take {repacking["repacked"]:.2f}: the best that moving the
  remaining lanes into a block of half the width could reach on this device.
- A tile of one lane and one step costs {_seconds(part["dispatch"]["seconds_a_tile"])}; one call of its program
  without steps {_seconds(part["dispatch"]["seconds_a_call"])}.
- Progress and store cost {job["share"]:.1%} of the main job (configs/digits_mlp.yaml with {job["steps"]} steps){own}.
- The sharpness of {sharpness["params"]:,} params takes {sharpness["ratio"]:.2f} of the time of its
  {sharpness["products"]} Hessian-vector products.
- `gdkit --help` takes {_seconds(part["help"]["seconds"])}.
"""


def _roofline(part: Mapping[str, Any]) -> Iterable[str]:
    yield "### Share of the machine\n"
    peaks = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in part["matmul"].items())
    yield (
        f"Best single-precision matmul of any size, in GFLOP/s: {peaks}. Memory: {part['bandwidth'] / 1e9:.0f} GB/s. "
        "The matmuls of a step count 6 · rows · Σ nᵢnᵢ₊₁ operations, without the gradient of the first layer's inputs. "
        "The products alone are these matmuls in blocks of the same width, without other operations.\n"
    )
    reached = part["reached"].values()
    alone = lambda row: f"{row['share'] / row['products_share']:.0%}" if "products_share" in row else ""
    rows = [(row["title"], f"{row['speed'] / 1e9:.1f}", f"{row['share']:.0%}", alone(row)) for row in reached]
    yield _table(("sweep", "GFLOP/s", "of the best matmul", "its products alone"), rows)


def _profile(part: Mapping[str, Any]) -> Iterable[str]:
    titles, found = [row["title"] for row in part.values()], list(part.values())
    yield "### Where the time goes\n"
    yield "Stages of a warm sweep, mean per worker; the rest is outside the workers.\n"
    staged = [(row["title"], flavour, stages) for row in found for flavour, stages in row["stages"].items()]
    share = lambda stages: [f"{t / sum(stages.values()):.1%}" for t in stages.values()]
    rows = [(title, flavour, _seconds(sum(stages.values())), *share(stages)) for title, flavour, stages in staged]
    yield _table(("sweep", "statistics", "time", *staged[0][-1]), rows)
    yield "Time of all steps of one block per worker by what is observed, as a multiple of the updates alone.\n"
    costs = lambda way: [f"{row['advance'][way] / row['advance']['updates alone']:.2f}" for row in found]
    yield _table(("observed", *titles), [(way, *costs(way)) for way in found[0]["advance"]])
    yield from _operations([row for row in found if "operations" in row])
    yield "Before the first step of a cold sweep:\n"
    rows = [(row["title"], *map(_seconds, row["first"].values())) for row in found]
    yield _table(("sweep", *found[0]["first"]), rows)


def _operations(found: list[Mapping[str, Any]]) -> Iterable[str]:
    if found:
        yield (
            "Microseconds of one step of one block, one block per core, by kind of operation in XLA's profiler. "
            "Sums are over params, classes and batches; every row has blocks of gdkit's shape.\n"
        )
    for row in found:
        ways = row["operations"]
        spent = [(way, *(f"{x:.0f}" for x in (*kinds.values(), sum(kinds.values())))) for way, kinds in ways.items()]
        yield _table((row["title"], *next(iter(ways.values())), "all"), spent)


def _training(part: Mapping[str, Any]) -> Iterable[str]:
    batches, waiting, evaluation, states, memory = part.values()
    peaks = [
        f"{_bytes(memory['peaks'][name])} for {steps:,} steps over {rows:,} rows"
        for name, (steps, rows) in memory["sizes"].items()
    ]
    yield "### A real training run\n"
    yield f"""\
MLP 64-64-64-10, batch 128, Adam, 16 learning rates.

- Batches from the host: {batches["blocks"]} blocks per seed read {batches["ratio"]:.3f} batches per seed and step.
- A sweep over a memory map takes {waiting["share"]:+.1%} longer than over one batch that is in memory. A batch takes
  {_seconds(waiting["batch_seconds"])} to read, a step of all learning rates {_seconds(waiting["step_seconds"])}.
- Evaluating 2000 rows every {evaluation["every"]} of {evaluation["steps"]} steps costs {evaluation["whole"]:+.1%}; all
  but {evaluation["share"]:+.1%} is the evaluations themselves.
- Keeping the last states costs {states["last"]:+.1%}, the best ones {states["best"]:+.1%}.
- A negative cost means that rounds of the benchmark differ by more than what it measures.
- Peak memory, the cache of the file not counted: {", ".join(peaks)}.
"""


def _tuning(part: Mapping[str, Any]) -> Iterable[str]:
    patience = f"{part['patience']:g} s"
    yield "### Time to a good learning rate\n"
    yield (
        f"MLP 64-64-64-10, {part['steps']} steps, {len(part['good'])} starts. A rate is good if its validation loss is "
        "within one percent of the best, which is the smallest running median over five neighbors of a dense grid. A "
        f"search stops after {patience}. Compilation is excluded. Optuna knows which losses are good and stops at the "
        "first good rate; a sweep is timed to its end.\n"
    )
    rows = []
    for name, seconds in part["seconds"].items():
        middle = statistics.median(t if t is not None else float("inf") for t in seconds)
        median = _seconds(middle) if middle < float("inf") else f"over {patience}"
        each = ", ".join("none" if t is None else _seconds(t) for t in seconds)
        rows.append((name, median, each))
    yield _table(("search", "median", "by start"), rows)


# --- formatting


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _seconds(t: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(t) * scale >= 1:
            return f"{t * scale:.3g} {unit}"
    return f"{t * 1e9:.3g} ns"


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
