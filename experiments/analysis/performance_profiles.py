"""Performance profiles: how often, over a suite of problems, a solver is within a factor τ of the fastest.

Dolan and Moré, Benchmarking optimization software with performance profiles, 2002. The time of an unsolved problem is
infinite: no problem is left out, and no infinite time is replaced by a large number.
"""

import numpy as np

# The largest ratio that adds to AlgoPerf's score: Dahl et al., arXiv 2306.07179, section 4.5.
LARGEST_RATIO = 4.0


def performance_ratios(times: np.ndarray) -> np.ndarray:
    """Each time over the smallest of its problem, (solvers, problems); infinite where unsolved.

    >>> performance_ratios(np.array([[1.0, 6.0, np.inf], [3.0, 2.0, np.inf]])).tolist()
    [[1.0, 3.0, inf], [3.0, 1.0, inf]]
    """
    best = np.min(times, axis=0)
    return np.where(np.isfinite(times), times / np.where(np.isfinite(best), best, 1.0), np.inf)


def performance_profile(ratios: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """ρ(τ), the share of all problems whose ratio is at most τ: (solvers, problems) and (points,) to (solvers, points).

    >>> performance_profile(np.array([[1.0, 3.0, np.inf, np.inf]]), np.array([1.0, 2.0, 3.0, 1e9])).tolist()
    [[0.25, 0.25, 0.5, 0.5]]
    """
    return np.mean(ratios[:, :, None] <= tau, axis=1)


def algoperf_score(ratios: np.ndarray, largest: float = LARGEST_RATIO) -> np.ndarray:
    """AlgoPerf's score, ∫ρ(τ)dτ from 1 to `largest`, over largest − 1: (solvers, problems) to (solvers,) in [0, 1].

    ρ is a sum of steps, each from its ratio to `largest`, so the integral is exact.

    >>> algoperf_score(np.array([[1.0, 2.5, 4.0, np.inf]])).tolist()  # (3 + 1.5 + 0 + 0) / 3, over 4 problems
    [0.375]
    """
    return np.mean(np.clip(largest - ratios, 0.0, None), axis=1) / (largest - 1)
