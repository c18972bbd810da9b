"""The page about reliability says what its program found, and that it holds."""

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
def found(torture):
    return json.loads(torture.FOUND.read_text(encoding="utf-8"))


def test_the_page_is_what_the_program_writes_from_what_it_found(torture, found):
    assert torture.PAGE.read_text(encoding="utf-8") == torture.page(found)
    assert str(ROOT) not in torture.PAGE.read_text(encoding="utf-8")


def test_the_counts_are_full_and_everything_holds(torture, found):
    assert found["kills"]["kills"] == 100 and found["races"]["races"] == 50
    assert {row["what"] for row in found["damage"]["rows"]} == {"tile", "carry"}
    assert all(torture.holds(name, found[name]) for name in torture.PARTS)


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
def test_what_does_not_hold_is_said(torture, found, name, change):
    change(found[name])
    assert not torture.holds(name, found[name])
    assert f"torture.py {name}`: **does not hold**" in torture.page(found)
