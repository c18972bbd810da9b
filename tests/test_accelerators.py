"""The page of programs counted for accelerators, and the programs by hand that it compares with."""

import jax
import numpy as np
import optax
import pytest

from benchmarks.accelerators import __main__ as program
from benchmarks.accelerators import document
from benchmarks.accelerators.counts import WAYS, Case, Row
from benchmarks.peers import bare_lane, start_of
from benchmarks.workloads import make
from gdkit import sweep
from gdkit.sweeps.programs.kernels import Work


def test_the_page_is_that_of_the_stored_counts():
    page = document.page(*program.read(any_version=True))
    assert program.FOUND.with_suffix(".md").read_text(encoding="utf-8") == page, (
        "run python -m benchmarks.accelerators --page"
    )


@pytest.mark.parametrize(
    ("model", "bare", "own", "holds"),
    [
        ("digits_mlp", 25, 28, "yes"),  # three more
        ("digits_mlp", 25, 28.5, "no"),
        ("attention", 100, 106, "yes"),  # six percent more
        ("attention", 100, 107, "no"),
        ("scalar", 2, 2, "yes"),  # none more
        ("scalar", 2, 2.125, "no"),
    ],
)
def test_kernels_are_judged_against_those_by_hand(model, bare, own, holds):
    case = Case("h200", model, "adam", WAYS[0])
    rows = [Row(case, 64, Work(own, 0, 1, 0.125, 1e6), 10**6, 1.0)]
    rows.append(Row(case._replace(way=WAYS[-1]), 64, Work(bare, 0, 1, 0, 1e6), 10**6, 1.0))
    (line,) = [
        line for line in document.page({row.case: row for row in rows}).splitlines() if line.endswith(f"| {holds} |")
    ]
    assert f"| {bare:.3g} | {own:.3g} |" in line


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_lanes_by_hand_end_where_a_sweep_does(optimizer):
    work = make("scalar", quick=True)
    lane = bare_lane(work, optimizer=getattr(optax, optimizer))
    by_hand = jax.jit(jax.vmap(lane, in_axes=(0, None)))(work.rates, start_of(work))
    result = sweep(work.problem, optimizer, {"learning_rate": work.rates}, steps=work.steps, statistics="ends")
    np.testing.assert_allclose(result.data["final_loss"].values[:, 0], by_hand["final_loss"], rtol=1e-5)
