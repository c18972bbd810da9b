"""The page about reliability matches the stored results, and every promise holds."""

import copy
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
    assert sum(row["opened"] for row in results["opened"]["rows"]) >= 1_000
    assert results["streams"]["kills"] == 30
    assert {"kills", "races", "crashes", "damage", "opened"} <= results.keys()
    assert all(torture.holds(name, results[name]) for name in torture.PARTS if name in results)


@pytest.mark.parametrize(
    "name, change",
    [
        ("kills", lambda r: r.update(equal=r["equal"] - 1)),
        ("kills", lambda r: r.update(most_again=r["workers"] + 1)),
        ("streams", lambda r: r.update(equal=r["equal"] - 1)),
        ("streams", lambda r: r.update(most_again=r["workers"] + 1)),
        ("races", lambda r: r.update(exited=r["exited"] - 1)),
        ("races", lambda r: r.update(equal=r["equal"] - 1)),
        ("crashes", lambda r: r["rows"][1].update(kept=False)),
        ("damage", lambda r: r["rows"][0].update(named=0)),
        ("damage", lambda r: r["manifest"][0].update(code=0)),
        ("opened", lambda r: r["rows"][0].update(true=r["rows"][0]["true"] - 1, silent=1)),
        ("opened", lambda r: r["rows"][0].update(true=r["rows"][0]["true"] - 1, hangs=1)),
    ],
)
def test_what_does_not_hold_is_said(torture, results, name, change):
    change(results[name])
    assert not torture.holds(name, results[name])
    assert f"torture.py {name}`: **does not hold**" in torture.page(results)


FULL = {"times": 1, "exit_1": 1, "remedy": 1, "crashes": 0, "traceback": 0, "resumed": 1}
SIGNALS = {"asked": 2, "signals": 2, "equal": 2, "traceback": 0, "untold": 0, "length": 1.0, "seed": 0}
GOOD = {
    "full": {"operations": 1, "rows": [{"what": "tiles"} | FULL], "small": [{"kib": 20, "code": 1} | FULL]},
    "disturbed": {"rows": [{"what": "a clock", "runs": 1, "expected": 1, "equal": 1}]},
    "signals": SIGNALS | {"codes": {"130": 1, "0": 1}},
}
BAD = [
    ("full", lambda r: r["rows"][0].update(crashes=1)),
    ("full", lambda r: r["rows"][0].update(resumed=0)),
    ("full", lambda r: r["small"][0].update(exit_1=0)),
    ("disturbed", lambda r: r["rows"][0].update(equal=0)),
    ("signals", lambda r: r.update(codes={"-15": 2})),
    ("signals", lambda r: r.update(equal=1)),
]


@pytest.mark.parametrize("name, change", BAD)
def test_parts_on_the_command_say_whether_they_hold(torture, results, name, change):
    result = copy.deepcopy(GOOD[name])
    assert f"torture.py {name}`: holds" in torture.page({"machine": results["machine"], name: result})
    change(result)
    assert f"torture.py {name}`: **does not hold**" in torture.page({"machine": results["machine"], name: result})
