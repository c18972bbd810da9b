"""Validation and test data from the host: the values of all rows at once, read in chunks while the program runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdkit
from gdkit import Problem, descend, sgd, sweep
from tests.shared import assert_refused, quick

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X @ np.float32([1.0, -2.0, 0.5]) + 0.1).astype(np.float32)
AXES, OPTIONS = {"learning_rate": [0.05, 0.1]}, {"steps": 6, "seeds": 2, "evaluate_every": 4}


def squares(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def with_mean(w, batch, aux):
    return squares(w, batch), 0.9 * aux + 0.1 * jnp.mean(batch[0], axis=0)


def from_dataset(rows):
    return gdkit.data.from_map_dataset(list(zip(X[:rows], Y[:rows], strict=True)), batch_size=5)


def from_batches_of_grain(rows):
    grain = pytest.importorskip("grain", reason="grain is not installed")
    return gdkit.data.from_grain(grain.MapDataset.range(rows).map(lambda i: (X[i], Y[i])).batch(6))


TRAIN = gdkit.data.from_arrays((X, Y), batch_size=8)
POSITIVE = {"positive": lambda w, batch: jnp.mean(batch[0] @ w > 0)}
METRICS = {"loss": squares, "init": jnp.zeros(3), "metrics": POSITIVE}
AUX = {"loss": with_mean, "init": lambda key: (jax.random.normal(key, (3,)), jnp.zeros(3)), "has_aux": True,
       "evaluate": lambda w, batch, aux: {"loss": squares(w, (batch[0] - aux[None], batch[1]))}}  # fmt: skip
CASES = {  # a last chunk with fewer rows; chunks of as many rows; one chunk
    "arrays": (METRICS, lambda rows: gdkit.data.from_arrays((X[:rows], Y[:rows]), batch_size=4), 13),
    "dataset, evaluate with aux": (AUX, from_dataset, 20),
    "grain": (METRICS, from_batches_of_grain, 13),
    "one chunk": (AUX, lambda rows: gdkit.data.from_arrays((X[:rows], Y[:rows]), batch_size=64), 7),
}


@pytest.mark.parametrize("case", quick(CASES, "arrays", "grain"))
def test_values_are_those_of_all_rows_at_once(case):
    options, make, rows = CASES[case]
    run = lambda data: sweep(Problem(batches=TRAIN, validation=data, test=data, **options), sgd, AXES, **OPTIONS)
    found, expected = run(make(rows)), run((X[:rows], Y[:rows]))
    for name in expected.lanes.data_vars:
        held_out = str(name).startswith(("validation", "test"))
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if held_out else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(found.lanes[name].values, expected.lanes[name].values, **tolerance, err_msg=name)
    assert found.recommend().caveats == expected.recommend().caveats


def test_descend_reads_them_too():
    options, make, rows = CASES["arrays"]
    run = lambda data: descend(Problem(batches=TRAIN, validation=data, **options), sgd(0.1), 6, evaluate_every=4)
    found, expected = run(make(rows)).evaluations, run((X[:rows], Y[:rows])).evaluations
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)


class Failing:
    """Rows of which chunk 2 is another, or raises."""

    def __init__(self, returned):
        self.rows, self.returned = gdkit.data.from_arrays((X, Y), batch_size=8), returned

    def __call__(self, seed, t):
        return self.rows(seed, t)

    def count_chunks(self):
        return self.rows.count_chunks()

    def read_chunk(self, number):
        if number == 2 and isinstance(self.returned, BaseException):
            raise self.returned
        return self.returned if number == 2 else self.rows.read_chunk(number)


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (ValueError("no such file"), "validation: reading chunk 2 raised ValueError: no such file"),
        (SystemExit(3), "validation: reading chunk 2 raised SystemExit: 3"),
        ((X[:7], Y[:7]), "validation=.*chunk 2 differs in structure, shape or dtype"),
    ],
)
def test_a_source_that_raises_or_changes_is_an_error_with_the_chunk(returned, match):
    problem = Problem(squares, jnp.zeros(3), batches=TRAIN, validation=Failing(returned))
    assert_refused(lambda: sweep(problem, sgd, AXES, steps=2), match)
    assert_refused(lambda: descend(problem, sgd(0.1), 2, evaluate_every=1), match)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (lambda: lambda seed, t: (X, Y), "validation=.*a function does not tell how many batches it has"),
        (lambda: gdkit.data.from_arrays(X, batch_size=4), r"validation=.*a batch has .float32\[8,3\]"),
        (lambda: gdkit.data.from_grain(repeated()), "it repeats without end"),
    ],
)
def test_sources_that_cannot_be_evaluated_on_are_refused(data, match):
    assert_refused(
        lambda: sweep(Problem(squares, jnp.zeros(3), batches=TRAIN, validation=data()), sgd, AXES, steps=2), match
    )


def repeated():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    return grain.MapDataset.range(8).map(lambda i: (X[i], Y[i])).repeat().batch(4)
