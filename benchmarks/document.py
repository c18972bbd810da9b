"""docs/performance.md and its figures, from what was measured: no number in them is typed."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import COMPARED, figures, records
from benchmarks.targets import TARGETS, judged
from gdkit.plots import style

DOCS = Path(__file__).parent.parent / "docs"

INTRO = """# Performance

`make bench` measures and writes this file; no number in it is typed. `python -m benchmarks --help` says how to run a
part of it.

**How it is measured.** gdkit and its peers run in one process on the same work: the same loss, start, minibatches,
learning rates and steps, in single precision. The learning rates lie below the edge of stability, where runs are not
chaotic, and a peer whose final losses differ from gdkit's by more than a tolerance stops the benchmark. Nothing
compiles while it is timed. Runs take turns, each round beginning with another one; a ratio is the median over rounds of
the peer's time over gdkit's in the same round, so that more than 1 is slower than gdkit. gdkit is timed as a user calls
it, from `gdkit.sweep(...)` to the labelled result. Loops over lanes are timed on some lanes, and their time scaled up.

**The same work.** Peers come in two flavours. *Bare* is what a person would write down: the final loss, the least, and
the first step that was out of bounds. *All* has every statistic and the curve that gdkit has: in JAX gdkit's own lane
in a plain scan, in NumPy written by hand. gdkit keeps all of them where nothing else is said.
"""

WHY = """Why some are not met, as far as it is known:

- *Bare peers and PyTorch*: statistics. *Where the time goes* has what each of them costs, and what a step takes by
  hand, by the kind of operation: products take as long for everybody; sums over params, and what is computed element by
  element, take more. These read the params, the gradient and the one before it again and again, from memory that the
  cores share: on a CPU XLA computes them one after the other.
- *The best variant by hand with all statistics*: its steps take about what gdkit's take. The rest lies around them: a
  sweep is checked, its blocks begin, end and are handed over one by one, and the result gets its labels. Also the
  variant was searched for, in programs of up to four steps a loop. gdkit compiles a second program only for sweeps that
  take far longer than that.
- *The matmul peak*: it is that of large matrices. *Its products alone* in *Share of the machine* are what these small
  ones reach with nothing between them. XLA leaves those of a layer's gradient, whose left side is transposed, to a
  slower library than the others.
- *A tile*: it makes four calls: to begin, to the last step, the last observation, and what is read. *Growth* has what
  one takes alone. The rest is handing over between threads that share Python's lock, and its rows; not its steps.
- *Progress and store*: tiles, and lanes that can go on, are packed, checked and synced beside workers that already have
  every core. That takes as long however fast the steps are, and so a larger share of faster ones. Two measurements of
  it differ by about a quarter of it.
- *A search*: it is told what is good and stops at the first good rate; a sweep is timed to its end. All the lanes of
  a sweep share the cores from the beginning, so that no rate is known before nearly all are. Successive halving gives
  most lanes few steps, and begins, ends and judges its blocks once a round; in its last round other cores are idle.
- *Lanes beyond a million* each take longer: their results lie in memory that is touched for the first time, which a
  virtual machine asks its host for. So writing a lane's row takes longer; the programs themselves do not.
- *Two workers on a CPU* take more processor time than one on one core for the same steps: XLA has one pool of threads,
  any of which takes parts of a product or a sum from any worker, and the memory beyond the cores' own is shared.
- *On an accelerator* each of many small operations is started on its own; that has not been taken apart.
"""


def write(output: Path | None = None) -> Path:
    """The document and its figures, in docs/ or, with its results, in another folder."""
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
    """Part to what it found out."""
    return {name: part["result"] for name, part in machine["parts"].items()}


def section(machine: Mapping[str, Any], ending: str) -> Iterable[str]:
    """What one machine did; `ending` is that of its figures' names."""
    about, parts = machine["machine"], results_of(machine)
    on = "" if about["device"] == "cpu" else f"{about['device']} beside "
    yield f"## {on}{about['processor']}, {about['cores']} cores (`{machine['name']}.json`)\n"
    yield "\n".join(_provenance(machine)) + "\n"
    yield "### Targets\n"
    verdicts = [judged(target, parts) for target in TARGETS]
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
    for name, text in {"scaling": _scaling, "roofline": _roofline, "profile": _profile, "tuning": _tuning}.items():
        if name in parts:
            yield from text(parts[name])


def _provenance(machine: Mapping[str, Any]) -> Iterable[str]:
    about, parts = machine["machine"], machine["parts"].values()
    each = lambda key: " / ".join(dict.fromkeys(str(part[key]) for part in parts))
    loads = [part["load"] for part in parts]
    yield f"- Device: {about['device']}, {about['devices']} of it; {about['system']}."
    yield f"- Measured on {each('date')}, in {sum(part['seconds'] for part in parts) / 60:.0f} minutes."
    for versions in dict.fromkeys(", ".join(map(" ".join, part["versions"].items())) for part in parts):
        yield f"- Versions: {versions}."
    yield f"- XLA flags, for everybody: `{each('xla_flags') or 'none'}`."
    yield f"- Processes that wanted a core when a part began, of any program: {min(loads):.1f} to {max(loads):.1f}."
    if any(part["quick"] for part in parts):
        yield "- **Tiny sizes, to see that everything runs: the times mean nothing.**"
    for package, name in {"torch": "PyTorch", "optuna": "Optuna"}.items():
        if not all(package in part["versions"] for part in parts):
            yield f"- {name} was not installed for all parts; its rows are left out there."


# --- parts


def _peers(part: Mapping[str, Any]) -> Iterable[str]:
    plan, rows = part["plan"], part["peers"]
    yield f"#### {part['title']}: {part['lanes']:,} learning rates × {part['steps']:,} steps\n"
    head = ("", "statistics", "time", "× gdkit", "spread", "lanes timed", "rounds")
    yield _table(head, map(_peer, rows))
    worst = max(row["difference"] for row in rows)
    yield f"""\
gdkit ran blocks of {plan["width"]} with unroll {plan["unroll"]} ({plan["chosen"]}) on {plan["workers"]} workers.
Its first call, which checks, plans and compiles, took {_seconds(part["first_call_seconds"])}. Final losses differ from
gdkit's by at most {worst:.1g}; {part["rtol"]:g} are allowed.
"""


def _peer(row: Mapping[str, Any]) -> tuple[str, ...]:
    title = row["title"] + (f" ({row['detail']})" if row["detail"] else "")
    spread = f"±{row['spread']:.0%}"
    return (
        title,
        row["flavour"],
        _seconds(row["seconds"]),
        f"{row['ratio']:.3g}",
        spread,
        f"{row['lanes']:,}",
        str(row["rounds"]),
    )


def _scaling(part: Mapping[str, Any]) -> Iterable[str]:
    lanes, steps, workers, million = part["lanes"], part["steps"], part["workers"], part["million"]
    divergence, repacking, job, sharpness = (part[n] for n in ("divergence", "repacking", "main_job", "sharpness"))
    own = f", and {job['processor_share']:.1%} of its processor time" if "processor_share" in job else ""
    large = [s for n, s in zip(lanes["lanes"], lanes["slopes"], strict=False) if n >= 1000] or lanes["slopes"]
    threads = ", ".join(f"{n}: {_seconds(t)}" for n, t in zip(workers["workers"], workers["seconds"], strict=True))
    yield f"""\
- {lanes["steps"]} steps of a scalar take {_seconds(lanes["a"])} and {_seconds(lanes["b"])} a lane. From a thousand
  lanes on, the slope between sizes is {_seconds(min(large))} to {_seconds(max(large))}.
- {steps["lanes"]:,} lanes of a scalar for {", ".join(f"{n:,}" for n in steps["steps"])} steps: the process has
  {", ".join(map(_bytes, steps["peak"]))} at its peak.
- {million["lanes"]:,} lanes of a scalar with all statistics and no curves: {_bytes(million["peak"])} at the peak, of
  which {_bytes(million["before"])} were there before the sweep.
- The MLP sweep by workers: {threads}.
- An axis whose upper half diverges within {divergence["latest_end"]} of {divergence["steps"]} steps takes
  {divergence["ratio"]:.2f} of the time of one on which nothing does.
- In one block of all lanes, as an accelerator takes them, that axis takes {repacking["half"]:.2f} of the time, since
  nothing ends before its last lane. Half of the lanes alone take {repacking["repacked"]:.2f}: what moving the lanes
  that are left into a block half as wide could reach at best, on this device.
- A tile of one lane and one step costs {_seconds(part["dispatch"]["seconds_a_tile"])}; one call of its program
  alone, for no step, {_seconds(part["dispatch"]["seconds_a_call"])}.
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
        "The matmuls of a step count 6 · rows · Σ nᵢnᵢ₊₁ operations, less the gradient of the first layer's inputs. "
        "The products alone are those matmuls in blocks of the same width, with nothing between them.\n"
    )
    reached = part["reached"].values()
    alone = lambda row: f"{row['share'] / row['products_share']:.0%}" if "products_share" in row else ""
    rows = [(row["title"], f"{row['speed'] / 1e9:.1f}", f"{row['share']:.0%}", alone(row)) for row in reached]
    yield _table(("sweep", "GFLOP/s", "of the best matmul", "its products alone"), rows)


def _profile(part: Mapping[str, Any]) -> Iterable[str]:
    titles, found = [row["title"] for row in part.values()], list(part.values())
    yield "### Where the time goes\n"
    yield "Stages of a warm sweep, a worker's mean; the rest is outside of the workers.\n"
    share = lambda stages: [f"{t / sum(stages.values()):.1%}" for t in stages.values()]
    yield _table(("sweep", *found[0]["stages"]), [(row["title"], *share(row["stages"])) for row in found])
    yield "Time of all steps of one block a worker, by what is observed, as a multiple of the updates alone.\n"
    costs = lambda way: [f"{row['advance'][way] / row['advance']['updates alone']:.2f}" for row in found]
    yield _table(("observed", *titles), [(way, *costs(way)) for way in found[0]["advance"]])
    yield from _operations([row for row in found if "operations" in row])
    yield "Before the first step, when nothing is compiled yet:\n"
    rows = [(row["title"], *map(_seconds, row["first"].values())) for row in found]
    yield _table(("sweep", *found[0]["first"]), rows)


def _operations(found: list[Mapping[str, Any]]) -> Iterable[str]:
    if found:
        yield (
            "Microseconds of one step of one block, a block a core, by the kind of operation that XLA's profiler sees. "
            "Sums are over params, classes and batches; every row has blocks of gdkit's shape.\n"
        )
    for row in found:
        ways = row["operations"]
        spent = [(way, *(f"{x:.0f}" for x in (*kinds.values(), sum(kinds.values())))) for way, kinds in ways.items()]
        yield _table((row["title"], *next(iter(ways.values())), "all"), spent)


def _tuning(part: Mapping[str, Any]) -> Iterable[str]:
    patience = f"{part['patience']:g} s"
    yield "### Time to a good learning rate\n"
    yield (
        f"MLP 64-64-64-10, {part['steps']} steps, {len(part['good'])} starts. Good is a validation loss within a "
        "hundredth of the best, and the best is the least running median over five neighbours of a dense grid. A "
        f"search gives up after {patience}. Nothing compiles in it. Optuna is told what is good, and stops at the "
        "first such rate; a sweep is timed to its end, when all of its rates are known.\n"
    )
    rows = []
    for name, seconds in part["seconds"].items():
        middle = statistics.median(t if t is not None else float("inf") for t in seconds)
        median = _seconds(middle) if middle < float("inf") else f"over {patience}"
        each = ", ".join("none" if t is None else _seconds(t) for t in seconds)
        rows.append((name, median, each))
    yield _table(("search", "median", "by start"), rows)


# --- forms


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
