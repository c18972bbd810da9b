"""The page about reliability matches the stored results, and every promise holds."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def torture():
    spec = importlib.util.spec_from_file_location("torture", ROOT / "scripts" / "torture.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests"))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(torture):
    return json.loads(torture.RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_what_the_program_writes_from_its_results(torture, results):
    assert torture.PAGE.read_text(encoding="utf-8") == torture.page(results)
    assert str(ROOT) not in torture.PAGE.read_text(encoding="utf-8")


def test_the_counts_are_full_and_everything_holds(torture, results):
    assert results["kills"]["kills"] == 100 and results["races"]["races"] == 50
    assert {row["what"] for row in results["damage"]["rows"]} == {"tile", "carry"}
    assert all(torture.holds(name, results[name]) for name in torture.PARTS)


@pytest.mark.parametrize(
    "name, change",
    [
        ("kills", lambda r: r.update(equal=r["equal"] - 1)),
        ("kills", lambda r: r.update(most_again=r["workers"] + 1)),
        ("races", lambda r: r.update(exited=r["exited"] - 1)),
        ("races", lambda r: r.update(equal=r["equal"] - 1)),
        ("crashes", lambda r: r["rows"][1].update(kept=False)),
        ("damage", lambda r: r["rows"][0].update(named=0)),
        ("damage", lambda r: r["manifest"][0].update(code=0)),
    ],
)
def test_what_does_not_hold_is_said(torture, results, name, change):
    change(results[name])
    assert not torture.holds(name, results[name])
    assert f"torture.py {name}`: **does not hold**" in torture.page(results)
