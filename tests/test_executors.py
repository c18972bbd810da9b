"""A sweep has the same bits whoever runs its tiles, and loses none when a worker dies."""

import collections
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
from shared import RecordingRunBlock, assert_same_bits, fail_for_memory, quick, run_sweep

import gdkit
from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.app.cli import main
from gdkit.errors import InputTypeError, InputValueError, RunError, StoreError
from gdkit.store import Store
from gdkit.sweeps.execution import processes
from gdkit.sweeps.execution.executors import Pool, make_pool
from gdkit.sweeps.execution.jobs import JobCompiler
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import trace_groups
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.archive import RunArchive

RATES = [1e-3, 1e-2, 0.1, 1.0, 1e3]
PLAN = Plan(width=2, depth=1, tile=2)
PARENT = "GDKIT_TEST_PARENT"


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


SETTINGS = DEFAULT_SETTINGS._replace(progress_seconds=0.0)  # progress reports every tile


def run(problem, settings=SETTINGS, **options):
    options = {"seeds": 3, "steps": 60, "plan": PLAN, **options}
    return run_sweep(problem, sgd, {"learning_rate": RATES}, settings=settings, **options)


@pytest.fixture(scope="module")
def straight(iris):
    return run(iris)


@pytest.fixture(scope="module", autouse=True)
def parent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARENT, str(os.getpid()))
        yield


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
def loky(workers=1):
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


@pytest.mark.parametrize("engine", quick([spawning, loky, "cluster", mpi], mpi))
def test_processes_give_the_same_bits_with_a_directory_and_without(engine, iris, straight, tmp_path, request):
    running = contextlib.nullcontext(request.getfixturevalue(engine)) if isinstance(engine, str) else engine()
    with running as executor:
        assert_same_bits(run(iris, executor=executor), straight)
        assert_same_bits(run(iris, executor=executor, store=tmp_path / "run"), straight)
    assert not list((tmp_path / "run" / "claims").iterdir())
    assert_same_bits(run(iris, store=tmp_path / "run"), straight)  # all is there


def once(action):
    """A progress callback that calls `action` once some lanes have finished, and not all; and whether it is left."""
    left = [action]

    def report(progress):
        if left and 0 < progress.lanes_done < progress.lanes:
            left.pop()()

    return report, left


@pytest.mark.full
def test_a_process_pool_whose_worker_is_killed_is_restarted(iris, tmp_path):
    settings = SETTINGS._replace(large_request_bytes=0)  # so that both pools read the sweep from a file
    narrow = Plan(width=1, depth=1)
    with spawning(workers=1) as pool:
        report, left = once(lambda: os.kill(next(iter(pool._processes)), signal.SIGKILL))
        killed = run(iris, settings, executor=pool, progress=report, store=tmp_path, plan=narrow)
        assert_same_bits(killed, run(iris, plan=narrow))
        assert not left


@pytest.mark.full
def test_dask_continues_when_a_worker_is_killed(iris, cluster):
    narrow = Plan(width=1, depth=1)
    workers = cluster.run(os.getpid)
    report, left = once(lambda: os.kill(next(iter(workers.values())), signal.SIGKILL))
    assert_same_bits(run(iris, executor=cluster, progress=report, plan=narrow), run(iris, plan=narrow))
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


@pytest.mark.full
@pytest.mark.parametrize("engine", [spawning, dask])
def test_a_tile_that_kills_its_workers_is_named_and_the_others_are_run(engine, tmp_path):
    axes, plan = {"learning_rate": [0.01, 0.03, 0.1, 0.3, 0.9]}, Plan(width=1, tile=1)
    with engine() as pool, pytest.raises(RunError, match=r"tile 2 \(lane 2\)\. All other tiles are finished"):
        sweep(problems.parabola(), deadly, axes, steps=3, plan=plan, executor=pool, store=tmp_path)
    assert Store.open(tmp_path).finished().tolist() == [True, True, False, True, True]


# The scheduler, without other processes


class Pickling(Executor):
    """Runs tasks at once in this process; they and their results are pickled as if they came from another one."""

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


class Logged:
    """A source that records what is read in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, seed, t):
        with (self.folder / "reads.log").open("a") as file:
            file.write(f"{seed} {t}\n")
        return np.float32([seed + 1, t % 7])

    def count(self):
        return collections.Counter((self.folder / "reads.log").read_text().splitlines())


def distance(params, batch):
    return jnp.mean((params - batch) ** 2)


@pytest.mark.parametrize(("workers", "stored", "times"), [(1, False, {1}), (2, True, {1}), (4, False, {2})])
def test_a_process_reads_each_batch_once_for_all_of_its_tiles(workers, stored, times, tmp_path):
    source, executor = Logged(tmp_path), Pickling()
    executor._max_workers = workers  # as many processes, and so tasks
    problem = Problem(distance, jnp.zeros(2), batches=source)
    options = {
        "seeds": 2,
        "steps": 12,
        "plan": Plan(width=2, depth=1, tile=1),
        "store": tmp_path / "run" if stored else None,
    }
    result = sweep(
        problem, sgd, {"learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5, 9.0, 10.0, 11.0]}, executor=executor, **options
    )
    counts = source.count()
    assert executor.calls == workers and result.missing == 0
    assert {counts[f"{seed} {t}"] for seed in range(2) for t in range(1, 13)} == times
    expected = sweep(problem, sgd, {"learning_rate": result.axes["learning_rate"]}, **options | {"store": None})
    assert_same_bits(result, expected)


def test_tiles_with_batches_whose_worker_died_are_run_one_by_one(tmp_path):
    source, executor = Logged(tmp_path), Pickling(dies=[1])
    executor._max_workers = 1
    problem, plan = Problem(distance, jnp.zeros(2), batches=source), Plan(width=1, depth=1, tile=1)
    run_it = lambda **more: sweep(problem, sgd, {"learning_rate": [0.1, 0.2, 0.3]}, steps=9, plan=plan, **more)
    assert_same_bits(run_it(executor=RestartingPool(executor)), run_it())
    assert executor.calls == 4


def best_by_hand(seed, rate):
    """The params of the learner below at the best of its evaluations after 3, 6, 9 and 12 steps."""
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))
    x, visited = 2 + np.asarray(jax.random.normal(key, (3,)), float), []
    for t in range(12):
        x = x - rate * (x - [1, 2, 3, 0][t % 4])
        visited.append(x)
    return min(visited[2::3], key=lambda x: np.sum((x - 1.5) ** 2))


def test_a_learner_is_sent_with_its_data_and_returns_its_best_states(tmp_path):
    scale = jnp.float32(0.5)  # pickled with the functions that it is in

    def step(state, hyperparameters, t, key, data):
        x = state["params"] - hyperparameters["rate"] * (state["params"] - data[t % 4])
        return {"params": x, "key": jax.random.split(state["key"])[0]}, {"loss": scale * jnp.sum(x**2)}

    learner = gdkit.Learner(
        lambda key, hyperparameters: {"params": 2 + jax.random.normal(key, (3,)), "key": key},
        step,
        data=np.float32([1, 2, 3, 0]),  # which the step indexes by a traced number
        evaluate=lambda state, data: {"distance": jnp.sum((state["params"] - data.mean()) ** 2)},
    )
    options = {"steps": 12, "seeds": 2, "evaluate_every": 3, "keep_states": "best", "plan": Plan(width=1, depth=1)}
    run_it = lambda **more: sweep(learner, None, {"rate": [0.2, 0.9]}, **options, **more)
    result, expected = run_it(executor=Pickling(), store=tmp_path), run_it()
    assert_same_bits(result, expected)
    for lane in range(4):
        found, kept = gdkit.open(tmp_path).state(lane, at="best"), expected.state(lane, at="best")
        np.testing.assert_array_equal(found["params"], kept["params"])
        np.testing.assert_allclose(kept["params"], best_by_hand(lane % 2, [0.2, 0.9][lane // 2]), rtol=1e-5)
        assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(kept["key"]).tolist()


class RestartingPool(Pool):
    """A pool of a `Pickling` executor, which restarts by doing nothing."""

    def restart(self):
        pass


class CountedSgd:
    """sgd that counts how often it is unpickled."""

    loads = 0

    def __call__(self, learning_rate):
        return sgd(learning_rate)

    def __reduce__(self):
        return (_load_sgd, ())


def _load_sgd():
    CountedSgd.loads += 1
    return CountedSgd()


def test_a_worker_unpickles_and_traces_a_sweep_once(iris, straight):
    executor, before = Pickling(), CountedSgd.loads
    options = {"seeds": 3, "steps": 60, "plan": PLAN, "settings": SETTINGS, "executor": executor}
    assert_same_bits(run_sweep(iris, CountedSgd(), {"learning_rate": RATES}, **options), straight)
    assert executor.calls == -(-3 * 3 // 2) and CountedSgd.loads == before + 1


def test_there_are_tiles_for_all_workers_of_a_pool(tmp_path):
    settings = SETTINGS._replace(seconds_per_lane_step=lambda job, workers: 1e-9)
    executor = Pickling()
    executor.num_workers = 4
    rates = {"learning_rate": np.geomspace(0.01, 1, 64)}
    options = {"steps": 5, "plan": Plan(width=1), "executor": executor, "store": tmp_path, "settings": settings}
    run_sweep(problems.parabola(), sgd, rates, **options)
    assert Store.open(tmp_path).partition.tiles == executor.calls == 16


def test_a_large_sweep_is_read_from_a_file_of_the_pool_and_a_small_one_travels_with_the_task(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rates = lambda count: {"learning_rate": np.linspace(0.1, 0.2, count)}
    sent = [processes.pack_sweep(check_request(problems.parabola(), sgd, rates(n), steps=3)) for n in (10, 200_000)]
    with contextlib.closing(make_pool(spawning())) as pool:
        small, large = map(pool.share, sent)
        assert small == sent[0]
        assert len(pickle.dumps(large)) < 5000 and large.file.read_bytes() == sent[1].pickled
        assert large.file.parent.stat().st_mode & 0o077 == 0  # nobody else can put anything there
    assert not list(tmp_path.iterdir())
    elsewhere = make_pool(Pickling())  # other machines may not find the file
    assert elsewhere.share(sent[1]) == sent[1]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    assert make_pool(spawning()).share(sent[1]) == sent[1]


def test_tiles_of_workers_that_die_are_run_again(iris, straight):
    assert_same_bits(run(iris, executor=RestartingPool(Pickling(dies={1, 2, 4}))), straight)


def test_workers_that_always_die_end_the_run(iris):
    with pytest.raises(RunError, match=r"workers die before any tile finishes: it died.*__main__"):
        run(iris, executor=RestartingPool(Pickling(dies=range(1, 1000))), plan=Plan(width=1, depth=1))


def test_an_executor_of_an_unknown_kind_that_breaks_is_named(iris):
    with pytest.raises(RunError, match="a worker of Pickling died, and gdkit cannot restart executors of this kind"):
        run(iris, executor=Pickling(dies={1}))


@pytest.mark.parametrize("half", ["write_tile", "name_tile"])
def test_an_error_in_a_worker_is_raised_here(iris, tmp_path, half):
    failing = type("FailingStore", (Store,), {half: lambda *_: (_ for _ in ()).throw(StoreError("no room"))})
    with pytest.raises(StoreError, match="no room"):
        run(iris, SETTINGS._replace(store_class=failing), executor=Pickling(), store=tmp_path)
    assert not list((tmp_path / "claims").iterdir())


STOP = threading.Event()


class StoppingStore(Store):
    """Sets STOP, which pickling leaves alone, once a tile is published."""

    def name_tile(self, *arguments):
        super().name_tile(*arguments)
        STOP.set()


def test_a_run_by_processes_is_interrupted_and_resumed_by_threads(iris, straight, tmp_path):
    STOP.clear()
    settings = SETTINGS._replace(store_class=StoppingStore)
    result = run(iris, settings, executor=Pickling(), store=tmp_path, stop=STOP)
    assert 0 < result.missing < result.lanes.sizes["lane"] and result.origin is None
    assert_same_bits(run(iris, store=tmp_path), straight)


def test_a_worker_that_is_asked_to_stop_returns_nothing(iris, tmp_path):
    request = check_request(iris, sgd, {"learning_rate": RATES}, seeds=3, steps=60, plan=PLAN)
    run(iris, store=tmp_path, shard=(0, 99))  # its first tile
    archive = RunArchive(Store.open(tmp_path), request.recorded_points)
    sent = processes.pack_sweep(request, archive)
    sent.stop_file.touch()
    shape = Shape(PLAN.width, PLAN.depth)
    (job,) = JobCompiler(request, list(trace_groups(request)), workers=1).compile_jobs([shape])
    program = job.programs[0].fingerprint
    assert processes.run_tiles(sent, processes.Task(0, shape, program, numbers=(1,))) == []
    with pytest.raises(RunError, match="a worker compiles another program"):
        processes.run_tiles(sent, processes.Task(0, shape, "other", numbers=(1,)))


def test_tiles_of_others_are_awaited(iris, straight, tmp_path):
    refused = []

    class RefusingStore(Store):
        def claim(self, tile, *rest):
            if len(refused) < 3:
                refused.append(tile)
                return False
            return super().claim(tile, *rest)

    settings = SETTINGS._replace(store_class=RefusingStore, claim_poll_seconds=0.01)
    assert_same_bits(run(iris, settings, executor=Pickling(), store=tmp_path), straight)
    assert len(refused) == 3


@pytest.mark.full
def test_memory_that_a_worker_lacks_halves_its_blocks(iris, straight):
    fail = lambda job, block: fail_for_memory() if job.lanes_per_block > 1 else None
    result = run(iris, SETTINGS._replace(run_block=RecordingRunBlock(fail)), executor=Pickling())
    np.testing.assert_allclose(result.lanes["final_loss"], straight.lanes["final_loss"], rtol=1e-3)


# Bad input


def test_what_is_no_executor_or_forks_is_refused(iris):
    with pytest.raises(InputTypeError, match=r"executor='two': not an executor.*ProcessPoolExecutor"):
        run(iris, executor="two")
    with pytest.raises(InputTypeError, match=r"executor=.*: not an executor.*Submit gdkit\.sweep itself"):
        run(iris, executor=types.SimpleNamespace(submit=print))
    forking = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    with pytest.raises(InputValueError, match=r"executor=.*it forks this process.*'spawn'"):
        run(iris, executor=forking)


def test_what_cannot_be_pickled_is_named(iris):
    lock = threading.Lock()

    def loss(x):
        with lock:
            return jnp.sum(x**2)

    rates = {"learning_rate": [0.1]}
    with pytest.raises(InputValueError, match=r"problem\.loss=.*cannot be sent to another process.*lock"):
        sweep(Problem(loss, jnp.ones(2)), sgd, rates, steps=3, executor=Pickling())
    settings = SETTINGS._replace(dumps=pickle.dumps)  # without cloudpickle
    with pytest.raises(InputValueError, match=r"problem\.loss=.*Install cloudpickle"):
        run(iris, settings, executor=Pickling())
    plain, monitors = Problem(jnp.sum, jnp.ones(2)), [gdkit.monitors.time_to(0.1)]
    with pytest.raises(InputValueError, match=r"monitors\[0\]"):
        run_sweep(plain, sgd, rates, steps=3, executor=Pickling(), monitors=monitors, settings=settings)


# The command line


CONFIG = """
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: {log: {from: 1e-3, to: 100, count: 15}}}, steps: 60}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def by_hand(config):
    assert main(["run", str(config), "--output", str(config.parent / "by_hand")]) == 0
    return gdkit.open(config.parent / "by_hand")


@pytest.mark.full
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


@pytest.mark.full
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
