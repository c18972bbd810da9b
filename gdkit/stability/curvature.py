"""Products with the Hessian of a loss, and with its generalized Gauss-Newton matrix."""

import contextlib
from collections.abc import Callable, Generator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gdkit import binding, checks
from gdkit.errors import GdkitError, bad_type, bad_value
from gdkit.problems import ModelLoss, Problem
from gdkit.stability.dynamic_state import widen
from gdkit.tracing import user_code
from gdkit.types import Array, Params, PyTree

MATRICES = ("hessian", "gauss_newton")


class Curvature(NamedTuple):
    """A matrix of second derivatives at a point, by its products."""

    product: Callable[[Array], Array]  # (n,) -> (n,)
    vector: Array  # (n,), the params
    unravel: Callable[[Array], Params]


def curvature_product(
    problem: Problem, params: Params, *, matrix: str = "hessian", batch: PyTree = None, aux: PyTree = ()
) -> Callable[[Params], Params]:
    """Products with a matrix of second derivatives at `params`: a linear function of a tangent, matrix-free.

    The Hessian-vector product is forward over reverse (Pearlmutter, Fast exact multiplication by the Hessian, 1994);
    that of the generalized Gauss-Newton matrix JᵀH_outJ pushes the tangent through the model, the second derivative of
    the loss in the outputs, and back (Schraudolph, Fast curvature matrix-vector products, 2002). What all products
    share is computed once.

    Args:
      problem, params, batch, aux: as in `sharpness`.
      matrix: "hessian", or "gauss_newton", for which the loss is a `problems.ModelLoss`.

    Returns:
      A function of a pytree like `params`, to a pytree like it, in units of loss per param.

    Raises:
      InputTypeError, InputValueError: as `sharpness` and `gauss_newton`; an unknown matrix.

    >>> from gdkit import problems
    >>> curvature_product(problems.quadratic([1.0, 4.0]), jnp.ones(2))(jnp.array([1.0, 1.0])).tolist()
    [1.0, 4.0]
    """
    curvature = find_curvature(problem, params, matrix, batch, aux)
    dtype = curvature.vector.dtype
    return lambda tangent: curvature.unravel(curvature.product(ravel_pytree(tangent)[0].astype(dtype)))


def check_curvature(problem: Problem, params: Params, matrix: str) -> None:
    """Raise unless there is a matrix of that name at `params`."""
    if not isinstance(problem, Problem):
        remedy = "Pass a Problem; call a factory with its hyperparameters first"
        raise bad_type("problem", problem, "not a Problem", remedy)
    checks.check_choice("matrix", matrix, MATRICES)
    checks.check_floats("params", params)


def find_curvature(problem: Problem, params: Params, matrix: str, batch: PyTree, aux: PyTree) -> Curvature:
    """The matrix of that name at `params`; half precision is converted to float32."""
    check_curvature(problem, params, matrix)
    binding.check_takes_data("batch", batch, problem)
    params, batch, aux = widen(params, problem.data if batch is None else batch, aux)
    vector, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    with _name_params(problem, params):
        if matrix == "gauss_newton":
            return Curvature(_multiply_gauss_newton(problem, vector, unravel, batch), vector, unravel)
        loss = binding.objective(problem, None, batch, aux)
        gradient = jax.grad(lambda x: loss(unravel(x))[0])
        _, product = jax.linearize(gradient, vector)  # computes the part common to all products once
    return Curvature(product, vector, unravel)


@contextlib.contextmanager
def _name_params(problem: Problem, params: Params) -> Generator[None]:
    """Raise the errors of a loss at params unlike those of the problem's start as errors of the params."""
    try:
        yield
    except Exception as error:  # a name, a place or an attribute that params lack, or a product of other shapes
        shapes, own = (jax.tree.map(jnp.shape, tree) for tree in (params, binding.get_params_shape(problem)))
        if isinstance(error, GdkitError) or shapes == own:
            raise
        text = f"the loss fails at them with {type(error).__name__}: {str(error).rstrip('.')}"
        raise bad_value("params", shapes, text, f"Pass params of shapes {own}") from error


def _multiply_gauss_newton(
    problem: Problem, vector: Array, unravel: Callable[[Array], Params], batch: PyTree
) -> Callable[[Array], Array]:
    model = problem.loss
    if not isinstance(model, ModelLoss) or problem.has_aux:
        remedy = "Pass Problem(problems.ModelLoss(outputs, loss), ...), or a problem of problems.supervised"
        raise bad_type("problem", problem, "its loss is not a model and a loss of its outputs", remedy)
    rest = () if batch is None else (batch,)
    with user_code.translate_errors("loss", model):
        outputs, push = jax.linearize(lambda x: model.outputs(unravel(x), *rest), vector)
        pull = jax.linear_transpose(push, vector)
        _, bend = jax.linearize(jax.grad(lambda outputs: model.loss(outputs, *rest)), outputs)
        penalty = model.penalty
        if penalty is None:
            return lambda v: pull(bend(push(v)))[0]
        _, penalize = jax.linearize(jax.grad(lambda x: penalty(unravel(x))), vector)
    return lambda v: pull(bend(push(v)))[0] + penalize(v)
