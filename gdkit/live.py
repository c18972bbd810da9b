"""Trackers that log while a sweep runs: pass one as ``on_segment`` to `sweep`.

One run per lane, as the exports of a finished result make (`SweepResult.log_to_tensorboard` and the others): after each
segment the loss at the last step and the latest values on validation data, and at the end of the lane all its numbers;
finite ones only. Runs of lanes that have ended are closed. Leaving the ``with`` block closes the others, so that those
of an interrupted sweep are whole too.

>>> from gdkit import live, problems, sgd, sweep
>>> with live.tensorboard("logs") as log:  # doctest: +SKIP
...     sweep(problems.parabola(), sgd, {"learning_rate": [0.1, 0.2]}, steps=1000, on_segment=log)
"""

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdkit.descent.evaluation import is_along
from gdkit.monitors import EndKind
from gdkit.store.paths import as_path
from gdkit.sweeps.execution.progress import SegmentUpdate
from gdkit.sweeps.result.exports.trackers import import_tracker, name_lane
from gdkit.sweeps.scoring.lane_values import plain_values


class _LaneUpdate(NamedTuple):
    """What a lane has reached at the end of a segment."""

    name: str  # of its run in the tracker
    params: dict[str, Any]  # hyperparameters and the seed
    step: int  # of its last loss
    values: dict[str, float]  # finite ones
    has_ended: bool


class LaneLog(NamedTuple):
    """An open run of a tracker."""

    log: Callable[[dict[str, float], int], None]  # of values at a step
    close: Callable[[], None]


class LiveTracker(contextlib.AbstractContextManager):
    """A callback for ``on_segment`` that logs one run per lane, and a context that closes them.

    Args:
      start: opens the run of a lane, by its name and its hyperparameters.
      close: called after all runs are closed.
    """

    def __init__(self, start: Callable[[str, dict[str, Any]], LaneLog], close: Callable[[], None] | None = None):
        self._start, self._close = start, close
        self._open: dict[str, LaneLog] = {}
        self._ended: set[str] = set()

    def __call__(self, update: SegmentUpdate) -> None:
        """Log the lanes of a block, at most once after their end."""
        for lane in _split_update(update):
            if lane.name in self._ended:
                continue
            if lane.name not in self._open:
                self._open[lane.name] = self._start(lane.name, lane.params)
            self._open[lane.name].log(lane.values, lane.step)
            if lane.has_ended:
                self._ended.add(lane.name)
                self._open.pop(lane.name).close()

    def close(self) -> None:
        """Close all runs."""
        while self._open:
            self._open.popitem()[1].close()
        if self._close is not None:
            self._close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _split_update(update: SegmentUpdate) -> Iterator[_LaneUpdate]:
    """The lanes of an update: the loss and values on validation data, and of lanes that have ended all numbers."""
    ended = update.values["end_kind"] != EndKind.RUNNING
    for i, lane in enumerate(update.lanes):
        params = plain_values({name: values[i] for name, values in update.hyperparameters.items()})
        has_ended = bool(ended[i])
        names = [n for n in update.values if n == "loss" or is_along(n) or (has_ended and n != "end_kind")]
        values = {name: float(update.values[name][i]) for name in names if np.isfinite(update.values[name][i])}
        step = int(update.values["end_step"][i]) if has_ended else update.step - 1
        yield _LaneUpdate(name_lane(str(lane), params), params, step, values, has_ended)


def tensorboard(folder: str | Path) -> LiveTracker:
    """Log to TensorBoard, each lane in a folder of its own below `folder`.

    Raises:
      MissingPackageError: tensorboardX is not installed.
      InputTypeError: `folder` is not a path.
    """
    folder = as_path("folder", folder)
    writer_of = import_tracker("tensorboardX", "tensorboard").SummaryWriter

    def start(name: str, params: dict[str, Any]) -> LaneLog:
        writer = writer_of(logdir=str(folder / name))
        writer.add_text("hyperparameters", ", ".join(f"{key} {value}" for key, value in params.items()), 0)

        def log(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)
            writer.flush()

        return LaneLog(log, writer.close)

    return LiveTracker(start)


def mlflow(tracking_uri: str | None = None, *, experiment: str = "gdkit", name: str = "sweep") -> LiveTracker:
    """Log to MLflow, as a run with one nested run per lane.

    Args:
      tracking_uri: of a server or a store, for example ``sqlite:///mlflow.db``; by default MLflow's own.
      experiment: its name; it is created if it does not exist.
      name: of the outer run.

    Raises:
      MissingPackageError: MLflow is not installed.
    """
    client = import_tracker("mlflow", "mlflow").MlflowClient(tracking_uri=tracking_uri)
    entities = importlib.import_module("mlflow.entities")
    existing = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if existing is None else existing.experiment_id
    parent = client.create_run(number, run_name=name).info.run_id

    def start(lane: str, params: dict[str, Any]) -> LaneLog:
        run = client.create_run(number, run_name=lane, tags={"mlflow.parentRunId": parent}).info.run_id
        client.log_batch(run, params=[entities.Param(key, str(value)) for key, value in params.items()])

        def log(values: dict[str, float], step: int) -> None:
            now = int(time.time() * 1000)
            client.log_batch(run, metrics=[entities.Metric(key, value, now, step) for key, value in values.items()])

        return LaneLog(log, functools.partial(client.set_terminated, run))

    return LiveTracker(start, functools.partial(client.set_terminated, parent))


def wandb(project: str, *, name: str = "sweep", **settings: Any) -> LiveTracker:
    """Log to Weights & Biases, one run per lane in the group `name`.

    `settings` are passed to ``wandb.init``, for example ``mode="offline"``.

    Raises:
      MissingPackageError: wandb is not installed.
    """
    package = import_tracker("wandb", "wandb")

    def start(lane: str, params: dict[str, Any]) -> LaneLog:
        options = {"project": project, "group": name, "name": lane, "config": params, "reinit": "create_new"}
        run = package.init(**options, **settings)
        return LaneLog(lambda values, step: run.log(values, step=step), run.finish)

    return LiveTracker(start)
