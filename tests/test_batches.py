"""Training on batches from the host: each is read once per seed and step, and the bits are those of any other run."""

import collections
import concurrent.futures
import pickle
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Plan, Problem, sgd, sweep
from gdkit.data import Source
from gdkit.sweeps.execution.feed import BatchFeed
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from tests.shared import assert_refused, assert_same_bits, quick, run_sweep

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
Y = (X @ np.float32([1.0, -2.0, 0.5]) + 0.1).astype(np.float32)
RATES = [0.01, 0.02, 0.05, 0.1, 3.0]
STEPS, SEEDS = 150, 2
OPTIONS = {"steps": STEPS, "seeds": SEEDS, "plan": Plan(width=2, workers=2)}


def squares(params, batch):
    x, y = batch
    return jnp.mean((x @ params - y) ** 2)


class Counted:
    """A source that counts what is read, and calls `fail` before."""

    def __init__(self, fail=lambda seed, t: None):
        self.source, self.fail = gdkit.data.from_arrays((X, Y), batch_size=8), fail
        self.calls, self.lock = collections.Counter(), threading.Lock()

    def __call__(self, seed, t):
        with self.lock:
            self.calls[seed, t] += 1
        return self.fail(seed, t) or self.source(seed, t)


def run(source, **options):
    return sweep(Problem(squares, jnp.zeros(3), batches=source), sgd, {"learning_rate": RATES}, **OPTIONS | options)


def losses(seed, rate, steps=STEPS):
    """The losses of a run by NumPy in float64, (steps + 1,)."""
    source, params, found = gdkit.data.from_arrays((X, Y), batch_size=8), np.zeros(3), []
    for t in range(steps + 1):
        x, y = source(seed, t)
        found.append(np.mean((x @ params - y) ** 2))
        params = params - rate * 2 / len(y) * x.T @ (x @ params - y)
    return np.array(found)


@pytest.fixture(scope="module")
def straight():
    source = Counted()
    return run(source), source.calls


def test_losses_are_those_of_numpy(straight):
    for lane in (0, 1, 5):
        expected = losses(lane % SEEDS, RATES[lane // SEEDS])
        steps, curve = straight[0].curve(lane)
        np.testing.assert_allclose(curve, expected[steps], rtol=2e-3, atol=1e-6)


def test_each_batch_is_read_once_per_seed_and_step_for_all_blocks(straight):
    _, calls = straight
    assert calls == {(seed, t): 1 for seed in range(SEEDS) for t in range(STEPS + 1)}


def test_a_hundred_blocks_advance_in_step():
    source = Counted()
    sweep(
        Problem(squares, jnp.zeros(3), batches=source), sgd, {"learning_rate": np.linspace(0.01, 0.1, 200)},
        **OPTIONS | {"steps": 70},
    )  # fmt: skip
    assert source.calls == {(seed, t): 1 for seed in range(SEEDS) for t in range(71)}


def test_groups_of_points_share_what_is_read():
    source = Counted()
    axes = {"learning_rate": RATES[:2], "nesterov": [False, True], "momentum": [0.5]}
    sweep(Problem(squares, jnp.zeros(3), batches=source), sgd_by_optax, axes, **OPTIONS | {"steps": 20})
    assert set(source.calls.values()) == {1}
    assert len(source.calls) == SEEDS * 21


def sgd_by_optax(learning_rate, momentum, nesterov=False):
    return optax.sgd(learning_rate, momentum, nesterov)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(straight, workers):
    assert_same_bits(run(Counted(), plan=Plan(width=2, workers=workers)), straight[0])


@pytest.mark.parametrize("threads, is_busy", [(1, False), (2, False), (1, True)])
def test_threads_of_an_executor_read_each_batch_once_and_change_nothing(straight, threads, is_busy):
    source = Counted()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        if is_busy:
            pool.submit(time.sleep, 0.5)
        assert_same_bits(run(source, executor=pool), straight[0])
    assert source.calls == straight[1]


@pytest.mark.parametrize("steps", [1, 64, 70])  # of windows of 64 steps
def test_a_sweep_that_is_extended_equals_a_longer_one_and_reads_the_rest_alone(straight, steps):
    source = Counted()
    shorter = run(source, steps=steps)
    source.calls.clear()
    assert_same_bits(shorter.extend(STEPS), straight[0])
    assert {t for seed, t in source.calls if seed} == set(range(steps, STEPS + 1))
    assert set(source.calls.values()) == {1}


def test_an_interrupted_run_resumes_with_the_same_bits(straight, tmp_path):
    stop, source = threading.Event(), Counted()
    stop_late = lambda progress: stop.set() if progress.done > 800 else None
    options = OPTIONS | {"plan": Plan(width=2, workers=2, segment=10), "store": tmp_path}
    settings = DEFAULT_SETTINGS._replace(progress_seconds=0.0)
    problem = Problem(squares, jnp.zeros(3), batches=source)
    go = lambda **more: run_sweep(problem, sgd, {"learning_rate": RATES}, settings=settings, **options, **more)
    assert go(progress=stop_late, stop=stop).missing > 0
    source.calls.clear()
    assert_same_bits(go(), straight[0])
    assert 0 < sum(source.calls.values()) < SEEDS * (STEPS + 1)  # from the checkpoints on


def test_no_block_is_more_than_a_window_ahead_and_at_most_three_are_read():
    source = Counted()
    feed = BatchFeed(Source(source), 0, 10_000, 2)
    device = jax.devices()[0]
    for step in (0, 64):
        feed.get(0, step, device, 0)
        feed.get(1, 0, device, 0)
    ahead = threading.Thread(target=feed.get, args=(0, 128, device, 0))
    ahead.start()
    ahead.join(0.3)
    assert ahead.is_alive()
    assert max(t for _, t in source.calls) < 3 * 64
    feed.get(1, 64, device, 0)
    ahead.join(10)
    assert not ahead.is_alive()
    feed.leave(0)
    feed.leave(1)
    assert set(source.calls.values()) == {1}


def test_replay_ends_with_the_same_bits(straight):
    for lane in (1, 4, 9):
        assert straight[0].replay(lane).same


def test_states_of_lanes_are_those_of_descend(straight):
    result, _ = straight
    problem = Problem(squares, jnp.zeros(3), batches=Counted())
    for seed in range(SEEDS):
        one = gdkit.descend(problem, sgd, STEPS, hyperparameters={"learning_rate": 0.05}, seed=seed)
        np.testing.assert_allclose(one.params, result.state(4 + seed).params, rtol=1e-4)
        np.testing.assert_allclose(one.loss, losses(seed, 0.05), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("at", "returned", "match"),
    [
        ((1, 70), ValueError("no such file"), r"batches\(seed=1, t=70\) raised ValueError: no such file"),
        pytest.param((0, 90), SystemExit(3), r"batches\(seed=0, t=90\) raised SystemExit: 3", marks=pytest.mark.full),
        ((0, 0), KeyError("x"), r"batches\(seed=0, t=0\) raised KeyError"),
        ((1, 3), (X[:7], Y[:7]), r"batches\(seed=1, t=3\) differs in structure, shape or dtype"),
        pytest.param(
            (0, 5), (X[:8], Y[:8].astype(int)), r"batches\(seed=0, t=5\) differs in structure", marks=pytest.mark.full
        ),
        ((1, 149), [X[:8], Y[:8]], r"batches\(seed=1, t=149\) differs in structure, shape or dtype"),
    ],
)
def test_a_source_that_raises_or_changes_is_an_error_with_seed_and_step(at, returned, match):
    def fail(seed, t):
        if (seed, t) != at:
            return None
        if isinstance(returned, BaseException):
            raise returned
        return returned

    assert_refused(lambda: run(Counted(fail)), match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batches": 3}, "not callable"),
        ({"batches": Counted(), "data": X}, "there is data= as well"),
        ({"batches": Counted(), "metrics": {"error": squares}}, "no data to evaluate on"),
        ({"batches": lambda seed, t: ("a",)}, "no arrays of numbers"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(options, match):
    assert_refused(
        lambda: sweep(Problem(squares, jnp.zeros(3), **options), sgd, {"learning_rate": RATES}, steps=2), match
    )


def test_what_does_not_read_batches_refuses_them():
    problem, rate = Problem(squares, jnp.zeros(3), batches=Counted()), {"learning_rate": 0.1}
    assert_refused(lambda: gdkit.hypergradient(problem, sgd, rate, steps=5), "only sweep and descend read")
    assert_refused(lambda: run(Counted(), plan=Plan(depth=2)), r"plan\.depth=2: a block with batches= has one seed")
    key = np.random.default_rng(0)
    assert_refused(lambda: gdkit.descend(problem, sgd, 5, hyperparameters=rate, seed=key), "seed=.*: not an integer")


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("size", [1, 8, 300])
def test_epochs_have_every_row_once(rows, size):
    source = gdkit.data.from_arrays(np.arange(rows), batch_size=size)
    stream = np.concatenate([source(3, t) for t in range(-(-3 * rows // size))])
    epochs = stream[: 3 * rows].reshape(3, rows)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(rows), (3, 1)))
    if rows == 300:
        assert len({tuple(epoch) for epoch in epochs}) == 3
        others = [gdkit.data.from_arrays(np.arange(rows), batch_size=size, key=key) for key in (0, 1)]
        assert not np.array_equal(others[0](4, 0), source(3, 0))
        assert not np.array_equal(others[1](3, 0), source(3, 0))


def test_memory_maps_datasets_and_arrays_give_the_same_batches(tmp_path):
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    arrays = gdkit.data.from_arrays((X, Y), batch_size=8, key=2)
    of_map = gdkit.data.from_arrays(
        (np.memmap(tmp_path / "x.bin", np.float32, "r", shape=X.shape), Y), batch_size=8, key=2
    )
    dataset = gdkit.data.from_map_dataset(list(zip(X, Y, strict=True)), batch_size=8, key=2)
    sent = pickle.dumps(of_map)
    assert len(sent) < X.nbytes + Y.nbytes  # the map is sent by the name of its file
    for source in (of_map, dataset, pickle.loads(sent)):
        for a, b in zip(arrays(1, 40), source(1, 40), strict=True):
            np.testing.assert_array_equal(a, b)


def augment(x, rng):
    return x, rng.integers(1000)


GRAIN = {
    "shuffled": lambda ds: ds.shuffle().batch(4, drop_remainder=True),
    "augmented": lambda ds: ds.random_map(augment).batch(4),
    "repeated": lambda ds: ds.shuffle().repeat().random_map(augment).batch(5),
}


@pytest.mark.full
@pytest.mark.parametrize("case", quick(GRAIN, "repeated"))
def test_batches_of_grain_are_those_that_it_iterates_over(case):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    dataset = GRAIN[case](grain.MapDataset.source(np.arange(12)).seed(5))
    source = gdkit.data.from_grain(dataset)
    repeated = dataset if case == "repeated" else dataset.repeat()
    for t, batch in zip(range(9), iter(repeated.to_iter_dataset())):  # noqa: B905  # it has no end
        assert_equal(source(0, t), batch)
        assert_equal(source(2, t), source(2, t))
    assert len({repr([source(seed, t) for t in range(3)]) for seed in range(3)}) == 3


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_examples_of_grain_come_once_per_epoch_and_are_augmented_anew(seed):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    dataset = grain.MapDataset.source(np.arange(12)).seed(5).random_map(augment)
    source, other = (gdkit.data.from_grain(dataset, batch_size=8, key=key) for key in (0, 1))
    rows, drawn = (np.concatenate(x).reshape(4, 12) for x in zip(*(source(seed, t) for t in range(6)), strict=True))
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(12), (4, 1)))
    assert len({tuple(epoch) for epoch in rows}) == len({tuple(epoch) for epoch in drawn}) == 4
    assert not np.array_equal(other(seed, 0)[0], source(seed, 0)[0])
    assert not np.array_equal(source(seed + 1, 0)[0], source(seed, 0)[0])


def assert_equal(tree, expected):
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_sweep_over_batches_of_grain_is_that_over_the_arrays(straight):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    order = gdkit.data.from_arrays(np.arange(len(X)), batch_size=8)
    indices = np.concatenate([order(0, t) for t in range(STEPS + 1)])
    dataset = grain.MapDataset.source(indices).map(lambda i: (X[i], Y[i])).batch(8)
    found = run(gdkit.data.from_grain(dataset), seeds=1).lanes["final_loss"].values
    np.testing.assert_array_equal(found, straight[0].lanes["final_loss"].values[::SEEDS])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda grain: grain.MapDataset.range(4).to_iter_dataset(), "not a grain.MapDataset"),
        (lambda grain: [1, 2], "from_map_dataset"),
        (lambda grain: grain.MapDataset.source([]), "no elements"),
    ],
)
def test_datasets_of_grain_without_random_access_are_refused(make, match):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    assert_refused(lambda: gdkit.data.from_grain(make(grain)), match)


def test_sources_of_other_kinds_are_refused():
    assert_refused(lambda: gdkit.data.from_arrays((X, Y[:9]), batch_size=8), "differ in their numbers of rows")
    assert_refused(lambda: gdkit.data.from_arrays(3, batch_size=8), "not a pytree of arrays with rows")
    assert_refused(lambda: gdkit.data.from_map_dataset(iter("ab"), batch_size=8), "no __len__ and __getitem__")
    assert_refused(lambda: gdkit.data.from_arrays(X, batch_size=0), "batch_size=0")
