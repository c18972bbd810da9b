"""Performance profiles: how often, over a suite of problems, a solver is within a factor τ of the fastest.

Dolan and Moré, Benchmarking optimization software with performance profiles, 2002. A solver that does not solve a
problem takes infinitely long, and stays infinite: nothing is left out, and nothing replaced by a large number.
"""

import numpy as np

MOST = 4.0  # the largest ratio that gains anything in AlgoPerf's score: Dahl et al., arXiv 2306.07179, section 4.5


def ratios(times: np.ndarray) -> np.ndarray:
    """Each time over the least of its problem: (solvers, problems) to (solvers, problems), infinite where unsolved.

    >>> ratios(np.array([[1.0, 6.0, np.inf], [3.0, 2.0, np.inf]])).tolist()
    [[1.0, 3.0, inf], [3.0, 1.0, inf]]
    """
    best = np.min(times, axis=0)
    return np.where(np.isfinite(times), times / np.where(np.isfinite(best), best, 1.0), np.inf)


def profile(ratio: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """ρ(τ), the share of all problems whose ratio is at most τ: (solvers, problems) and (points,) to (solvers, points).

    >>> profile(np.array([[1.0, 3.0, np.inf, np.inf]]), np.array([1.0, 2.0, 3.0, 1e9])).tolist()
    [[0.25, 0.25, 0.5, 0.5]]
    """
    return np.mean(ratio[:, :, None] <= tau, axis=1)


def score(ratio: np.ndarray, most: float = MOST) -> np.ndarray:
    """AlgoPerf's benchmark score, ∫ρ(τ)dτ from 1 to `most`, over most − 1: (solvers, problems) to (solvers,) in [0, 1].

    ρ is a sum of steps, each of which goes on from its ratio to `most`, so the integral is exact.

    >>> score(np.array([[1.0, 2.5, 4.0, np.inf]])).tolist()  # (3 + 1.5 + 0 + 0) / 3, of 4 problems
    [0.375]
    """
    return np.mean(np.clip(most - ratio, 0.0, None), axis=1) / (most - 1)
