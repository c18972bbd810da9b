"""Run the benchmark, part by part, and write docs/performance.md from what there is.

python -m benchmarks                             all parts, some twenty minutes on two cores
python -m benchmarks --only digits_mlp scaling   some parts; what was measured before is kept
python -m benchmarks --only document             the document alone
python -m benchmarks --quick --output FOLDER     tiny sizes, as a check that everything runs; its times mean nothing
python -m benchmarks --plain                     without the flags that `gdkit run` gives to XLA
python -m benchmarks --devices 2                 the CPU split into devices, for everybody
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import COMPARED
from gdkit import environment

PARTS = (*COMPARED, "roofline", "profile", "scaling", "tuning")


def main(words: list[str] | None = None) -> None:
    """Measure the parts, each kept as soon as it is finished, and write the document."""
    chosen = _arguments(words)
    if not chosen.plain:
        environment.faster_cpu()
    if chosen.devices > 1:
        environment.split_cpu(chosen.devices)
    from benchmarks import document, records  # and so JAX, which reads its flags now

    variant = "-plain" * chosen.plain + f"-{chosen.devices}-devices" * (chosen.devices > 1)
    path = records.path(chosen.output or records.FOLDER, variant)
    for part in (p for p in PARTS if p in chosen.only):
        begun, load = time.perf_counter(), records.load()
        print(f"{part} ...", end="", file=sys.stderr, flush=True)
        result = measured(part, quick=chosen.quick, full=chosen.full)
        seconds = time.perf_counter() - begun
        records.keep(path, part, result, seconds=seconds, load=load, quick=chosen.quick)
        print(f" {seconds:.0f} s", file=sys.stderr)
    print(document.write(chosen.output), file=sys.stderr)


def measured(part: str, *, quick: bool = False, full: bool = False) -> dict:
    """What one part finds out."""
    if part in COMPARED:
        from benchmarks import compare, workloads

        return compare.compare(workloads.make(part, quick=quick), quick=quick)
    from benchmarks import profile, roofline, scaling, tuning

    if part == "scaling":
        return scaling.run(quick=quick, full=full)
    return {"roofline": roofline, "profile": profile, "tuning": tuning}[part].run(quick=quick)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks", description="gdkit against its peers, side by side in one process.")
    known = (*PARTS, "document")
    parser.add_argument("--only", nargs="+", choices=known, default=PARTS, metavar="PART", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--plain", action="store_true", help="without gdkit's flags for XLA")
    parser.add_argument("--full", action="store_true", help="up to 10,000,000 lanes")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="split the CPU into N devices")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="results and document go there")
    chosen = parser.parse_args(words)
    if chosen.quick and chosen.output is None:
        parser.error("--quick needs --output FOLDER, so that no real result is overwritten")
    return chosen


if __name__ == "__main__":
    main()
