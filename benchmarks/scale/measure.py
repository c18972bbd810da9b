"""Cost of a store, a coordinator, a scheduler and a worker per tile and per lane, measured on this machine.

Times are the least of a few, by the wall clock, since a store waits for a disk; each part runs in a process of its own.
"""

import multiprocessing
import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gdkit
from benchmarks import timing
from gdkit import Plan, problems, sgd
from gdkit.store import Kind, Manifest, Partition, Store, StoredGroup, paths
from gdkit.store.files import FILES
from gdkit.sweeps.description import describe
from gdkit.sweeps.execution import processes
from gdkit.sweeps.execution.executors import Pool, make_pool
from gdkit.sweeps.execution.head_start import HeadStart
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.blocks import Block, cut_blocks
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import trace_groups
from gdkit.sweeps.programs.job import Job
from gdkit.sweeps.request import SweepRequest, check_request
from gdkit.sweeps.rundir.archive import UnfinishedRun
from gdkit.sweeps.rundir.manifest import RunDirectory

UNSYNCED = FILES._replace(fsync=lambda _: None, fsync_folder=lambda _: None)  # for files that are only read
STATISTICS = 12
LANES = 10**6
ROWS = (1024, 8192, 65536)  # lanes per tile
VALIDATED = (10**7, 8192)  # lanes, and lanes per tile, of a store that the constants do not come from
LISTED = (10**5, 10**6)  # tiles
OPENED = ((LANES, 8192), (8 * 10**5, 8))  # lanes, and lanes per tile: many lanes, and many tiles
_TASKS = 1000


def everything(folder: Path) -> dict[str, Any]:
    """All constants, and the store that validates them; scratch files go under `folder`."""
    if shutil.disk_usage(folder).free < 4 * 10**9:
        raise SystemExit(f"{folder}: less than 4 GB are free. Name another folder.")
    coordinators = ((10**5, 1024), (10**6, 1024), (10**5, 1), (2 * 10**5, 1))
    return {
        "machine": machine(),
        "columns": run_alone(columns),
        "stores": [run_alone(store, folder, LANES, rows) for rows in ROWS],
        "listing": [run_alone(listing, folder, tiles) for tiles in LISTED],
        "openings": [run_alone(opening, folder, *sizes) for sizes in OPENED],
        "coordinators": [run_alone(coordinator, folder, *sizes) for sizes in coordinators],
        "tasks": {"a process pool": run_alone(pool_tasks), "Dask": run_alone(dask_tasks)},
        "looking": run_alone(looking),
        "worker": worker(folder),
        "validation": run_alone(store, folder, *VALIDATED),
    }


def run_alone(function: Callable, *arguments: Any) -> Any:
    """Call a function in its own process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine() -> dict[str, Any]:
    """Versions and hardware of the measurement."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"gdkit": gdkit.__version__, "jax": jax.__version__, "numpy": np.__version__}
    return {"cores": os.cpu_count(), "memory": memory, "python": platform.python_version(), **versions}


class Peak:
    """Growth of the peak memory of this process, in bytes (Linux)."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self._begin = timing.read_memory("VmRSS")

    @property
    def bytes(self) -> int:
        return timing.read_memory("VmHWM") - self._begin


def seconds(function: Callable[[], Any], times: int = 3) -> float:
    """Shortest time of a call."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return min(found)


# The store


def manifest_of(lanes: int, rows: int, **fields: Any) -> Manifest:
    """One group of lanes and 12 statistics in single precision, `rows` lanes per tile."""
    group = StoredGroup(0, (lanes,), (0,), (None,), 1, width=rows, depth=1, tile=1)
    kinds = {f"statistic_{i:02d}": Kind("float32", ()) for i in range(STATISTICS)}
    return Manifest({}, Partition((group,)), kinds, seeds=1, steps=1, dtype="float32", **fields)


def store(folder: Path, lanes: int, rows: int) -> dict[str, float]:
    """A run directory written tile by tile, listed, opened, read in part and whole, and removed."""
    values = np.random.default_rng(0).normal(size=lanes).astype(np.float32)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        peak, begin = Peak(), time.perf_counter()
        made = Store.create(Path(name) / "run", manifest_of(lanes, rows))
        for tile in range(made.partition.tiles):
            part = values[tile * rows : (tile + 1) * rows]
            made.put_tile(tile, dict.fromkeys(made.manifest.columns, part))
        found = {"lanes": lanes, "rows": rows, "tiles": made.partition.tiles, "write": time.perf_counter() - begin}
        found |= {"write_peak": peak.bytes, "bytes": sum(f.stat().st_size for f in made.path.rglob("*.npz"))}
        found |= {"folders": sum(f.is_dir() for f in (made.path / "tiles").iterdir())}
        found["list"] = seconds(made.finished)
        found["lazy"] = seconds(lambda: Store.open(made.path).lazy_columns())
        lazy = made.lazy_columns()
        found["one_lane"] = seconds(lambda: lazy.isel(lane=lanes // 2).load())
        found["verify"] = seconds(lambda: made.status(verify=True), times=1)
        peak = Peak()
        begin = time.perf_counter()
        read = made.columns().values
        found |= {"read": time.perf_counter() - begin, "read_peak": peak.bytes}
        assert all(np.array_equal(column, values) for column in read.values())
    return found


def listing(folder: Path, tiles: int) -> dict[str, float]:
    """Listing many tiles by name, and the whole command `gdkit status`."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = Store.create(Path(name) / "run", manifest_of(tiles, 1))
        for number in range(tiles):
            path = paths.numbered_path(made.path / "tiles", "tile", number, tiles)
            if number % paths.PER_FOLDER == 0:
                path.parent.mkdir()
            os.close(os.open(path, os.O_CREAT))
        assert made.finished().all()
        command = [sys.executable, "-m", "gdkit", "status", str(made.path)]
        status = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        return {"tiles": tiles, "list": seconds(made.finished), "status": status}


# A sweep


def make_request(lanes: int, *, plan: Plan | None = None, steps: int = 10, curve_points: int = 0) -> SweepRequest:
    """A sweep of a scalar loss."""
    rates = {"learning_rate": np.geomspace(1e-3, 1, lanes)}
    return check_request(problems.parabola(), sgd, rates, steps=steps, curve_points=curve_points, plan=plan)


def columns() -> dict[str, int]:
    """Bytes per lane in a store with no curve and with 200 points, and its number of statistics."""
    request = make_request(8, plan=Plan(width=8))
    job = processes.build_job(request, next(trace_groups(request)), jax.devices()[:1], Shape(8, 1))
    output = job.programs[0].output
    own = sum(np.dtype(x.dtype).itemsize * int(np.prod(x.shape[2:])) for x in output.values())
    return {
        "statistics": len(output),
        "bytes": own,
        "curve_bytes": 4 * make_request(8, curve_points=200, steps=10_000).recorded_points,
    }


def coordinator(folder: Path, lanes: int, width: int) -> dict[str, float]:
    """Time to prepare a sweep in a run directory, and to dispatch its tiles with one block each."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        paths = (Path(name) / f"run{number}" for number in range(9))
        plan = Plan(width=width, depth=1, tile=1)
        _open_run(next(paths), make_request(width, plan=plan))[1].close()  # imports
        peak, begin = Peak(), time.perf_counter()
        request = make_request(lanes, plan=plan)
        jobs, left = _open_run(next(paths), request)
        found = {"lanes": lanes, "peak": peak.bytes, "prepare": time.perf_counter() - begin}
        begin = time.perf_counter()
        found["tiles"] = len(left.cut_tiles(jobs[0]))
        found["deal"] = time.perf_counter() - begin
        sizes = {f.suffix: f.stat().st_size for f in left.archive.run.path.iterdir() if f.is_file()}
        left.close()
        more = seconds(lambda: _open_run(next(paths), request)[1].close(), times=2)
    found |= {"prepare": min(found["prepare"], more), "manifest": sizes[".json"], "lists": sizes.get(".npz", 0)}
    return found | {"sent": len(processes.pack_sweep(request).pickled)}


def _open_run(path: Path, request: SweepRequest) -> tuple[list[Job], UnfinishedRun]:
    compiler = JobCompiler(request, list(trace_groups(request)), workers=1)
    with HeadStart(0, None, DEFAULT_SETTINGS) as head_start:
        return compiler.open_run(RunDirectory(path), head_start)


def opening(folder: Path, lanes: int, rows: int) -> dict[str, float]:
    """`gdkit.open` of a run with 12 statistics per lane, and of the file that it is saved in."""
    own = ("initial_loss", "final_loss", "min_loss", "late_mean", "end_step", "end_kind", *map(str, range(6)))
    kinds = {name: Kind("int32" if name.startswith("end") else "float32", ()) for name in own}
    described = describe(make_request(lanes), stochastic=False, optimum_known=True, maximized=(), plan={})
    wanted = manifest_of(lanes, rows, plan={"result": described.as_json()})._replace(columns=kinds)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = Store.create(Path(name) / "run", wanted, files=UNSYNCED)
        for tile in range(made.partition.tiles):
            here = made.partition.rows(tile)
            made.put_tile(tile, {column: np.ones(here, kind.dtype) for column, kind in kinds.items()})
        saved = Path(name) / "results.nc"
        gdkit.open(made.path).save(saved)
        gdkit.open(saved)  # imports
        peak = Peak()
        found = {"lanes": lanes, "tiles": made.partition.tiles, "open": seconds(lambda: gdkit.open(made.path))}
        found |= {"peak": peak.bytes, "open_file": seconds(lambda: gdkit.open(saved))}
    return found


# Schedulers


def nothing(*_: Any) -> None:
    """A task that does nothing."""


def _make_task(number: int, blocks: tuple[Block, ...]) -> processes.Task:
    return processes.Task(0, Shape(1024, 1), "0" * 64, (number,), (blocks,))


def deal_tasks(pool: Pool, tasks: int) -> None:
    """Submit tasks as the executors submit tiles: two for each that the pool runs at once."""
    request = make_request(1024)
    sent, running, left = pool.share(processes.pack_sweep(request)), set(), iter(range(tasks))
    block = cut_blocks(1024, 1, Shape(1024, 1))[0]
    while True:
        for number in left:
            running.add(pool.submit(nothing, sent, _make_task(number, (block,))))
            if len(running) == 2 * pool.size:
                break
        if not running:
            return
        running = wait(running, return_when=FIRST_COMPLETED).not_done


def message() -> int:
    """Bytes of a task, without its sweep."""
    return len(pickle.dumps(_make_task(0, ())))


def pool_tasks() -> dict[str, float]:
    """Seconds per task with two processes of Python's pool."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return _tasks(make_pool(pool))


def dask_tasks() -> dict[str, float]:
    """Seconds per task with a scheduler and two workers on this machine."""
    import distributed

    settings = {"threads_per_worker": 1, "dashboard_address": "localhost:0"}
    with distributed.LocalCluster(n_workers=2, **settings) as cluster, distributed.Client(cluster) as client:
        return _tasks(make_pool(client))


def _tasks(pool: Pool) -> dict[str, float]:
    deal_tasks(pool, 50)  # begins the workers
    return {"workers": pool.size, "task": seconds(lambda: deal_tasks(pool, _TASKS)) / _TASKS, "message": message()}


def looking() -> dict[str, float]:
    """Seconds that one check for finished tasks takes, by the number of running tasks."""
    found = {}
    for running in (20, 200, 2000):
        futures: set[Future] = {Future() for _ in range(running)}
        next(iter(futures)).set_result(None)
        found[str(running)] = seconds(lambda futures=futures: wait(futures, 0, FIRST_COMPLETED), times=20)
    return found


# A worker

_WORKER = """
import time
begin = time.perf_counter()
import gdkit
from gdkit import Plan, problems, sgd, sweep
problem = problems.mlp("digits", batch_size=128)
imported = time.perf_counter()
sweep(problem, sgd, {"learning_rate": [0.1]}, steps=1, plan=Plan(width=1, unroll=1))
print(imported - begin, time.perf_counter() - imported)
"""


def worker(folder: Path) -> dict[str, float]:
    """Seconds until a new process has run its first block of a small network, without and with cached programs."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environment = os.environ | settings | {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
        command = [sys.executable, "-c", _WORKER]
        runs = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in range(3)]
    (_, cold), *again = [tuple(map(float, run.stdout.split())) for run in runs]
    return {"import": min(i for i, _ in again), "cold": cold, "warm": min(w for _, w in again)}
