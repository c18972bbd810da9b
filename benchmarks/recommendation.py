"""Regret of the recommended learning rate on fresh data, beside that of the plain minimum and of other rules.

python -m benchmarks.recommendation              about seven minutes on two cores; writes docs/recommendation.md
python -m benchmarks.recommendation --quick      one split, few draws; prints the table only

Each problem is swept once per split over a dense grid of learning rates. A draw takes every second of them and three
seeds, and each rule chooses a rate by the validation losses of these runs alone. Fresh data are the half of the rows
that no run has seen, and the seeds that the draw has not: the regret is the mean test loss at the chosen rate above the
lowest on the grid, as a share of the gap between the initial loss and that lowest one. A test loss is capped at the
initial one.
"""

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
import sklearn.datasets

import gdkit
from benchmarks.tuning import import_optuna
from gdkit import problems
from gdkit.regimes import least_loss
from gdkit.sweeps.description import LaneGrid
from gdkit.sweeps.scoring.robust import make_scale, robust_scores

SEEDS, OWN, RATES, EVERY = 15, 3, 37, 2  # seeds, seeds per draw, learning rates, stride of a draw over them
STEPS = 150
SPLITS = range(30, 38)  # the rule was tuned on 0 to 4, and a variant rejected on 20 to 27
SPLIT = (0.35, 0.15, 0.5)  # train, validation, fresh
DOCUMENT = Path(__file__).parents[1] / "docs" / "recommendation.md"
MARK, END = "<!-- regret: written by `python -m benchmarks.recommendation` -->", "<!-- end -->"
RULES = ("recommend()", "lowest mean", "one standard error", "Optuna, best trial")


class Draw(NamedTuple):
    """What rules choose from, and what they are judged by."""

    scores: np.ndarray  # (rates, seeds) validation losses of the draw; infinite where diverged
    places: np.ndarray  # (rates,) of the draw's rates on the dense grid
    dense: np.ndarray  # (dense rates, seeds) validation losses of the draw's seeds, for searches off its grid
    recommended: int  # place on the dense grid
    fresh: np.ndarray  # (dense rates,) mean test losses of other seeds
    start: float  # initial loss


def run(*, quick: bool = False) -> dict[str, np.ndarray]:
    """Mean regrets (splits, rules) by problem: the draws of a split share its sweep."""
    splits = SPLITS[:1] if quick else SPLITS
    rows = {name: [] for name in (*_PROBLEMS, *_CURVES)}
    for name in rows:
        for split in splits:
            draws = _real_draws(name, split) if name in _PROBLEMS else _synthetic_draws(name, split)
            rows[name].append(np.mean([_compute_regrets(draw, number) for number, draw in enumerate(draws)], axis=0))
    return {name: np.array(regrets) for name, regrets in rows.items()}


# --- rules


def _compute_regrets(draw: Draw, key: int) -> list[float]:
    chosen = [
        draw.recommended,
        draw.places[_find_lowest(draw.scores)],
        draw.places[_apply_one_standard_error(draw.scores)],
    ]
    if importlib.util.find_spec("optuna") is not None:
        chosen.append(_search_by_optuna(draw, key))
    lowest = draw.fresh.min()
    return [float((draw.fresh[place] - lowest) / (draw.start - lowest)) for place in chosen]


def _find_lowest(scores: np.ndarray) -> int:
    return int(np.argmin(scores.mean(axis=1)))


def _apply_one_standard_error(scores: np.ndarray) -> int:
    """The smallest rate whose mean is within one standard error of the lowest mean."""
    mean, best = scores.mean(axis=1), _find_lowest(scores)
    error = scores[best].std(ddof=1) / np.sqrt(scores.shape[1])
    return int(np.flatnonzero(mean <= mean[best] + error)[0])


def _search_by_optuna(draw: Draw, key: int) -> int:
    """The rate of the best trial of TPE with as many runs; trials take the seeds in turn."""
    optuna = import_optuna()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=key))
    capped = np.minimum(draw.dense, draw.start)

    def objective(trial: Any) -> float:
        place = round(trial.suggest_float("place", 0, len(draw.dense) - 1))  # the logarithm of the rate
        return float(capped[place, trial.number % draw.dense.shape[1]])

    study.optimize(objective, n_trials=draw.scores.size)
    return round(study.best_params["place"])


# --- sweeps


def _digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return x[:400].astype(np.float32), y[:400]


_PROBLEMS: dict[str, tuple[Callable[..., gdkit.Problem], Callable, tuple[float, float]]] = {
    "iris, 8 hidden units, SGD": (lambda **k: problems.mlp("iris", widths=(8,), **k), gdkit.sgd, (1e-3, 30)),
    "wine, 16 hidden units, Adam": (lambda **k: problems.mlp("wine", widths=(16,), **k), optax.adam, (1e-4, 3)),
    "breast cancer, logistic, SGD": (
        lambda **k: problems.logistic_regression("breast_cancer", **k), gdkit.sgd, (1e-3, 30),
    ),
    "400 digits, 16 hidden units, Adam": (
        lambda **k: problems.mlp(_digits(), widths=(16,), **k), optax.adam, (1e-4, 3),
    ),
}  # fmt: skip


def _real_draws(name: str, split: int) -> Iterator[Draw]:
    make, optimizer, (low, high) = _PROBLEMS[name]
    problem = make(split=SPLIT, split_key=split, batch_size=8)
    axes = {"learning_rate": np.geomspace(low, high, RATES)}
    result = gdkit.sweep(problem, optimizer, axes, seeds=SEEDS, steps=STEPS, curve_points=2)
    start = float(np.nanmedian(result.lanes["initial_loss"].values))
    test = np.nan_to_num(result.lanes["test_loss"].values.astype(float), nan=np.inf).reshape(RATES, SEEDS)
    test = np.where(np.isfinite(result.scores().reshape(RATES, SEEDS)), np.minimum(test, start), start)
    dense = result.scores().reshape(RATES, SEEDS)
    for first in range(0, SEEDS, OWN):
        seeds = np.arange(first, first + OWN)
        fresh = np.delete(test, seeds, axis=1).mean(axis=1)
        for offset in range(EVERY):
            places = np.arange(offset, RATES, EVERY)
            best = _select_lanes(result, places, seeds).recommend().best
            place = int(np.argmin(np.abs(axes["learning_rate"] - best)))
            yield Draw(dense[places][:, seeds], places, dense[:, seeds], place, fresh, start)


def _select_lanes(result: gdkit.SweepResult, places: np.ndarray, seeds: np.ndarray) -> gdkit.SweepResult:
    """The sweep of some rates and seeds alone."""
    lanes = result.lanes.isel(lane=(places[:, None] * result.seeds + seeds).ravel()).assign_attrs(seeds=len(seeds))
    statistics = {str(name): v.values for name, v in lanes.data_vars.items() if v.dims == ("lane",)}
    lowest = least_loss(statistics | {"stochastic": True})
    lanes = lanes.assign(reference_loss=("lane", np.full(lanes.sizes["lane"], lowest)))
    (name, axes, _), *_ = result.grids[0].dimensions
    return dataclasses.replace(result, lanes=lanes, grids=(LaneGrid(None, ((name, axes, len(places)),)),), origin=None)


# --- synthetic curves

_AT = np.linspace(-2.0, 2.0, RATES)  # decades from the middle
_CURVES = {
    "synthetic: a bowl": 0.05 * np.exp(0.5 * _AT**2),
    "synthetic: a slope to a cliff": np.where(_AT < 1, 0.1 * 10.0 ** (-0.3 * _AT), 1.0),
    "synthetic: a flat valley": 0.1 + 0.3 * np.maximum(np.abs(_AT) - 0.8, 0) ** 2,
}


def _synthetic_draws(name: str, key: int) -> Iterator[Draw]:
    """Curves with lognormal noise of 40 %, by the same rule on arrays; the fresh losses are the truth."""
    truth, random = _CURVES[name], np.random.default_rng(key)
    for _ in range(SEEDS // OWN):
        dense = truth[:, None] * np.exp(0.4 * random.normal(size=(RATES, OWN)))
        for offset in range(EVERY):
            places = np.arange(offset, RATES, EVERY)
            scores = dense[places]
            mean = scores.mean(axis=1)
            scale = make_scale(mean, 0.0, 1.0)
            found = robust_scores(scores, np.isfinite(scores), mean, [_AT[places]], scale)
            yield Draw(scores, places, dense, int(places[np.argmin(found.score)]), truth, 1.0)


# --- document


def format_table(regrets: dict[str, np.ndarray]) -> str:
    """A table of mean regrets in per cent, with standard errors."""
    rules = RULES[: next(iter(regrets.values())).shape[1]]
    lines = [f"| regret in % of the gap | splits | {' | '.join(rules)} |", "|---" * (len(rules) + 2) + "|"]
    for name, own in regrets.items():
        error = own.std(axis=0, ddof=min(1, len(own) - 1)) / np.sqrt(len(own))
        cells = (f"{100 * m:.2f} ± {100 * e:.2f}" for m, e in zip(own.mean(axis=0), error, strict=True))
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    for title, names in (("mean of the data sets", _PROBLEMS), ("mean of all", regrets)):
        means = np.mean([regrets[name].mean(axis=0) for name in names], axis=0)
        lines.append(f"| **{title}** | | {' | '.join(f'**{100 * mean:.2f}**' for mean in means)} |")
    return "\n".join(lines)


def write(regrets: dict[str, np.ndarray]) -> Path:
    """Write the table into the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{MARK}\n\n{format_table(regrets)}\n\n{END}{after}", encoding="utf-8")
    return DOCUMENT


def main() -> None:
    """Measure, print the table, and write it into the document."""
    parser = argparse.ArgumentParser("benchmarks.recommendation", description="Regret of recommended learning rates.")
    parser.add_argument("--quick", action="store_true", help="one split; prints the table only")
    quick = parser.parse_args().quick
    regrets = run(quick=quick)
    print(format_table(regrets))
    if not quick:
        write(regrets)


if __name__ == "__main__":
    main()
