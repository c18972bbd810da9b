"""Seconds around the arithmetic of the main job: to the answer, to the end, on a finished run, from a fresh clone."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import timing
from gdkit import Plan
from gdkit.sweeps.request import check_request
from gdkit.sweeps.sweep import run_request

ROOT = Path(__file__).parent.parent
CONFIG = "configs/digits_mlp.yaml"
ANSWER = ("Use ", "No run converged")  # the line with the recommendation begins so


def run(*, quick: bool = False) -> dict[str, Any]:
    """Medians of interleaved rounds; the programs are in the cache of compiled programs, as after an earlier run."""
    overrides = ("sweep.steps=6",) if quick else ()
    with tempfile.TemporaryDirectory() as folder:
        run_alone = _prepare_steps(overrides)
        if not quick:
            _time_command(overrides, Path(folder, "warm"))
        rounds: dict[str, list[float]] = {name: [] for name in ("steps", "answer", "end", "finished")}
        for number in range(1 if quick else 3):
            output = Path(folder, str(number))
            first, again = _time_command(overrides, output), _time_command(overrides, output)
            for name, seconds in zip(rounds, (run_alone(), *first, again[1]), strict=True):
                rounds[name].append(seconds)
        fresh = {} if quick else {"fresh": _time_fresh_clone(Path(folder, "clone"))}
    seconds = {name: statistics.median(taken) for name, taken in rounds.items()}
    beyond = {f"{name}_beyond": seconds[name] - 1.3 * seconds["steps"] for name in ("answer", "end")}
    return seconds | beyond | {"imports": _time_imports(1 if quick else 3)} | fresh


def _prepare_steps(overrides: tuple[str, ...]) -> Any:
    """A function that times the sweep alone, in memory, with programs that this process has compiled."""
    from gdkit.app.config.build import build_arguments
    from gdkit.app.config.loading import load

    job: Any = load(ROOT / CONFIG, overrides)
    request = check_request(**build_arguments(job), plan=Plan())
    run_request(request)
    return lambda: timing.seconds(lambda: run_request(request))


def _time_fresh_clone(clone: Path) -> dict[str, float]:
    """What a new user waits for: the installation from a fresh clone, and the first run, whose programs are compiled.

    Returns seconds of the installation, of the first answer and of the answer of a second run; packages, and bytes of
    their files.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    inherited = ("VIRTUAL_ENV", "VENV", "PYTHONPATH", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    environment |= {"XDG_CACHE_HOME": str(clone / "cache"), "PYTHON": sys.executable}
    install = lambda: subprocess.run(["make", "--silent", "env-app"], cwd=clone, env=environment, check=True)
    seconds = timing.seconds(install)
    python = clone / ".venv" / "bin" / "python"
    (packages,) = clone.glob(".venv/lib/*/site-packages")
    time_run = lambda name: _time_command((), clone / name, python=python, root=clone, environment=environment)
    return {
        "install": seconds,
        "first_answer": time_run("first")[0],
        "second_answer": time_run("second")[0],
        "packages": len(list(packages.glob("*.dist-info"))),
        "bytes": sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()),
    }


def _time_command(
    overrides: tuple[str, ...],
    output: Path,
    *,
    python: str | Path = sys.executable,
    root: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
) -> tuple[float, float]:
    """Seconds from the start of the command to its printed answer, and to its end."""
    words = [str(python), "-m", "gdkit", "run", CONFIG, *overrides, "--output", str(output)]
    environment, answered = {**environment, "PYTHONUNBUFFERED": "1"}, None
    begin = time.perf_counter()
    with subprocess.Popen(
        words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout or ():
            if line.startswith(ANSWER) and answered is None:
                answered = time.perf_counter() - begin
    if process.returncode or answered is None:
        raise RuntimeError(f"{' '.join(words)} printed no answer, or failed: exit code {process.returncode}")
    return answered, time.perf_counter() - begin


def _time_imports(rounds: int) -> dict[str, float]:
    """Seconds that each import takes in a process of its own, Python's start included."""
    modules = ("sys", "gdkit", "jax", "gdkit.sweeps.sweep", "gdkit.app.run.run", "matplotlib.figure")
    call = lambda name: subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, check=True)
    return {name: min(timing.seconds(lambda name=name: call(name)) for _ in range(rounds)) for name in modules}
