"""Count programs for accelerators that are not there: ``python -m benchmarks.accelerators [MODEL ...]``.

Writes docs/accelerators.json and docs/accelerators.md. Programs that were counted before with these versions are kept,
so that an interrupted count goes on where it was; with MODEL only these models. With ``--page`` nothing is counted.
"""

import json
import sys
from pathlib import Path

import jax

from benchmarks.accelerators import counts, document
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.kernels import Work

FOUND = Path(__file__).parents[2] / "docs" / "accelerators.json"


def main(arguments: list[str]) -> int:
    """Count what is missing, and write the page."""
    found = read(any_version="--page" in arguments)
    chosen = [argument for argument in arguments if argument != "--page"] or counts.MODELS
    cases = [] if "--page" in arguments else list(counts.list_cases())
    for case in cases:
        if case.model in chosen and case not in found and targets.is_installed(case.device):
            found[case] = counts.count(case)
            print(*case, found[case].work, f"{found[case].compile_seconds:.0f} s", flush=True)
            save(found)
    FOUND.with_suffix(".md").write_text(document.page(found), encoding="utf-8")
    return 0


def read(*, any_version: bool = False) -> dict[counts.Case, counts.Row]:
    """What was counted, with this version of JAX unless with `any_version`."""
    stored = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    if not stored or not (any_version or stored["jax"] == jax.__version__):
        return {}
    rows = (counts.Row(counts.Case(*case), lanes, Work(*work), *rest) for case, lanes, work, *rest in stored["rows"])
    return {row.case: row for row in rows}


def save(found: dict[counts.Case, counts.Row]) -> None:
    """Store all rows, in the order of the cases."""
    rows = [found[case] for case in counts.list_cases() if case in found]
    text = json.dumps({"jax": jax.__version__, "rows": rows}, ensure_ascii=False)
    FOUND.write_text(text.replace("], [[", "],\n[[") + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
