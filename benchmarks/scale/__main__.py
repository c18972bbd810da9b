"""Measure the constants of scale and write docs/scale.json and docs/scale.md: ``python -m benchmarks.scale [FOLDER]``.

Scratch files go under FOLDER, or where temporary files go. With ``--page`` nothing is measured: the page is written
anew from docs/scale.json. The page names targets that do not hold; the exit code is then 1.
"""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.scale import document, measure, model

DOCS = Path(__file__).parents[2] / "docs"
FOUND = DOCS / "scale.json"


def main(arguments: list[str]) -> int:
    """Measure, unless only the page is asked for, and write the page."""
    if arguments != ["--page"]:
        with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as folder:
            found = measure.everything(Path(folder))
        FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    (DOCS / "scale.md").write_text(document.page(found), encoding="utf-8")
    predictions = model.compare(model.constants(found), found["validation"])
    holds = all(measured <= most for *_, most, measured in document.targets(found))
    return 0 if holds and all(p.factor <= document.FACTOR for p in predictions) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
