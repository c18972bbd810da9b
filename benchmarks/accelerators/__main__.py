"""Count programs for accelerators without having them: ``python -m benchmarks.accelerators [MODEL ...]``.

Writes docs/accelerators.json and docs/accelerators.md. Programs that were counted before with these versions are kept,
so that an interrupted count resumes; with MODEL only these models are counted. With ``--page`` nothing is counted.
What compaction saves is measured on this machine.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.accelerators import compaction, counts, document
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.kernels import Work

FOUND = Path(__file__).parents[2] / "docs" / "accelerators.json"


def main(arguments: list[str]) -> int:
    """Count what is missing, and write the page."""
    only_page = "--page" in arguments
    found, saving = read(any_version=only_page)
    chosen = [argument for argument in arguments if argument != "--page"] or counts.MODELS
    cases = [] if only_page else list(counts.list_cases())
    for case in cases:
        target, _ = counts.MESHES.get(case.device, (case.device, None))
        if case.model in chosen and case not in found and targets.is_installed(target):
            found[case] = counts.count(case)
            print(*case, found[case].work, f"{found[case].compile_seconds:.0f} s", flush=True)
            save(found, saving)
    if saving is None and not only_page:
        saving = compaction.measure()
        save(found, saving)
    FOUND.with_suffix(".md").write_text(document.page(found, saving), encoding="utf-8")
    return 0


def read(*, any_version: bool = False) -> tuple[dict[counts.Case, counts.Row], dict[str, Any] | None]:
    """What was counted and measured, with this version of JAX unless with `any_version`."""
    stored = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    if not stored or not (any_version or stored["jax"] == jax.__version__):
        return {}, None
    rows = (counts.Row(counts.Case(*case), lanes, Work(*work), *rest) for case, lanes, work, *rest in stored["rows"])
    return {row.case: row for row in rows}, stored.get("compaction")


def save(found: dict[counts.Case, counts.Row], saving: dict[str, Any] | None) -> None:
    """Store all rows, in the order of the cases."""
    rows = [found[case] for case in counts.list_cases() if case in found]
    text = json.dumps({"jax": jax.__version__, "compaction": saving, "rows": rows}, ensure_ascii=False)
    FOUND.write_text(text.replace("], [[", "],\n[[") + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
