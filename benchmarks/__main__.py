"""Run the benchmark, part by part, and write docs/performance.md from all results so far.

python -m benchmarks                             all parts, about twenty minutes on two cores
python -m benchmarks --only digits_mlp scaling   some parts; earlier results of the others stay
python -m benchmarks --only document             only the document
python -m benchmarks --quick --output FOLDER     tiny sizes, to check that everything runs; the times are meaningless
python -m benchmarks --plain                     without the XLA flags of `gdkit run`
python -m benchmarks --devices 2                 the CPU split into devices, for all peers
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import COMPARED
from gdkit import environment

PARTS = (*COMPARED, "roofline", "profile", "scaling", "training", "tuning", "answer")


def main(words: list[str] | None = None) -> None:
    """Measure the parts, save each as soon as it is finished, and write the document."""
    arguments = _arguments(words)
    if not arguments.plain:
        environment.faster_cpu()
    if arguments.devices > 1:
        environment.split_cpu(arguments.devices)
    from benchmarks import document, records  # imports JAX, which reads its flags now

    variant = "-plain" * arguments.plain + f"-{arguments.devices}-devices" * (arguments.devices > 1)
    path = records.path(arguments.output or records.FOLDER, variant)
    for part in (p for p in PARTS if p in arguments.only):
        start, load = time.perf_counter(), records.load()
        print(f"{part} ...", end="", file=sys.stderr, flush=True)
        result = measure(part, quick=arguments.quick, full=arguments.full)
        seconds = time.perf_counter() - start
        records.save_part(path, part, result, seconds=seconds, load=load, quick=arguments.quick)
        print(f" {seconds:.0f} s", file=sys.stderr)
    print(document.write(arguments.output), file=sys.stderr)


def measure(part: str, *, quick: bool = False, full: bool = False) -> dict:
    """Result of one part."""
    if part in COMPARED:
        from benchmarks import compare, workloads

        return compare.compare(workloads.make(part, quick=quick), quick=quick)
    from benchmarks import answer, profile, roofline, scaling, training, tuning

    if part == "scaling":
        return scaling.run(quick=quick, full=full)
    parts = {"roofline": roofline, "profile": profile, "training": training, "tuning": tuning, "answer": answer}
    return parts[part].run(quick=quick)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks", description="gdkit against its peers, side by side in one process.")
    known = (*PARTS, "document")
    parser.add_argument("--only", nargs="+", choices=known, default=PARTS, metavar="PART", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times are meaningless")
    parser.add_argument("--plain", action="store_true", help="without the XLA flags of gdkit run")
    parser.add_argument("--full", action="store_true", help="up to 10,000,000 lanes")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="split the CPU into N devices")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of results and document")
    arguments = parser.parse_args(words)
    if arguments.quick and arguments.output is None:
        parser.error("--quick needs --output FOLDER, so that no real result is overwritten")
    return arguments


if __name__ == "__main__":
    main()
