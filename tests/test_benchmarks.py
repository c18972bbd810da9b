"""The benchmark runs at tiny sizes: peers agree with gdkit, and the document has the measurements."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdkit
from benchmarks import COMPARED, compare, document, numpy_peers, operations, peers, profile, timing, workloads
from benchmarks.__main__ import PARTS, main
from benchmarks.roofline import flops
from benchmarks.targets import TARGETS, Target, judge


@pytest.mark.full
@pytest.mark.parametrize("name", COMPARED)
def test_every_peer_runs_and_comes_to_the_final_losses_of_gdkit(name):
    work = workloads.make(name, quick=True)
    if name == "logistic":  # the statistics are those of the other workloads
        work = work._replace(flavours=("bare",))
    found = compare.compare(work, quick=True)
    assert len(found["peers"]) >= 6
    assert all(row["difference"] <= 1e-4 and row["seconds"] > 0 for row in found["peers"])


def test_a_peer_that_does_other_work_stops_the_benchmark():
    work = workloads.make("scalar", quick=True)
    peer = peers.gdkit_peer(work)
    expected = peer.run()
    compare.difference(peer, work, expected)
    cheat = peer._replace(run=lambda: np.append(expected[:-1], 1.01 * expected[-1]))
    with pytest.raises(compare.DisagreementError, match=r"on scalar: differs by 0\.01"):
        compare.difference(cheat, work, expected)


@pytest.mark.parametrize("name", [*numpy_peers.watched(np.full(1, 0.1, np.float32), 2)])
def test_numpy_by_hand_has_the_statistics_of_gdkit(name):
    rates, steps = np.array([0.001, 0.3, 0.6, 0.9], np.float32), 300
    found = numpy_peers.watched(rates, steps)[name]
    result = gdkit.sweep(gdkit.problems.parabola(), gdkit.sgd, {"learning_rate": rates}, steps=steps)
    expected = result.data[name].values[:, 0]
    np.testing.assert_allclose(found, expected[..., : found.shape[-1]], rtol=2e-3, atol=1e-5)


def test_bare_peers_tell_the_first_step_out_of_bounds():
    rates = np.array([0.1, 1.5], np.float32)
    work = workloads.make("scalar")._replace(rates=rates, steps=20)
    by_hand = numpy_peers.bare(rates, 20)["end_step"]
    lane = jax.jit(jax.vmap(peers.bare_lane(work), in_axes=(0, None)))
    result = gdkit.sweep(work.problem, gdkit.sgd, {"learning_rate": rates}, steps=20)
    assert by_hand.tolist() == lane(rates, peers.start_of(work))["end_step"].tolist()
    assert by_hand.tolist() == result.data["end_step"].values[:, 0].tolist()


def test_tiles_cover_every_lane_once():
    tiled = peers.Tiled(workloads.make("scalar", quick=True)._replace(rates=np.float32([1e-3, 2e-3, 3e-3])), "bare")
    assert [tile.tolist() for tile in tiled.tiles(2)] == np.float32([[1e-3, 2e-3], [3e-3, 3e-3]]).tolist()
    assert len(tiled.run(peers.Tiling(2, 1, 2))) == 3


@pytest.mark.full
def test_rounds_are_interleaved_and_ratios_pair_within_a_round():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = timing.time_interleaved(runs, reference="a", budget=0.0, least=2, most=9)
    assert calls == ["a", "b", "c", "b", "c", "a"]
    assert [len(taken) for taken in times.values()] == [2, 2, 2]
    assert timing.ratio({"a": [1.0, 2.0, 4.0], "b": [2.0, None, 12.0]}, "b", "a") == 2.5


def test_targets_compare_peers_with_the_same_statistics_and_with_the_fastest_search():
    peer = lambda title, flavour, ratio: {"title": title, "flavour": flavour, "ratio": ratio}
    rows = [peer("gdkit", "all", 1.0), peer("gdkit", "ends", 0.5), peer("best by hand", "bare", 0.6)]
    seconds = {"gdkit, sweeps": [1.0, 2.0, None], "gdkit, halving": [3.0] * 3, "Optuna on PyTorch": [None, 20.0, 30.0]}
    parts = {"scalar": {"peers": rows}, "tuning": {"seconds": seconds}}
    found = {target.what: target.find(parts) for target in TARGETS}
    (ends,) = (value for what, value in found.items() if what.startswith("scalar loss") and "ends" in what)
    assert ends == pytest.approx(0.6 / 0.5)
    assert found["the same against Optuna on PyTorch"] == pytest.approx(30 / 2)  # medians; a failed search is longest


def test_flops_count_what_a_matmul_does():
    work = workloads.make("small_mlp", quick=True)
    forward, first = 2 * 16 * (64 * 16 + 16 * 10), 2 * 16 * 64 * 16
    assert flops(work) == (3 * forward - first) * work.steps * len(work.rates)


@pytest.mark.full
def test_the_operations_of_a_step_are_told_apart():
    work = workloads.make("small_mlp", quick=True)
    job, shape, _ = profile._plan(work, "all")
    found = operations.operations(work, job, shape, points=4)
    assert len(found) == 4 and all(spent.keys() == set(operations.KINDS) for spent in found.values())
    for spent in found.values():
        assert min(spent["products"] + spent["sums"], spent["elementwise"]) > 0


def test_kinds_of_operations_are_read_from_a_compiled_program():
    def step(w, x):
        return jnp.cumsum(jnp.tanh(x @ w).sum(0)), jax.lax.fori_loop(0, x.shape[0], lambda i, s: s * 1.5 + i, x[0, 0])

    compiled = jax.jit(step).lower(jnp.ones((64, 32)), jnp.ones((128, 64))).compile()
    kinds = operations.kinds_of(compiled.as_text())
    assert {"products", "sums", "elementwise"} <= set(kinds.values()) <= set(operations.KINDS)


@pytest.mark.parametrize(
    "at_least,value,verdict", [(True, 2.0, "met"), (True, 1.9, "**not met**"), (False, 1.9, "met")]
)
def test_targets_are_judged_by_what_was_measured(at_least, value, verdict):
    assert judge(Target("it", 2, "×", lambda parts: parts["x"], at_least), {"x": value})[-1] == verdict
    assert judge(Target("it", 2, "×", lambda parts: None), {})[-2:] == ("not measured", "")


def test_parts_are_kept_one_by_one_and_the_document_is_written_from_those_there_are(tmp_path, monkeypatch):
    reached = {"digits_mlp": {"title": "an MLP", "speed": 6e10, "share": 0.75, "products_share": 0.9}}
    found = {
        "roofline": {"matmul": {"JAX": 8e10, "NumPy": 1e11}, "bandwidth": 2e10, "reached": reached},
        "tuning": {"good": [0.1, 0.2], "steps": 300, "patience": 30.0, "seconds": {"gdkit": [0.5, None]}},
    }
    monkeypatch.setattr("benchmarks.__main__.measure", lambda part, **sizes: found[part])
    for part in found:
        main(["--quick", "--output", str(tmp_path), "--only", part])
    (file,) = tmp_path.glob("*.json")
    kept, text = file.read_text(), (tmp_path / "performance.md").read_text()
    assert {name: part["result"] for name, part in json.loads(kept)["parts"].items()} == found
    assert "| an MLP | 60.0 | 75% | 83% |" in text and "| gdkit | over 30 s | 500 ms, none |" in text
    assert "≥ 0.85 × | 0.9 × | met |" in text and "not measured" in text
    assert "Tiny sizes" in text and "### Growth" not in text
    assert str(tmp_path) not in kept + text


def test_quick_results_do_not_go_where_real_ones_are():
    with pytest.raises(SystemExit):
        main(["--quick"])


@pytest.mark.full
def test_all_parts_make_one_document(tmp_path):
    main(["--quick", "--output", str(tmp_path)])
    (file,) = tmp_path.glob("*.json")
    assert set(json.loads(file.read_text())["parts"]) == set(PARTS)
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {
        "performance.png",
        "performance_scaling.png",
    }
    assert document.INTRO in (tmp_path / "performance.md").read_text()
