"""A sweep has the same bits whoever runs its tiles, and loses none when a worker dies."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.app.command_line.main import main
from gdkit.errors import InputTypeError, InputValueError, RunError, StoreError
from gdkit.store import Store
from gdkit.sweeps.execution import executors, processes, threads
from gdkit.sweeps.execution.progress import Meter
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import build_job
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir import manifest
from gdkit.sweeps.rundir.archive import RunArchive
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request as run_checked

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]
PLAN = Plan(width=2, depth=1, tile=2)
PARENT = "GDKIT_TEST_PARENT"


@pytest.fixture(scope="module")
def iris():
    return problems.mlp("iris", widths=(5,), batch_size=16)


def run(problem, **options):
    options = {"seeds": 3, "steps": 60, "plan": PLAN, **options}
    return sweep(problem, sgd, {"learning_rate": RATES}, **options)


@pytest.fixture(scope="module")
def straight(iris):
    return run(iris)


@pytest.fixture(scope="module", autouse=True)
def parent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARENT, str(os.getpid()))
        yield


@pytest.fixture(autouse=True)
def told_of_every_tile(monkeypatch):
    monkeypatch.setattr(Meter.__init__, "__defaults__", (0.0,))


def spawning(workers=2):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def dask(workers=2, **settings):
    config = pytest.importorskip("dask.config", reason="Dask is not installed: pip install 'gdkit[dask]'")
    import distributed

    with (
        config.set({"distributed.scheduler.allowed-failures": 1, **settings}),
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="localhost:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def cluster():
    with dask() as client:
        yield client


@contextlib.contextmanager
def loky(workers=2):
    module = pytest.importorskip("loky", reason="loky is not installed")
    executor = module.ProcessPoolExecutor(workers)
    yield executor
    executor.shutdown()


@contextlib.contextmanager
def mpi(workers=2):
    reason = "mpi4py or an MPI library is not installed"
    futures = pytest.importorskip("mpi4py.futures", reason=reason, exc_type=(ImportError, RuntimeError))
    with futures.MPIPoolExecutor(workers) as executor:
        yield executor


def assert_same_bits(a, b):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name in a.lanes.variables:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=str(name))
        assert a.lanes[name].dtype == b.lanes[name].dtype


@pytest.mark.parametrize("engine", [spawning, loky, "cluster", mpi])
def test_processes_give_the_same_bits_with_a_directory_and_without(engine, iris, straight, tmp_path, request):
    running = contextlib.nullcontext(request.getfixturevalue(engine)) if isinstance(engine, str) else engine()
    with running as executor:
        assert_same_bits(run(iris, executor=executor), straight)
        assert_same_bits(run(iris, executor=executor, store=tmp_path / "run"), straight)
    assert not list((tmp_path / "run" / "claims").iterdir())
    assert_same_bits(run(iris, store=tmp_path / "run"), straight)  # all is there


def once(action):
    """A callback of progress that does something the first time that lanes are finished, and not all are."""
    left = [action]

    def tell(progress):
        if left and 0 < progress.lanes_done < progress.lanes:
            left.pop()()

    return tell, left


def test_a_process_pool_whose_worker_is_killed_is_begun_anew(iris, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_LARGE", 0)  # so that both pools read the sweep from a file
    with spawning() as pool:
        tell, left = once(lambda: os.kill(next(iter(pool._processes)), signal.SIGKILL))
        assert_same_bits(
            run(iris, executor=pool, progress=tell, store=tmp_path, plan=Plan(width=1, depth=1)),
            run(iris, plan=Plan(width=1, depth=1)),
        )
        assert not left


def test_dask_goes_on_when_a_worker_is_killed(iris, cluster):
    narrow = Plan(width=1, depth=1)
    workers = cluster.run(os.getpid)
    tell, left = once(lambda: os.kill(next(iter(workers.values())), signal.SIGKILL))
    assert_same_bits(run(iris, executor=cluster, progress=tell, plan=narrow), run(iris, plan=narrow))
    assert not left


def deadly(learning_rate):
    """An optimizer that kills the process it runs in at one learning rate, unless it is the parent."""

    def strike(rate):
        rate = np.asarray(rate)  # it is JAX's, and to compute with JAX in here can wait for its own caller for ever
        if np.any(rate == np.float32(0.1)) and str(os.getpid()) != os.environ[PARENT]:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros_like(rate)

    def update(updates, state, params=None):
        nothing = jax.pure_callback(
            strike, jax.ShapeDtypeStruct((), jnp.float32), learning_rate, vmap_method="expand_dims"
        )
        return jax.tree.map(lambda g: -learning_rate * g + nothing, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize("engine", [spawning, pytest.param(dask, marks=pytest.mark.full)])
def test_a_tile_that_kills_its_workers_is_named_and_the_others_are_run(engine, tmp_path):
    axes, plan = {"learning_rate": [0.01, 0.03, 0.1, 0.3, 0.9]}, Plan(width=1, tile=1)
    with engine() as pool, pytest.raises(RunError, match=r"tile 2 \(lane 2\)\. All others are finished"):
        sweep(problems.parabola(), deadly, axes, steps=3, plan=plan, executor=pool, store=tmp_path)
    assert Store.open(tmp_path).finished().tolist() == [True, True, False, True, True]


# The desk, without other processes


class Pickling(Executor):
    """Runs tasks here and now, as if they and what they return went to another process and back."""

    def __init__(self, dies=()):
        self.dies, self.calls = set(dies), 0

    def submit(self, function, /, *arguments):
        self.calls += 1
        future = Future()
        try:
            if self.calls in self.dies:
                raise BrokenExecutor("it died")
            function, arguments = pickle.loads(pickle.dumps((function, arguments)))
            future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        except Exception as error:
            future.set_exception(pickle.loads(pickle.dumps(error)))
        return future


@pytest.fixture(autouse=True)
def can_begin_anew(monkeypatch):
    again = executors._again
    monkeypatch.setattr(executors, "_again", lambda e: (lambda **_: e, ()) if isinstance(e, Pickling) else again(e))
    monkeypatch.setattr(Pickling, "shutdown", lambda self, wait=True: None)


def test_a_worker_traces_a_sweep_once(iris, straight, monkeypatch):
    crews = []
    monkeypatch.setattr(processes._WorkerSweep, "__init__", counted(processes._WorkerSweep.__init__, crews))
    executor = Pickling()
    assert_same_bits(run(iris, executor=executor), straight)
    assert executor.calls == -(-3 * 3 // 2) and len(crews) == 1


def test_there_are_tiles_for_all_workers_of_a_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(
        manifest.timing, "measure_pace", lambda job, workers: 1e-9
    )  # a step of a lane takes a nanosecond
    executor = Pickling()
    executor.num_workers = 4
    rates = {"learning_rate": np.geomspace(0.01, 1, 64)}
    sweep(problems.parabola(), sgd, rates, steps=5, plan=Plan(width=1), executor=executor, store=tmp_path)
    assert Store.open(tmp_path).partition.tiles == executor.calls == 16


def test_a_large_sweep_is_read_from_a_file_of_the_pool_and_a_small_one_travels_with_the_task(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rates = lambda count: {"learning_rate": np.linspace(0.1, 0.2, count)}
    sent = [processes.sent_of(check_request(problems.parabola(), sgd, rates(n), steps=3), None) for n in (10, 200_000)]
    with contextlib.closing(executors.pool_of(spawning())) as pool:
        small, large = map(pool.place, sent)
        assert small == sent[0]
        assert len(pickle.dumps(large)) < 5000 and processes._WorkerSweep(large).request.lane_count == 200_000
        assert large.file.parent.stat().st_mode & 0o077 == 0  # nobody else can put anything there
    assert not list(tmp_path.iterdir())
    elsewhere = executors.pool_of(Pickling())  # other machines may not find the file
    assert elsewhere.place(sent[1]) == sent[1]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    assert executors.pool_of(spawning()).place(sent[1]) == sent[1]


def counted(function, calls):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def test_tiles_of_workers_that_die_are_run_again(iris, straight):
    assert_same_bits(run(iris, executor=Pickling(dies={1, 2, 4})), straight)


def test_workers_that_always_die_end_the_run(iris):
    with pytest.raises(RunError, match=r"workers die before anything is finished: it died.*__main__"):
        run(iris, executor=Pickling(dies=range(1, 1000)), plan=Plan(width=1, depth=1))


def test_an_executor_of_an_unknown_kind_that_breaks_is_named(iris, monkeypatch):
    monkeypatch.setattr(executors, "_again", lambda executor: (None, ()))
    with pytest.raises(RunError, match="a worker of Pickling died, and it cannot be started anew"):
        run(iris, executor=Pickling(dies={1}))


@pytest.mark.parametrize("half", ["write_tile", "name_tile"])
def test_an_error_in_a_worker_is_raised_here(iris, tmp_path, monkeypatch, half):
    monkeypatch.setattr(Store, half, lambda *_: (_ for _ in ()).throw(StoreError("no room")))
    with pytest.raises(StoreError, match="no room"):
        run(iris, executor=Pickling(), store=tmp_path)
    assert not list((tmp_path / "claims").iterdir())


def test_a_run_by_processes_stops_when_asked_and_goes_on_with_threads(iris, straight, tmp_path, monkeypatch):
    stop, name = threading.Event(), Store.name_tile
    monkeypatch.setattr(Store, "name_tile", lambda *a: (name(*a), stop.set()))
    request = check_request(iris, sgd, {"learning_rate": RATES}, seeds=3, steps=60, plan=PLAN)
    result, kept = run_checked(request, None, Pickling(), where=RunDirectory(tmp_path), stop=stop)
    assert 0 < result.missing < result.lanes.sizes["lane"] and kept is None
    assert_same_bits(run(iris, store=tmp_path), straight)


def test_a_worker_that_is_asked_to_stop_keeps_its_lanes_and_says_so(iris, tmp_path):
    request = check_request(iris, sgd, {"learning_rate": RATES}, seeds=3, steps=60, plan=PLAN)
    run_checked(request, where=RunDirectory(tmp_path, shard=(0, 99)))  # its first tile
    archive = RunArchive(Store.open(tmp_path), request.recorded_points)
    sent = processes.sent_of(request, archive)
    sent.asked.touch()
    crew = processes._crew_of(sent)
    shape = Shape(PLAN.width, PLAN.depth)
    program = build_job(crew.request, crew.planned.prepared[0], crew.planned.devices, shape).programs[0].fingerprint
    assert processes.run_tile(sent, processes.Task(0, shape, program, 1, ())) is None
    with pytest.raises(RunError, match="a worker compiles another program"):
        processes.run_tile(sent, processes.Task(0, shape, "other", 1, ()))


def test_tiles_of_others_are_awaited(iris, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.01)
    refused, take = [], Store.claim

    def claim(self, tile, *rest):
        if len(refused) < 3:
            refused.append(tile)
            return False
        return take(self, tile, *rest)

    monkeypatch.setattr(Store, "claim", claim)
    assert_same_bits(run(iris, executor=Pickling(), store=tmp_path), straight)
    assert len(refused) == 3


def test_memory_that_a_worker_lacks_halves_its_blocks(iris, straight, monkeypatch):
    run_block = threads.run_block

    def small(job, *rest):
        if job.lanes_per_block > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return run_block(job, *rest)

    monkeypatch.setattr(threads, "run_block", small)
    result = run(iris, executor=Pickling())
    np.testing.assert_allclose(result.lanes["final_loss"], straight.lanes["final_loss"], rtol=1e-3)


# Bad input


def test_what_is_no_executor_or_forks_is_refused(iris):
    with pytest.raises(InputTypeError, match=r"executor='two': no executor.*ProcessPoolExecutor"):
        run(iris, executor="two")
    with pytest.raises(InputTypeError, match=r"executor=.*: no executor.*Submit gdkit\.sweep itself"):
        run(iris, executor=types.SimpleNamespace(submit=print))
    forking = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pytest.raises(InputValueError, match=r"executor=.*it forks this process.*'spawn'"):
        run(iris, executor=forking)


def test_what_cannot_be_pickled_is_named(iris, monkeypatch):
    lock = threading.Lock()

    def loss(x):
        with lock:
            return jnp.sum(x**2)

    rates = {"learning_rate": [0.1]}
    with pytest.raises(InputValueError, match=r"problem\.loss=.*cannot be sent to another process.*lock"):
        sweep(Problem(loss, jnp.ones(2)), sgd, rates, steps=3, executor=Pickling())
    monkeypatch.setattr(processes, "_dumps", pickle.dumps)  # without cloudpickle
    with pytest.raises(InputValueError, match=r"problem\.loss=.*Install cloudpickle"):
        run(iris, executor=Pickling())
    plain = Problem(jnp.sum, jnp.ones(2))
    with pytest.raises(InputValueError, match=r"monitors\[0\]"):
        sweep(plain, sgd, rates, steps=3, executor=Pickling(), monitors=[gdkit.monitors.time_to(0.1)])


# The command line


CONFIG = """
name: iris
problem: {name: mlp, data: iris, widths: [5], batch_size: 16}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: {log: {from: 1e-3, to: 100, count: 5}}}, seeds: 3, steps: 60}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "iris.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def by_hand(config):
    assert main(["run", str(config), "--output", str(config.parent / "by_hand")]) == 0
    return gdkit.open(config.parent / "by_hand")


def test_a_config_runs_on_a_dask_cluster(config, by_hand, cluster, tmp_path):
    words = ["run", str(config), "--output", str(tmp_path / "run"), "--dask", cluster.scheduler.address]
    assert main(words) == 0
    assert_same_bits(gdkit.open(tmp_path / "run"), by_hand)


def test_a_scheduler_that_is_not_there_and_one_without_workers_are_named(config, tmp_path, capsys):
    words = ["run", str(config), "--output", str(tmp_path / "run"), "--dask"]
    assert main([*words, "nowhere"]) == 1
    assert "--dask nowhere: no scheduler answers (" in capsys.readouterr().err
    with dask(workers=0) as client:
        assert main([*words, client.scheduler.address]) == 1
    assert "the scheduler has no workers. Start some with: dask worker tcp://" in capsys.readouterr().err


def test_processes_under_a_launcher_run_a_shard_each_and_have_all(config, by_hand, tmp_path, unused_port):
    words = [sys.executable, "-m", "gdkit", "run", str(config), "--output", str(tmp_path / "run"), "--distributed"]
    place = {"JAX_COORDINATOR_ADDRESS": f"localhost:{unused_port}", "JAX_NUM_PROCESSES": "2"}
    environments = [{**os.environ, **place, "JAX_PROCESS_ID": str(i)} for i in range(2)]
    started = [subprocess.Popen(words, env=e, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for e in environments]
    said = [process.communicate(timeout=300)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert_same_bits(gdkit.open(tmp_path / "run"), by_hand)


@pytest.fixture
def unused_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def test_what_is_asked_of_several_processes_at_once_or_alone_is_refused(config, capsys):
    assert main(["run", str(config), "--distributed", "--shard", "1/2"]) == 2
    assert "--distributed assigns the shards itself" in capsys.readouterr().err
    assert main(["run", str(config), "--distributed"]) == 2
    assert "JAX_COORDINATOR_ADDRESS" in capsys.readouterr().err
    assert main(["run", "configs/parabola.yaml", "--shard", "1/2"]) == 2
    assert "a study runs in one process" in capsys.readouterr().err
