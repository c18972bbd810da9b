"""A finished sweep in the trackers that people keep their runs in: every lane a run."""

import importlib
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdkit.errors import bad_value, missing_package
from gdkit.monitors import EndKind
from gdkit.sweeps.result import optuna_study


class Tracked(NamedTuple):
    """What is told of a lane. All numbers are finite: what diverged ends where it leaves."""

    name: str
    params: dict[str, Any]  # hyperparameters and the seed
    tags: dict[str, str]  # regime and kind of its end
    metrics: dict[str, float]  # at its end
    curve: dict[int, float]  # step to loss


def lanes_of(result: Any) -> Iterator[Tracked]:
    """Every lane that has ended."""
    variables = {str(name): v.values for name, v in result.lanes.data_vars.items() if v.dims == ("lane",)}
    digits = len(str(result.lanes.sizes["lane"] - 1))
    for lane in np.flatnonzero(variables["end_kind"] != EndKind.RUNNING):
        told = optuna_study.told(result, lane)
        params = optuna_study.params_of(result, lane) | {"seed": told["seed"]}
        words = [_word(value) if name == "optimizer" else f"{name}={_word(value)}" for name, value in params.items()]
        metrics = {name: float(v[lane]) for name, v in variables.items() if name != "end_kind" and np.isfinite(v[lane])}
        yield Tracked(
            "-".join([f"{lane:0{digits}d}", *words]),
            params,
            {name: told[name] for name in ("regime", "end_kind")},
            metrics,
            optuna_study.finite_curve(result, lane),
        )


def files_of(run: Any) -> list[Path]:
    """The report and the figures of a run directory, those that there are.

    Raises:
      InputValueError: there is no such directory.
    """
    if run is None:
        return []
    if not Path(run).is_dir():
        raise bad_value("run", str(run), "no such directory", "Pass that of a run, or leave it out")
    found = [Path(run) / "report.html", *sorted((Path(run) / "figures").glob("*.png"))]
    return [path for path in found if path.is_file()]


def to_tensorboard(result: Any, folder: Any, run: Any) -> None:
    """What `SweepResult.log_to_tensorboard` does."""
    writer_of = _package("tensorboardX", "tensorboard").SummaryWriter
    summaries = importlib.import_module("tensorboardX.summary")
    files = files_of(run)
    for lane in lanes_of(result):
        with writer_of(logdir=str(Path(folder) / lane.name)) as writer:
            for step, loss in lane.curve.items():
                writer.add_scalar("loss", loss, step)
            last = int(lane.metrics["end_step"])
            for name, value in lane.metrics.items():
                writer.add_scalar(name, value, last)
            for summary in summaries.hparams(lane.params | lane.tags, dict.fromkeys(lane.metrics, 0.0)):
                writer.file_writer.add_summary(summary)
            writer.add_text("regime", lane.tags["regime"], last)
    with writer_of(logdir=str(Path(folder) / "sweep")) as writer:
        writer.add_text("recommendation", str(result).replace("\n", "  \n"))
        for path in files:
            if path.suffix == ".png":
                writer.file_writer.add_summary(_picture(path))
            else:
                writer.add_text(path.name, str(path.resolve()))


def _picture(path: Path) -> Any:
    """A PNG file as TensorBoard shows it."""
    messages: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # where every PNG has them
    image = messages.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
    return messages.Summary(value=[messages.Summary.Value(tag=path.stem, image=image)])


def to_mlflow(result: Any, tracking_uri: str | None, experiment: str, name: str, run: Any) -> str:
    """What `SweepResult.log_to_mlflow` does."""
    client = _package("mlflow", "mlflow").MlflowClient(tracking_uri=tracking_uri)
    entities = importlib.import_module("mlflow.entities")
    files = files_of(run)
    known = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if known is None else known.experiment_id
    parent = client.create_run(place, run_name=name, tags={"mlflow.note.content": str(result)}).info.run_id
    for path in files:
        client.log_artifact(parent, str(path))
    for lane in lanes_of(result):
        tags = lane.tags | {"mlflow.parentRunId": parent}
        child = client.create_run(place, run_name=lane.name, tags=tags).info.run_id
        now, last = int(time.time() * 1000), int(lane.metrics["end_step"])
        metrics = [entities.Metric("loss", loss, now, step) for step, loss in lane.curve.items()]
        metrics += [entities.Metric(metric, value, now, last) for metric, value in lane.metrics.items()]
        client.log_batch(child, params=[entities.Param(key, str(value)) for key, value in lane.params.items()])
        for low in range(0, len(metrics), 1000):  # as many as it takes at a time
            client.log_batch(child, metrics=metrics[low : low + 1000])
        client.set_terminated(child)
    client.set_terminated(parent)
    return parent


def to_wandb(result: Any, project: str, name: str, run: Any, settings: dict[str, Any]) -> None:
    """What `SweepResult.log_to_wandb` does."""
    package = _package("wandb", "wandb")
    files = files_of(run)
    begin = lambda **own: package.init(project=project, group=name, reinit="create_new", **own, **settings)
    for lane in lanes_of(result):
        with begin(name=lane.name, config=lane.params | lane.tags, tags=list(lane.tags.values())) as told:
            for step, loss in lane.curve.items():
                told.log({"loss": loss}, step=step)
            told.summary.update(lane.metrics)
    with begin(name=name, job_type="sweep", notes=str(result)) as told:
        if files:
            artifact = package.Artifact(re.sub(r"[^\w.-]", "_", name), type="report")
            for path in files:
                artifact.add_file(str(path))
            told.log_artifact(artifact)


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_package(name, extra, "logging a sweep there") from error


def _word(value: Any) -> str:
    """A value as a part of a file's name."""
    return re.sub(r"[^\w.+-]", "_", f"{value:.6g}" if isinstance(value, float) else str(value))
