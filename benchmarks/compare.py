"""One workload on gdkit and all its peers: a check of equal final losses, then interleaved rounds."""

from typing import Any

import jax
import numpy as np

import gdkit
from benchmarks import numpy_peers, timing, torch_peers
from benchmarks.peers import Peer, gdkit_peer, jax_peers, tiled_peer
from benchmarks.workloads import Workload

REFERENCE = "gdkit, all"


class DisagreementError(Exception):
    """The final losses of a peer differ from those of gdkit."""


def compare(work: Workload, *, quick: bool = False) -> dict[str, Any]:
    """Time of each peer as a multiple of gdkit's, and the difference of its final losses."""
    first = timing.seconds(gdkit_peer(work).run)  # plans and compiles
    peers = {f"{peer.title}, {peer.flavour}": peer for peer in contestants(work, quick)}
    expected = peers[REFERENCE].run()
    differences = {name: difference(peer, work, expected) for name, peer in peers.items()}
    budget, least, most = (0.0, 1, 1) if quick else (4.0, 3, 15)
    runs = {name: peer.run for name, peer in peers.items()}
    times = timing.time_interleaved(runs, reference=REFERENCE, budget=budget, least=least, most=most)
    rows = [_row(name, peer, work, times) | {"difference": differences[name]} for name, peer in peers.items()]
    size = {"title": work.title, "lanes": len(work.rates), "steps": work.steps, "rtol": work.rtol}
    return size | {"first_call_seconds": first, "plan": plan_of(work), "peers": rows}


def _row(name: str, peer: Peer, work: Workload, times: timing.Times) -> dict[str, Any]:
    scale = len(work.rates) / len(peer.lanes)
    return {
        "title": peer.title,
        "flavour": peer.flavour,
        "detail": peer.detail,
        "lanes": len(peer.lanes),
        "rounds": sum(t is not None for t in times[name]),
        "seconds": scale * timing.median(times[name]),
        "spread": timing.spread(times[name]),
        "ratio": scale * timing.ratio(times, name, REFERENCE),
    }


def plan_of(work: Workload) -> dict[str, Any]:
    """The plan that gdkit chose."""
    result = gdkit.sweep(work.problem, gdkit.sgd, {"learning_rate": work.rates}, steps=work.steps)
    return result.plan


def contestants(work: Workload, quick: bool) -> list[Peer]:
    """gdkit and its peers."""
    others = [peer for flavour in work.flavours for peer in jax_peers(work, flavour)]
    tiled = [tiled_peer(work, flavour, quick=quick) for flavour in work.flavours]
    own = [gdkit_peer(work), gdkit_peer(work, "ends")]
    return [*own, *others, *tiled, *numpy_peers.peers(work), *torch_peers.peers(work)]


def difference(peer: Peer, work: Workload, expected: np.ndarray) -> float:
    """The largest relative difference of a final loss from gdkit's; this call also warms the peer up.

    Losses below 1e-6 of the largest count as that value, since rounding dominates there.
    """
    losses = np.asarray(jax.block_until_ready(peer.run()), float)
    reference = np.asarray(expected, float)[peer.lanes]
    floor = 1e-6 * np.abs(expected).max()
    worst = float(np.max(np.abs(losses - reference) / np.maximum(np.abs(reference), floor)))
    if not worst <= work.rtol:
        raise DisagreementError(f"{peer.title} ({peer.flavour}) on {work.name}: differs by {worst:.2g} > {work.rtol:g}")
    return worst
