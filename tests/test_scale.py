"""What is written of scale: the page comes from what was measured, and the model adds up to what stores take."""

import copy
import json

import pytest

from benchmarks.scale import __main__ as program
from benchmarks.scale import document, measure, model

FOUND = json.loads(program.FOUND.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def constants():
    return model.constants(FOUND)


def test_the_page_is_what_the_program_writes_and_all_that_is_promised_holds():
    assert (program.DOCS / "scale.md").read_text(encoding="utf-8") == document.page(FOUND), (
        "run: python -m benchmarks.scale --page"
    )
    for what, unit, most, measured in document.targets(FOUND):
        assert measured <= most, f"{what}: {measured} {unit}"
    assert all(j.factor <= document.FACTOR for j in model.compare(model.constants(FOUND), FOUND["validation"]))


def test_what_does_not_hold_is_said_in_the_page_and_by_the_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "DOCS", tmp_path)
    monkeypatch.setattr(program, "FOUND", tmp_path / "scale.json")
    for seconds, code in ((0.5, 0), (2.5, 1)):
        found = copy.deepcopy(FOUND)
        found["openings"][0]["open"] = seconds
        (tmp_path / "scale.json").write_text(json.dumps(found), encoding="utf-8")
        assert program.main(["--page"]) == code
        assert f"| 2 s | {seconds} s | {'**no**' if code else 'yes'} |" in (tmp_path / "scale.md").read_text("utf-8")


@pytest.mark.full
def test_the_program_measures_on_a_small_machine_all_that_the_page_says(tmp_path):
    stores = [measure.store(tmp_path, lanes, rows) for lanes, rows in ((4096, 64), (4096, 256), (8192, 1024))]
    found = FOUND | {
        "machine": measure.machine(),
        "columns": measure.columns(),
        "stores": [s | {"rows": rows} for s, rows in zip(stores, measure.ROWS, strict=True)],
        "listing": [measure.listing(tmp_path, tiles) | {"tiles": said} for tiles, said in ((9, 10), (1001, 10**6))],
        "openings": [measure.opening(tmp_path, lanes, rows) for lanes, rows in ((8192, 1024), (512, 8))],
        "coordinators": [measure.coordinator(tmp_path, *sizes) for sizes in ((64, 16), (5120, 16), (64, 4), (128, 4))],
        "looking": measure.looking(),
        "validation": measure.store(tmp_path, 6000, 128),
    }
    assert document.page(json.loads(json.dumps(found))).count("\n## ") == 5
    (size, *_) = model.compare(model.constants(found), found["validation"])
    assert size.what == "bytes of its tiles" and size.factor < 1.01
    assert [row["tiles"] for row in found["coordinators"]] == [4, 320, 16, 32]
    assert found["coordinators"][1]["lists"] > 8 * 5120 and found["coordinators"][0]["lists"] == 0


def test_a_fit_finds_what_the_numbers_were_made_of():
    rows = [(tiles, size, 3 * tiles + 0.5 * size) for tiles, size in ((1, 10), (10, 10), (2, 100))]
    assert model.fit_linear(rows) == pytest.approx((3, 0.5))
    assert model.fit_linear([(tiles, size, 7 * size) for tiles, size, _ in rows]) == pytest.approx((0, 7), abs=1e-9)


def test_limits_are_where_totals_meet_their_budgets(constants):
    for rows in document.ROWS:
        lanes = {limit.what.partition(",")[0]: round(limit.lanes) for limit in model.limits(constants, rows)}
        met = lambda what, lanes=lanes, rows=rows: model.total(constants, lanes[what], rows)
        assert met("memory of `gdkit.open` and of the result that `sweep` returns").held == pytest.approx(2**34)
        assert met("points and axis values in the memory of each process").prepared == pytest.approx(2**34)
        assert met("tasks through the scheduler of Dask").tasks["Dask"] == pytest.approx(600, rel=1e-3)
        assert met("the coordinator's list of tiles").deal == pytest.approx(60, rel=1e-3)
        assert met("files that list in a few seconds").tiles == 10**6
        assert met("verifying existing tiles before resuming").verify == pytest.approx(600, rel=1e-3)
        assert met("bytes on disk without curves").disk == pytest.approx(2**40, rel=1e-3)
        assert list(lanes.values()) == sorted(lanes.values()) and max(lanes.values()) <= 2**40


def test_a_manifest_is_as_small_at_a_billion_lanes_as_at_a_million(constants):
    sizes = [model.total(constants, lanes, 1024).manifest for lanes in (10**6, 10**9)]
    assert sizes[0] <= sizes[1] < sizes[0] + 16 < 4096
    assert model.total(constants, 10**9, 1024).tiles == 976_563
