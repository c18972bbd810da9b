"""A suite of small problems: test functions, quadratics, and regressions and networks on data.

Starts are random, so that each seed is a different run. Problems with params of one shape share a problem factory whose
argument is a swept axis: one program per optimizer instead of one per problem.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import Problem, datasets, problems
from gdkit.types import Array


class TestFunction(NamedTuple):
    """A test function of two variables."""

    name: str
    loss: Callable[[Array], Array]  # x (2,) -> ()
    start: tuple[float, float]
    minimum: float


class ProblemFamily(NamedTuple):
    """Problems that one sweep runs."""

    kind: str  # one of KINDS
    names: tuple[str, ...]  # of its problems
    problem: Any  # a Problem, or a factory that takes the values of `axis`
    axis: Mapping[str, Sequence[float]] = {}  # name -> one value per problem; empty for a single problem


def _goldstein_price(x: Array) -> Array:
    a, b = x
    near = (a + b + 1) ** 2 * (19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2)
    far = (2 * a - 3 * b) ** 2 * (18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2)
    return (1 + near) * (30 + far)


def _branin(x: Array) -> Array:
    a, b = x
    valley = b - 5.1 / (4 * jnp.pi**2) * a**2 + 5 / jnp.pi * a - 6
    return valley**2 + 10 * (1 - 1 / (8 * jnp.pi)) * jnp.cos(a) + 10


def _freudenstein_roth(x: Array) -> Array:
    a, b = x
    return (-13 + a + ((5 - b) * b - 2) * b) ** 2 + (-29 + a + ((b + 1) * b - 14) * b) ** 2


def _bohachevsky(x: Array) -> Array:
    a, b = x
    return a**2 + 2 * b**2 - 0.3 * jnp.cos(3 * jnp.pi * a) - 0.4 * jnp.cos(4 * jnp.pi * b) + 0.7


# Minima and starts: Moré, Garbow and Hillstrom, Testing unconstrained optimization software, 1981, for the first,
# second and fourth; Dixon and Szegő, The global optimization problem, 1978, and Jamil and Yang, A literature survey of
# benchmark functions for global optimization problems, 2013, for the others, whose starts are chosen here.
FUNCTIONS = (
    TestFunction("rosenbrock", problems.rosenbrock().loss, (-1.2, 1.0), 0.0),
    TestFunction("beale", problems.beale().loss, (1.0, 1.0), 0.0),
    TestFunction("himmelblau", problems.himmelblau().loss, (0.0, 0.0), 0.0),
    TestFunction("freudenstein-roth", _freudenstein_roth, (0.5, -2.0), 0.0),
    TestFunction("goldstein-price", _goldstein_price, (-0.5, -0.5), 3.0),
    TestFunction("branin", _branin, (0.0, 0.0), 0.39788735772973816),
    TestFunction("bohachevsky", _bohachevsky, (1.0, 1.0), 0.0),
    TestFunction("booth", lambda x: (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2, (-4.0, -4.0), 0.0),
    TestFunction("matyas", lambda x: 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1], (5.0, -3.0), 0.0),
    TestFunction(
        "three-hump camel",
        lambda x: 2 * x[0] ** 2 - 1.05 * x[0] ** 4 + x[0] ** 6 / 6 + x[0] * x[1] + x[1] ** 2,
        (0.9, -0.9),
        0.0,
    ),
    TestFunction(
        "six-hump camel",
        lambda x: (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2 + x[0] * x[1] + 4 * (x[1] ** 2 - 1) * x[1] ** 2,
        (0.5, 0.5),
        -1.0316284534898774,
    ),
    TestFunction(
        "styblinski-tang",
        lambda x: jnp.sum(x**4 - 16 * x**2 + 5 * x) / 2,
        (-1.0, -1.0),
        -78.33233140754285,
    ),
)
KINDS = ("functions", "quadratics", "regressions", "networks")
CONDITIONS = (10.0, 100.0, 1000.0)  # of the quadratics
DIMENSION = 20
ROWS = 100  # approximate, of each data set: so few that compilation dominates the time


def problem_families(spread: float) -> list[ProblemFamily]:
    """The suite. Starts are normal with standard deviation `spread`, around those of the functions or zero weights."""
    return [
        ProblemFamily(
            "functions",
            tuple(function.name for function in FUNCTIONS),
            functools.partial(function, spread=spread),
            {"problem.number": tuple(map(float, range(len(FUNCTIONS))))},
        ),
        ProblemFamily(
            "quadratics",
            tuple(f"quadratic, {condition:g}" for condition in CONDITIONS),
            functools.partial(quadratic, spread=spread),
            {"problem.condition_number": CONDITIONS},
        ),
        *(
            ProblemFamily("networks" if "mlp" in name else "regressions", (name,), problem)
            for name, problem in _data_problems(spread).items()
        ),
    ]


def function(number: float, spread: float) -> Problem:
    """The test function with this index in `FUNCTIONS`."""
    starts, minima = (jnp.array([getattr(f, field) for f in FUNCTIONS]) for field in ("start", "minimum"))
    index = jnp.asarray(number, jnp.int32)
    return Problem(
        lambda x: jax.lax.switch(index, [f.loss for f in FUNCTIONS], x),
        lambda key: starts[index] + spread * jax.random.normal(key, (2,)),
        optimum=minima[index],
        name="test function",
    )


def quadratic(condition_number: float, spread: float) -> Problem:
    """A quadratic in rotated coordinates: in its own axes a diagonal preconditioner would be perfect."""
    diagonal = problems.quadratic(dimension=DIMENSION, condition_number=condition_number)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMENSION, DIMENSION)))
    rotation = rotation.astype(jax.dtypes.canonicalize_dtype(float))
    init = lambda key: rotation.T @ (1 + spread * jax.random.normal(key, (DIMENSION,)))
    return dataclasses.replace(diagonal, loss=lambda x: diagonal.loss(rotation @ x), init=init)


def _data_problems(spread: float) -> dict[str, Problem]:
    """Convex problems, then networks; all full batch, without validation data or metrics."""
    convex = {
        f"logistic, {name}": problems.logistic_regression(name, l2=1e-3, split=_split(name))
        for name in ("breast_cancer", "iris", "wine", "digits")
    }
    network = lambda name, widths, **options: problems.mlp(name, widths=widths, split=_split(name), **options)
    suite = {
        **{name: _with_normal_start(problem, spread) for name, problem in convex.items()},
        "least squares, diabetes": network("diabetes", ()),
        "mlp, iris": network("iris", (8,), activation="tanh"),
        "mlp, wine": network("wine", (16,)),
        "mlp, breast_cancer": network("breast_cancer", (8, 8), loss="squared_error"),
        "mlp, diabetes": network("diabetes", (8,), activation="tanh"),
        "mlp, digits": network("digits", (16,)),
    }
    return {
        name: dataclasses.replace(problem, validation=None, test=None, metrics=None) for name, problem in suite.items()
    }


def _split(name: str) -> tuple[float, float]:
    share = ROWS / len(datasets.load(name, split=(0.5, 0.5)).train[1]) / 2
    return (share, 1 - share)


def _with_normal_start(problem: Problem, spread: float) -> Problem:
    """The same problem with normal weights at the start."""
    leaves, treedef = jax.tree.flatten(problem.init)

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, len(leaves))
        return treedef.unflatten(
            [spread * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        )

    return dataclasses.replace(problem, init=init)


def attention() -> Problem:
    """One attention head over the eight rows of a digit, with a linear readout of the mean over rows."""
    width = 16

    def init(key: jax.Array) -> dict[str, jax.Array]:
        shapes = {"embed": (8, width), "query": (width, width), "key": (width, width), "value": (width, width),
                  "readout": (width, 10)}  # fmt: skip
        keys = jax.random.split(key, len(shapes))
        weights = {n: jax.random.normal(k, s) / np.sqrt(s[0]) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
        return weights | {"position": 0.1 * jax.random.normal(key, (8, width))}

    def apply(p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:  # (rows, 64) -> (rows, 10)
        tokens = x.reshape(-1, 8, 8) @ p["embed"] + p["position"][None]
        weight = jax.nn.softmax(tokens @ p["query"] @ (tokens @ p["key"]).swapaxes(1, 2) / np.sqrt(width))
        return jnp.mean(tokens + weight @ (tokens @ p["value"]), axis=1) @ p["readout"]

    return problems.supervised(init, apply, "cross_entropy", "digits", batch_size=64, name="attention on digits")


# For learning-rate finders: minibatches where there are data.
MINIBATCH_PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": lambda: quadratic(100.0, 0.1),
    "rosenbrock": lambda: function(0.0, 0.1),
    "logistic, breast_cancer": lambda: problems.logistic_regression("breast_cancer", batch_size=32),
    "logistic, digits": lambda: problems.logistic_regression("digits", batch_size=64),
    "mlp, diabetes": lambda: problems.mlp("diabetes", widths=(16,), activation="tanh", batch_size=32),
    "mlp, digits": lambda: problems.mlp("digits", widths=(32, 32), batch_size=64),
    "attention, digits": attention,
}
