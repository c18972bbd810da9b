"""Results of the benchmark: one JSON file per machine, updated part by part."""

import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

import jax

import gdkit
from gdkit.sweeps.plan.shapes import count_visible_cores

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "torch", "optuna")


def path(folder: Path, variant: str = "") -> Path:
    """Path of this machine's file."""
    device = jax.devices()[0]
    name = processor() if device.platform == "cpu" else device.device_kind
    words = re.sub(r"[^a-z0-9]+", "-", f"{name} {count_visible_cores()} cores".lower()).strip("-")
    return folder / f"{words}{variant}.json"


def save_part(file: Path, part: str, result: Any, *, seconds: float, load: float, quick: bool) -> None:
    """Save the result of a part, in place of an earlier one."""
    results = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    results["machine"] = machine()
    results["parts"][part] = {
        "date": dt.date.today().isoformat(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "seconds": seconds,
        "load": load,
        "quick": quick,
        "result": result,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    text = json.dumps(_round_numbers(results), indent=1, ensure_ascii=False, allow_nan=False)
    new.write_text(f"{text}\n", encoding="utf-8")
    new.replace(file)


def read(folder: Path) -> list[dict[str, Any]]:
    """Results of all machines, ordered by file name."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stem)
    return [json.loads(file.read_text(encoding="utf-8")) | {"name": file.stem} for file in files]


def machine() -> dict[str, Any]:
    """Hardware and system, without anything that identifies the machine."""
    device = jax.devices()[0]
    return {
        "processor": processor(),
        "cores": count_visible_cores(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """Model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    installed = {"gdkit": gdkit.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def load() -> float:
    """Load average over the last minute."""
    return os.getloadavg()[0]


def _round_numbers(value: Any) -> Any:
    """Numbers with five significant digits, and None for infinite ones, which JSON lacks."""
    if isinstance(value, dict):
        return {str(key): _round_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_round_numbers(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
