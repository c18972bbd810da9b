"""Time until a good learning rate of the digits MLP is known: gdkit's grid, and Optuna driving JAX or PyTorch.

Good is a validation loss within a hundredth of the best; the best is the lowest running median over five neighbors
of a dense grid, so that the luck of a single rate does not count. All start at the same params, draw the same batches
and are compiled before they are timed. A search of one rate after another knows which losses are good and stops at the
first good rate; a sweep knows all of its losses at its end.
"""

import functools
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gdkit
from benchmarks import torch_peers
from benchmarks.peers import start_of
from benchmarks.workloads import Workload
from gdkit import problems

LOW, HIGH = 1e-3, 3.0
DENSE, GRIDS, HALVED = 96, (9, 31), (9, 16, 81)  # learning rates
CHUNK = 50  # steps between checks of the pruner
ON_PYTORCH = "Optuna on PyTorch"
PATIENCE = 20.0  # seconds after which a search has failed

Score = Callable[[float], Iterator[float]]  # rate -> validation losses on the way, the last at the end


class Task(NamedTuple):
    """A search problem: the learning rate for one start and order of batches."""

    work: Workload  # its rates are not used
    key: int
    good: float  # validation loss


def run(*, quick: bool = False) -> dict[str, Any]:
    """Seconds until a good rate is found, by seed; None if none was found in time."""
    steps, seeds, dense = (2 * CHUNK, 1, 9) if quick else (300, 5, DENSE)
    problem = problems.mlp("digits", widths=(64, 64), batch_size=128)
    work = Workload("digits_mlp", "MLP 64-64-64-10", problem, np.zeros(1, np.float32), steps, 0.0, (), 1)
    tasks = [Task(work, key, _good(work, key, dense)) for key in range(seeds)]
    patience = 2.0 if quick else PATIENCE
    ways = searches(patience)
    for name, search in ways.items():
        if name != ON_PYTORCH:
            search(tasks[0])  # compiles
    seconds = {name: [search(task) for task in tasks] for name, search in ways.items()}
    return {"good": [task.good for task in tasks], "steps": steps, "seconds": seconds, "patience": patience}


def _good(work: Workload, key: int, dense: int) -> float:
    found = score_by_sweep(work, key, np.geomspace(LOW, HIGH, dense))
    median = np.median(np.lib.stride_tricks.sliding_window_view(found, 5), axis=1)
    return 1.01 * float(median.min())


def searches(patience: float) -> dict[str, Callable[[Task], float | None]]:
    """Searches by name; without Optuna only those of gdkit."""
    ways: dict[str, Callable[[Task], float | None]] = {}
    for n in GRIDS:
        ways[f"gdkit, sweeps of {n} learning rates"] = lambda task, n=n: by_sweeps(task, score_by_sweep, n)
    for n in HALVED:
        ways[f"gdkit, successive halving of {n}"] = lambda task, n=n: by_sweeps(task, score_by_halving, n)
    if importlib.util.find_spec("optuna") is not None:
        ways["Optuna on compiled JAX"] = lambda task: by_optuna(task, _jax_score(task), patience)
        if torch_peers.is_installed():
            torch_score = lambda task: torch_peers.chunks(task.work, task.key, CHUNK)
            ways[ON_PYTORCH] = lambda task: by_optuna(task, torch_score(task), patience)
    return ways


# --- gdkit


def by_sweeps(task: Task, score: Callable[[Workload, int, Any], np.ndarray], count: int) -> float | None:
    """Sweeps of `count` rates, each between the neighbors of the previous best, until one is good."""
    begun, low, high = time.perf_counter(), LOW, HIGH
    for _ in range(4):
        rates = np.geomspace(low, high, count)
        found = score(task.work, task.key, rates)
        if found.min() <= task.good:
            return time.perf_counter() - begun
        best = int(np.argmin(found))
        low, high = rates[max(best - 1, 0)], rates[min(best + 1, count - 1)]
    return None


def score_by_sweep(work: Workload, key: int, rates: Any) -> np.ndarray:
    """Validation losses at the end; infinite where a run diverged."""
    result = gdkit.sweep(work.problem, gdkit.sgd, {"learning_rate": rates}, **_settings(work, key))
    return np.nan_to_num(result.data["validation_loss"].values[:, 0], nan=np.inf)


def score_by_halving(work: Workload, key: int, rates: Any) -> np.ndarray:
    """Validation losses of the lanes that successive halving runs to the end; infinite for others."""
    axes = {"learning_rate": rates}
    found = gdkit.successive_halving(work.problem, gdkit.sgd, axes, **_settings(work, key)).data.isel(seed=0)
    done = found["end_step"].values >= work.steps
    return np.nan_to_num(np.where(done, found["validation_loss"].values, np.inf), nan=np.inf)


def _settings(work: Workload, key: int) -> dict[str, Any]:
    """Arguments of a search; the other searches, too, compute no statistics along the runs."""
    return {"steps": work.steps, "key": key, "statistics": "ends"}


# --- Optuna


def import_optuna() -> Any:
    """Optuna, which prints errors alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def by_optuna(task: Task, score: Score, patience: float) -> float | None:
    """TPE with the median pruner, until a trial is good."""
    optuna = import_optuna()
    sampler, pruner = optuna.samplers.TPESampler(seed=task.key), optuna.pruners.MedianPruner()
    study = optuna.create_study(sampler=sampler, pruner=pruner)

    def objective(trial: Any) -> float:
        value = float("inf")
        for number, found in enumerate(score(trial.suggest_float("learning_rate", LOW, HIGH, log=True))):
            value = float(np.nan_to_num(found, nan=np.inf))
            trial.report(value, number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    def stop_if_good(study: Any, trial: Any) -> None:
        if trial.state == optuna.trial.TrialState.COMPLETE and trial.value <= task.good:
            study.stop()

    begun = time.perf_counter()
    study.optimize(objective, timeout=patience, callbacks=[stop_if_good])
    seconds = time.perf_counter() - begun
    done = (t.value for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE)
    return seconds if any(value is not None and value <= task.good for value in done) else None


def _jax_score(task: Task) -> Score:
    work, start = task.work, start_of(task.work, task.key)
    validation = jax.device_put(work.problem.validation)

    def score(rate: float) -> Iterator[float]:
        params = start.params
        for t in range(0, work.steps, CHUNK):
            given = params, np.float32(rate), np.int32(t), start.key, start.data, validation
            params, value = _chunk(work.problem)(*given)
            yield float(value)

    return score


@functools.lru_cache(maxsize=4)
def _chunk(problem: gdkit.Problem) -> Any:
    def run(params: Any, rate: Any, t0: Any, key: Any, data: Any, validation: Any) -> Any:
        def body(params: Any, t: Any) -> tuple[Any, None]:
            grads = jax.grad(problem.loss)(params, problem.sample(key, t, data))
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

        params, _ = jax.lax.scan(body, params, t0 + jnp.arange(CHUNK, dtype=jnp.int32))
        return params, problem.loss(params, validation)

    return jax.jit(run)
