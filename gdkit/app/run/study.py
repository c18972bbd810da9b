"""Running a study: its function, its claims, its figures and its report."""

import importlib.metadata
import inspect
import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from rich.console import Console

import gdkit
from gdkit.app import records, report, terminal
from gdkit.app.config.build import locate_errors, resolve
from gdkit.app.config.schema import StudyConfig
from gdkit.app.records import CLAIMS
from gdkit.app.report import figures
from gdkit.app.run.caches import use_program_cache
from gdkit.app.run.log import PACKAGES, log_run, write_log
from gdkit.app.run.outputs import Show, print_paths
from gdkit.app.summary import StudyClaim
from gdkit.errors import RunError
from gdkit.formatting import count, first_paragraph, format_duration
from gdkit.store.files import publish_output
from gdkit.sweeps.plan.shapes import count_visible_cores

OUTPUT = "found.txt"  # file with the result of a study as text


def run_study(config: StudyConfig, folder: Path, *, show: Show = "all") -> None:
    """Call the study's ``run(settings)``, and its module's ``plot(result)`` and ``claims(result)`` if it has them.

    Raises:
      ConfigError: the config names something that does not exist, or settings that the study rejects.
      RunError: a claim does not hold.
    """
    function = resolve(config, ("experiment",), config.experiment)
    if not callable(function):
        raise config.error(("experiment",), "not a function. Name one that takes the settings")
    module = sys.modules[config.experiment.partition(":")[0]]
    use_program_cache()
    with log_run(config, folder):
        start = time.monotonic()
        with locate_errors(config, ("settings",)):
            result = function(config.settings)
        provenance = _collect_provenance(time.monotonic() - start)
        claims: list[StudyClaim] = list(module.claims(result)) if hasattr(module, "claims") else []
        table = json.dumps(list(map(_claim_to_json, claims)), indent=1, ensure_ascii=False)
        publish_output(folder / CLAIMS, [f"{table}\n".encode()])
        _write_outputs(config, module, result, claims, folder, provenance, show)
        failed = [claim.text for claim in claims if not claim.holds]
        if failed:
            raise RunError(f"{config.name}: {count(len(failed), 'claim')} failed: {'; '.join(failed)}")
        write_log(folder, f"finished: {count(len(claims), 'claim')}, all hold")


def _claim_to_json(claim: StudyClaim) -> dict[str, Any]:
    """A claim for other programs; infinities and NaN, which JSON lacks, as text."""
    numbers = {name: float(getattr(claim, name)) for name in ("expected", "tolerance", "measured")}
    values = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    return {
        "text": claim.text,
        "source": claim.source,
        "kind": getattr(claim, "kind", "check"),
        **values,
        "holds": bool(claim.holds),
    }


def _collect_provenance(seconds: float) -> dict[str, str]:
    """Versions, device and time of a study."""
    versions = [f"gdkit {gdkit.__version__}", *(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)]
    device = f"{jax.devices()[0].device_kind}, {count_visible_cores()} cores visible"
    return {"versions": ", ".join(versions), "device": device, "took": format_duration(seconds)}


def _write_outputs(
    config: StudyConfig,
    module: ModuleType,
    result: Any,
    claims: Sequence[StudyClaim],
    folder: Path,
    provenance: Mapping[str, str],
    show: Show,
) -> None:
    """Print the result and the claims; write figures and report."""
    console = Console(highlight=False, quiet=show != "all")
    text = str(result) if type(result).__str__ is not object.__str__ else ""
    if text:
        console.print(text, markup=False)
        publish_output(folder / OUTPUT, [f"{text}\n".encode()])
    terminal.print_claims(console, claims)
    drawn = _draw(module, result, folder / figures.FOLDER)
    page = report.write_study_report(config, text, claims, drawn, folder, provenance, module.__doc__ or "")
    paths = {"report": page, "figures": folder / figures.FOLDER}
    held = f"{sum(bool(claim.holds) for claim in claims)} of {count(len(claims), 'claim')} hold."
    if show == "all":
        print_paths(paths)
    elif show == "line":
        print(f"{config.name}: {held} Report: {page}")
    else:
        named = {what: str(path) for what, path in paths.items()}
        table = list(map(_claim_to_json, claims))
        print(records.dump({"name": config.name, "answer": held, "claims": table, "paths": named}))


def _draw(module: ModuleType, result: Any, folder: Path) -> list[figures.SavedFigure]:
    """Save the figures and animations of a study: its `plot` returns one, or a mapping of names to them.

    The first paragraph of the docstring of `plot` is the caption of the first.
    """
    if not hasattr(module, "plot"):
        return []
    figures.make_folder(folder)
    plots = module.plot(result)
    named = plots if isinstance(plots, Mapping) else {module.__name__.rpartition(".")[2]: plots}
    files = figures.name_files(map(str, named))
    captions = itertools.chain([first_paragraph(inspect.getdoc(module.plot))], itertools.repeat(""))
    return [
        figures.save_figure(figure, folder / file, str(name).replace("_", " "), caption)
        for file, (name, figure), caption in zip(files, named.items(), captions, strict=False)
    ]
