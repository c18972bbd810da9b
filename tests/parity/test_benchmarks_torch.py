"""The PyTorch peers of the benchmark do the work of gdkit: from the same start to the same final losses."""

import pytest

from benchmarks import COMPARED, compare, torch_peers, tuning, workloads
from benchmarks.peers import gdkit_peer


@pytest.mark.parametrize("name", COMPARED)
def test_peers_in_torch_come_to_the_final_losses_of_gdkit(torch, name):
    work = workloads.make(name, quick=True)
    expected = gdkit_peer(work).run()
    found = torch_peers.peers(work)
    assert len(found) == 2
    assert all(compare.difference(peer, work, expected) <= 1e-4 for peer in found)


def test_a_run_in_chunks_is_judged_as_gdkit_judges_it(torch):
    work = workloads.make("digits_mlp")._replace(steps=20)
    work = work._replace(problem=workloads.problems.mlp("digits", widths=(64, 64), batch_size=128))
    *_, last = torch_peers.chunks(work, 3, 10)(0.05)
    assert last == pytest.approx(float(tuning.score_by_sweep(work, 3, [0.05])[0]), rel=1e-4)
