"""A sweep in TensorBoard, MLflow and Weights & Biases: one run per lane."""

import importlib
import re
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import bad_value, import_package
from gdkit.store.paths import as_path
from gdkit.sweeps.scoring.lane_values import (
    SweepLike,
    curve_names,
    end_values,
    finite_curve,
    hyperparameters_of,
    outcome_of,
)


class TrackedLane(NamedTuple):
    """What is logged of a lane, finite numbers only: the curve of a diverged lane ends at its last finite loss."""

    name: str
    params: dict[str, Any]  # hyperparameters and the seed
    tags: dict[str, str]  # the regime, and how it ended
    metrics: dict[str, float]  # at its end
    curves: dict[str, dict[int, float]]  # name to step to value: the loss, and values on validation data along the run


def tracked_lanes(result: SweepLike) -> Iterator[TrackedLane]:
    """Every finished lane."""
    variables = {str(n): v.values for n, v in end_values(result.lanes).data_vars.items() if v.dims == ("lane",)}
    digits = len(str(result.lanes.sizes["lane"] - 1))
    for lane in np.flatnonzero(result.finished):
        outcome = outcome_of(result, lane)
        params = hyperparameters_of(result, lane) | {"seed": outcome["seed"]}
        metrics = {name: float(v[lane]) for name, v in variables.items() if name != "end_kind" and np.isfinite(v[lane])}
        yield TrackedLane(
            name_lane(f"{lane:0{digits}d}", params),
            params,
            {name: outcome[name] for name in ("regime", "end_kind")},
            metrics,
            {name: finite_curve(result, lane, name) for name in curve_names(result.lanes)},
        )


def report_files(run: str | Path | None) -> list[Path]:
    """The report and the figures that a run directory has; none without a directory.

    Raises:
      InputValueError: there is no such directory.
    """
    if run is None:
        return []
    if not Path(run).is_dir():
        raise bad_value("run", str(run), "no such directory", "Pass that of a run, or leave it out")
    paths = [Path(run) / "report.html", *sorted((Path(run) / "figures").glob("*.png"))]
    return [path for path in paths if path.is_file()]


def log_to_tensorboard(result: SweepLike, folder: str | Path, *, run: str | Path | None = None) -> None:
    """Write one run of TensorBoard per lane, each in a folder of its own below `folder`.

    A run has the recorded losses at their steps and the other numbers at the last step, finite ones only; the
    hyperparameters, seed, regime and kind of end for the HPARAMS page; the regime as text. The run ``sweep`` has
    the recommendation, and the figures of the run directory `run`, if given. Of very many lanes, select some first
    (`select`, `along`).

    Raises:
      MissingPackageError: tensorboardX is not installed.
    """
    folder = as_path("folder", folder)
    writer_of = import_tracker("tensorboardX", "tensorboard").SummaryWriter
    summaries = importlib.import_module("tensorboardX.summary")
    files = report_files(run)
    for lane in tracked_lanes(result):
        with writer_of(logdir=str(folder / lane.name)) as writer:
            for name, curve in lane.curves.items():
                for step, value in curve.items():
                    writer.add_scalar(name, value, step)
            last = int(lane.metrics["end_step"])
            for name, value in lane.metrics.items():
                if name not in lane.curves:  # whose curve has the last value
                    writer.add_scalar(name, value, last)
            for summary in summaries.hparams(lane.params | lane.tags, dict.fromkeys(lane.metrics, 0.0)):
                writer.file_writer.add_summary(summary)
            writer.add_text("regime", lane.tags["regime"], last)
    with writer_of(logdir=str(folder / "sweep")) as writer:
        writer.add_text("recommendation", str(result).replace("\n", "  \n"))
        for path in files:
            if path.suffix == ".png":
                writer.file_writer.add_summary(_image_summary(path))
            else:
                writer.add_text(path.name, str(path.resolve()))


def _image_summary(path: Path) -> Any:
    """A PNG file as a summary of TensorBoard."""
    messages: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # the PNG header
    image = messages.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
    return messages.Summary(value=[messages.Summary.Value(tag=path.stem, image=image)])


def log_to_mlflow(
    result: SweepLike,
    tracking_uri: str | None = None,
    *,
    experiment: str = "gdkit",
    name: str = "sweep",
    run: str | Path | None = None,
) -> str:
    """Log the sweep to MLflow as a run with one nested run per lane; returns the id of the outer run.

    A nested run has hyperparameters and seed as params, recorded losses at their steps and other numbers as
    metrics, finite ones only, and regime and kind of end as tags. The outer run has the recommendation as its
    description, and report and figures of the run directory `run`, if given, as artifacts.

    Args:
      tracking_uri: of a server or a store, for example ``sqlite:///mlflow.db``; by default MLflow's own.
      experiment: its name; it is created if it does not exist.
      name: of the outer run.
      run: a run directory.

    Raises:
      MissingPackageError: MLflow is not installed.
    """
    client = import_tracker("mlflow", "mlflow").MlflowClient(tracking_uri=tracking_uri)
    entities = importlib.import_module("mlflow.entities")
    files = report_files(run)
    existing = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if existing is None else existing.experiment_id
    parent = client.create_run(experiment_id, run_name=name, tags={"mlflow.note.content": str(result)}).info.run_id
    for path in files:
        client.log_artifact(parent, str(path))
    for lane in tracked_lanes(result):
        tags = lane.tags | {"mlflow.parentRunId": parent}
        child = client.create_run(experiment_id, run_name=lane.name, tags=tags).info.run_id
        now, last = int(time.time() * 1000), int(lane.metrics["end_step"])
        curves = [(metric, curve.items()) for metric, curve in lane.curves.items()]
        metrics = [entities.Metric(metric, value, now, step) for metric, curve in curves for step, value in curve]
        ends = {metric: value for metric, value in lane.metrics.items() if metric not in lane.curves}
        metrics += [entities.Metric(metric, value, now, last) for metric, value in ends.items()]
        client.log_batch(child, params=[entities.Param(key, str(value)) for key, value in lane.params.items()])
        for low in range(0, len(metrics), 1000):  # the limit of one request
            client.log_batch(child, metrics=metrics[low : low + 1000])
        client.set_terminated(child)
    client.set_terminated(parent)
    return parent


def log_to_wandb(
    result: SweepLike, project: str, *, name: str = "sweep", run: str | Path | None = None, **settings: Any
) -> None:
    """Log one run of Weights & Biases per lane in the group `name`, and one run for the sweep.

    The run of a lane has hyperparameters, seed, regime and kind of end as config, the last two as tags too,
    recorded losses at their steps, and other numbers as summary, finite ones only. That of the sweep has the
    recommendation as its notes, and report and figures of the run directory `run`, if given, as an artifact.
    `settings` are passed to ``wandb.init``, for example ``mode="offline"``.

    Raises:
      MissingPackageError: wandb is not installed.
    """
    package = import_tracker("wandb", "wandb")
    files = report_files(run)
    start_run = lambda **own: package.init(project=project, group=name, reinit="create_new", **own, **settings)
    for lane in tracked_lanes(result):
        with start_run(name=lane.name, config=lane.params | lane.tags, tags=list(lane.tags.values())) as tracked:
            for step in sorted({step for curve in lane.curves.values() for step in curve}):  # in increasing order
                tracked.log({name: curve[step] for name, curve in lane.curves.items() if step in curve}, step=step)
            tracked.summary.update(lane.metrics)
    with start_run(name=name, job_type="sweep", notes=str(result)) as tracked:
        if files:
            artifact = package.Artifact(re.sub(r"[^\w.-]", "_", name), type="report")
            for path in files:
                artifact.add_file(str(path))
            tracked.log_artifact(artifact)


def name_lane(number: str, params: Mapping[str, Any]) -> str:
    """The name of the run of a lane: its number, its hyperparameters and its seed."""
    words = [_word(value) if name == "optimizer" else f"{name}={_word(value)}" for name, value in params.items()]
    return "-".join([number, *words])


def import_tracker(name: str, extra: str) -> Any:
    """The package `name`; raises if it is not installed."""
    return import_package(name, extra, f"logging a sweep to {name}")


def _word(value: Any) -> str:
    """A value as part of a file name."""
    return re.sub(r"[^\w.+-]", "_", f"{value:.6g}" if isinstance(value, float) else str(value))
