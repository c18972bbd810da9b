"""Minibatches without replacement: each epoch has every row once, in an order of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import quick

import gdkit
from gdkit import problems, sgd
from gdkit.problems.epochs import ROUNDS, epoch_rows, shuffle

SIZES = [(1, 1), (2, 1), (7, 3), (7, 20), (60, 64), (1797, 64)]  # rows, rows per minibatch


def stream(rows, size, key=0, epochs=2):
    """The first rows of the stream of minibatches, (epochs, rows)."""
    steps = jnp.arange(-(-epochs * rows // size))
    found = jax.jit(jax.vmap(lambda t: epoch_rows(jax.random.key(key), t, size, rows)))(steps)
    return np.asarray(found).ravel()[: epochs * rows].reshape(epochs, rows)


@pytest.mark.parametrize(("rows", "size"), quick(SIZES, (1, 1), (7, 20), (1797, 64)))
def test_every_epoch_has_every_row_once(rows, size):
    assert (np.sort(stream(rows, size), axis=1) == np.arange(rows)).all()


def test_epochs_and_seeds_have_orders_of_their_own_that_the_size_of_minibatches_does_not_change():
    first, second = stream(1797, 64)
    assert np.mean(first == second) < 0.01
    assert np.mean(first == stream(1797, 64, key=1)[0]) < 0.01
    np.testing.assert_array_equal(stream(1797, 64), stream(1797, 100))


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_all_orders_of_few_rows_are_equally_frequent(rows):
    draws, orders = 3000, np.prod(np.arange(1, rows + 1))
    rounds = np.random.default_rng(0).integers(2**32, size=(ROUNDS, 2, draws, 1), dtype=np.uint32)
    places = np.broadcast_to(np.arange(rows, dtype=np.uint32), (draws, rows))
    _, counts = np.unique(shuffle(places, rounds, rows), axis=0, return_counts=True)
    assert len(counts) == orders
    expected = draws / orders
    # the statistic of χ² has mean orders − 1 and this deviation
    assert ((counts - expected) ** 2 / expected).sum() < orders - 1 + 4 * np.sqrt(2 * orders)


@pytest.mark.parametrize("row", [0, 898, 1796])
def test_a_row_is_anywhere_in_an_epoch_with_equal_probability(row):
    draws, bins = 2000, 10
    rounds = np.random.default_rng(row).integers(2**32, size=(ROUNDS, 2, draws), dtype=np.uint32)
    places = shuffle(np.full(draws, row, np.uint32), rounds, 1797).astype(int)
    counts, expected = np.bincount(places * bins // 1797, minlength=bins), draws / bins
    assert ((counts - expected) ** 2 / expected).sum() < 30  # χ² with 9 degrees of freedom: below with 0.9996


@pytest.mark.parametrize(("t", "size", "rows"), [(2**31 - 2, 1024, 10**7), (2**31 - 2, 3, 2), (10**6, 4096, 2**31 - 1)])
def test_late_steps_of_large_data_do_not_overflow(t, size, rows):
    key, start = jax.random.key(0), t * size
    found = np.asarray(epoch_rows(key, t, size, rows))
    for place in (0, size // 2, size - 1):
        epoch, offset = divmod(start + place, rows)
        rounds = jax.random.bits(jax.random.fold_in(key, epoch % 2**32), (ROUNDS, 2), jnp.uint32)
        assert found[place] == shuffle(np.uint32([offset]), np.asarray(rounds)[..., None], rows)[0]


@pytest.mark.full
def test_a_run_sees_every_row_once_per_epoch():
    rows = np.eye(12, dtype=np.float32)  # the gradient of a linear loss is the mean row of the minibatch
    problem = gdkit.Problem(
        lambda w, batch: jnp.mean(batch @ w), jnp.zeros(12), data=rows, sample=problems.minibatches(4, replace=False)
    )
    run = gdkit.descend(problem, sgd, 6, hyperparameters={"learning_rate": 1.0}, record_params=True)
    counts = -4 * np.asarray(run.params_history)
    np.testing.assert_allclose(counts[3], 1)
    np.testing.assert_allclose(counts[6], 2)
    result = gdkit.sweep(problem, sgd, {"learning_rate": [1.0, 0.5]}, steps=3, seeds=2)
    np.testing.assert_allclose(result.lanes["final_loss"], np.repeat([-1 / 4, -1 / 8], 2), rtol=1e-6)


@pytest.mark.parametrize("make", [problems.mlp, problems.logistic_regression, problems.transformer])
def test_built_in_problems_go_through_epochs(make):
    problem = make(data="digits", batch_size=32, replace=False)
    rows = [problem.sample(jax.random.key(0), t, {"row": np.arange(64)})["row"] for t in range(2)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(64))


@pytest.mark.parametrize("replace", ["no", 0, None])
def test_whether_rows_are_replaced_is_a_bool(replace):
    with pytest.raises(gdkit.GdkitError, match=r"replace=.*: neither True nor False"):
        problems.minibatches(4, replace=replace)
