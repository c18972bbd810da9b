"""Curvature where it is easily wrong: multiple eigenvalues, state that only stores numbers, half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import reduce_on_plateau
from shared import assert_refused, dense_hessian, quick

from gdkit import Problem, descend, problems, sgd, stability
from gdkit.optimizers import SgdState
from gdkit.types import State

# Multiple eigenvalues


@jax.jit
def top_five(matrix):
    problem = Problem(lambda x: 0.5 * x @ (matrix @ x), np.ones(100, np.float32))
    return stability.sharpness(problem, jnp.ones(100), 5, max_iterations=90)


REST = np.linspace(-1, 1, 200)
SPECTRA = {
    "one value six times": [9.0] * 6,
    "a triple below a pair": [5.0, 5.0, 3.0, 3.0, 3.0],
    "a pair below single ones": [9.0, 8.0, 6.0, 4.0, 4.0],
    "nearly equal values": [9.0, 9.0, 9.0 - 1e-6, 9.0 - 1e-6, 9.0 - 2e-6],
    "all distinct": [9.0, 8.0, 6.0, 5.0, 4.0],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_multiple_eigenvalues_are_found_as_often_as_they_occur(name):
    eigenvalues = np.sort([*SPECTRA[name], *REST[: 100 - len(SPECTRA[name])]])[::-1]
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 100)))
    spectrum = top_five(jnp.asarray((q * eigenvalues) @ q.T, jnp.float32))
    np.testing.assert_allclose(spectrum.values, eigenvalues[:5], rtol=1e-4)
    assert spectrum.converged.all() and spectrum.products <= 90


def test_what_products_do_not_resolve_has_a_residual_and_has_not_converged():
    eigenvalues = np.linspace(1.0, 0.0, 100)
    spectrum = top_five(jnp.diag(jnp.asarray(eigenvalues)))
    np.testing.assert_allclose(spectrum.values[:4], eigenvalues[:4], rtol=1e-5)
    assert spectrum.converged[0] and not spectrum.converged[4]  # of those between, rounding decides
    assert spectrum.residuals[4] > 1e-4 and spectrum.products == 90


def test_sharpness_of_softmax_regression_from_zero_has_the_multiplicity_of_its_classes():
    problem = problems.logistic_regression("iris")
    zero = jax.tree.map(jnp.zeros_like, problem.init)
    found = jax.jit(lambda params: stability.sharpness(problem, params, 4))(zero)
    true = np.linalg.eigvalsh(dense_hessian(problem, zero))[::-1][:4]
    np.testing.assert_allclose(true[::2], true[1::2], rtol=1e-4)  # of three classes: pairs
    np.testing.assert_allclose(found.values, true, rtol=1e-3)
    assert found.converged.all()


def test_a_search_outside_jit_traces_a_problem_once_and_reads_its_arguments():
    traces = []

    def loss(x, scale):
        traces.append(scale)
        return 0.5 * scale * jnp.sum(jnp.arange(1.0, 5.0) * x**2) + jnp.sum(x**4)

    problem = Problem(loss, jnp.zeros(4), data=jnp.float32(1))
    top = lambda x, **options: float(stability.sharpness(problem, x * jnp.ones(4), **options).values[0])
    assert top(0.0) == pytest.approx(4)
    count = len(traces)
    assert [top(1.0), top(0.0, batch=jnp.float32(3)), top(0.0, key=1)] == pytest.approx([16, 12, 4])
    assert len(traces) == count
    assert top(0.0, batch=2) == pytest.approx(8) and traces[-1] == 2  # an integer may be a size: it stays one


def test_multipliers_beyond_the_dense_size_have_their_multiplicity():
    problem = problems.quadratic([9.0] * 3 + list(np.linspace(0.5, 4, 77)))
    state = State(jnp.zeros(80), (), SgdState((), ()))
    found = stability.multipliers(problem, sgd(0.2), state, 4).farthest
    np.testing.assert_allclose(found.values, [-0.8, -0.8, -0.8, 0.2], rtol=1e-3)
    assert found.converged.all()


# State that stores numbers


def with_average(optimizer):
    """`optimizer` beside an average of the params that no update reads."""

    def update(grads, state, params):
        updates, inner = optimizer.update(grads, state[0], params)
        return updates, (inner, jax.tree.map(lambda mean, x: 0.99 * mean + 0.01 * x, state[1], params))

    return optax.GradientTransformation(lambda params: (optimizer.init(params), params), update)


BOWL = problems.quadratic([1.0, 2.0])
COUNTED = Problem(
    lambda x, batch, mean: (BOWL.loss(x), 0.9 * mean + 0.1 * jnp.mean(x)),
    lambda key: (jnp.ones(2), jnp.zeros(())),
    data=jnp.zeros(1),
    has_aux=True,
)
STORING = {
    "hyperparameters": (BOWL, optax.inject_hyperparams(optax.sgd)(learning_rate=0.3)),
    "plateau": (BOWL, optax.chain(optax.sgd(0.3), reduce_on_plateau(patience=50))),
    "average of params": (BOWL, with_average(optax.sgd(0.3))),
    "statistics of batches": (COUNTED, sgd(0.3)),
}


@pytest.mark.parametrize("name", quick(STORING, "hyperparameters", "average of params", "statistics of batches"))
def test_numbers_that_a_state_only_stores_are_no_directions(name):
    problem, optimizer = STORING[name]
    watched = [stability.lyapunov_exponent(problem, optimizer, burn_in=30)]
    run = descend(problem, optimizer, 60, monitors=watched)
    np.testing.assert_allclose(run.statistics["lyapunov_exponent"], np.log(0.7), rtol=1e-3)
    found = stability.multipliers(problem, optimizer, run, 2)
    np.testing.assert_allclose(found.largest.values, [0.7, 0.4], rtol=1e-4)


def test_momentum_beside_stored_numbers_is_a_direction():
    optimizer = with_average(optax.inject_hyperparams(optax.sgd)(learning_rate=0.3, momentum=0.5))
    found = stability.multipliers(BOWL, optimizer, descend(BOWL, optimizer, 3), 4).largest
    roots = np.concatenate([np.roots([1, -(1.5 - 0.3 * curvature), 0.5]) for curvature in (1.0, 2.0)])
    np.testing.assert_allclose(np.abs(found.values), np.sort(np.abs(roots))[::-1], rtol=1e-4)


def test_preconditioned_sharpness_of_injected_hyperparameters_is_that_of_adam():
    injected = functools.partial(optax.inject_hyperparams(optax.adam), b1=0.5)
    chosen = {"hyperparameters": {"learning_rate": 0.1}}
    run = descend(BOWL, injected, 3, **chosen)
    found = stability.preconditioned_sharpness(BOWL, injected, run, **chosen)
    moments, grad = run.opt_state.inner_state[0], np.array([1.0, 2.0]) * np.asarray(run.params)
    second = (0.999 * np.asarray(moments.nu) + 0.001 * grad**2) / (1 - 0.999**4)
    expected = (np.array([1.0, 2.0]) / ((1 - 0.5**4) * (np.sqrt(second) + 1e-8))).max()
    np.testing.assert_allclose(found.values, [expected], rtol=1e-4)


# Half precision


def weighted(dtype):
    """Σ i xᵢ² in a precision: curvatures 2, 4, 6."""
    return Problem(lambda x: jnp.sum(jnp.arange(1, 4).astype(x.dtype) * x**2), jnp.ones(3, dtype))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_curvature_of_params_in_half_precision_is_computed_in_float32(dtype):
    problem = weighted(dtype)
    spectrum = stability.sharpness(problem, problem.init, 3)
    np.testing.assert_allclose(spectrum.values, [6, 4, 2], rtol=1e-5)
    assert spectrum.converged.all() and spectrum.values.dtype == jnp.float32
    found = stability.multipliers(problem, sgd(0.25), State(problem.init, (), SgdState((), ())))
    np.testing.assert_allclose(found.farthest.values, [-0.5], rtol=1e-5)


@pytest.mark.full
def test_monitors_of_curvature_take_params_in_half_precision():
    problem, factory = weighted(jnp.bfloat16), functools.partial(optax.rmsprop, eps=1e-3)
    watched = [
        stability.sharpness_every(problem, 2, record=2),
        stability.preconditioned_sharpness_every(problem, factory, 2),
        stability.lyapunov_exponent(problem, factory, burn_in=1),
    ]
    chosen = {"learning_rate": 2.0**-6}
    run = descend(problem, factory, 3, hyperparameters=chosen, monitors=watched)
    np.testing.assert_allclose(run.statistics["sharpness_curve"], [6, 6], rtol=1e-5)
    there = stability.preconditioned_sharpness(problem, factory, run, hyperparameters=chosen)
    assert there.converged.all() and np.isfinite(run.statistics["lyapunov_exponent"])
    nu = np.asarray(run.opt_state[0].nu, float)
    grad = 2 * np.arange(1, 4) * np.asarray(run.params, float)
    expected = (2 * np.arange(1, 4) / np.sqrt(0.9 * nu + 0.1 * grad**2 + 1e-3)).max()
    np.testing.assert_allclose(there.values, [expected], rtol=1e-2)


IRIS = problems.mlp("iris", widths=(4,))
OF_FIVE = problems.mlp("iris", widths=(5,)).init(jax.random.key(0))


QUADRATIC = (problems.quadratic([1.0, 2.0, 3.0]), jnp.ones(5), r"\(3,\)")
MIXED = (IRIS, (IRIS.init(jax.random.key(0))[0], OF_FIVE[1]), r"\(4, 3\)")
NAMED = Problem(lambda p: jnp.sum(p["w"] ** 2) * p["b"] ** 2, {"w": jnp.ones(3), "b": jnp.ones(())})
UNNAMED = Problem(lambda p: p[0] ** 2 + p[1].sum() ** 2, [jnp.ones(()), jnp.ones(3)])


@pytest.mark.parametrize(
    ("question", "case"),
    [(stability.sharpness, QUADRATIC), (stability.sharpness, MIXED), (stability.trace, QUADRATIC),
     (stability.gauss_newton, MIXED),
     (stability.sharpness, (NAMED, {"w": jnp.ones(3)}, r"\(3,\)")),  # KeyError
     (stability.trace, (UNNAMED, [jnp.ones(())], r"\(3,\)")),  # IndexError
     (stability.sharpness, (UNNAMED, [jnp.ones(()), {"a": jnp.ones(3)}], r"\(3,\)")),  # AttributeError
     (stability.gauss_newton, (IRIS, jnp.ones(5), r"\(4, 3\)"))],
)  # fmt: skip
def test_params_of_other_shapes_are_refused_with_those_of_the_start(question, case):
    problem, params, own = case
    assert_refused(lambda: question(problem, params), f"params=.*the loss fails at them.*Pass params of shapes.*{own}")
