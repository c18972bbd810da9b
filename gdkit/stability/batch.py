"""Monitors of minibatches: their sharpness along their own gradients, their noise, and how far a step goes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gdkit import binding
from gdkit.checks import check_integer, check_number
from gdkit.errors import bad_value
from gdkit.factories import cache_if_hashable
from gdkit.problems import Problem, ProblemLike
from gdkit.stability.dynamic_state import widen
from gdkit.stability.measuring import measure_every
from gdkit.types import Array, Context, Info, Monitor, Params, PyTree, State


def _map_batches(
    problem: ProblemLike, batches: int, measure: Callable[[Problem, PyTree], PyTree], context: Context
) -> PyTree:
    """What `measure` returns for each of `batches` minibatches of the step; without `sample`, for the step's batch."""
    concrete, _ = binding.resolve_problem(problem, context.hyperparameters)
    if concrete.sample is None:
        own = binding.get_batch(concrete, context.t, context.key, context.data)
        return jax.tree.map(lambda x: x[None], measure(concrete, own))

    def on_batch(key: Array) -> PyTree:
        return measure(concrete, binding.get_batch(concrete, context.t, key, context.data))

    return jax.lax.map(on_batch, jax.random.split(jax.random.fold_in(context.key, context.t), batches))


@cache_if_hashable(maxsize=32)
def batch_sharpness_every(problem: ProblemLike, every: int, *, batches: int = 8, record: int = 0) -> Monitor:
    """A monitor of the batch sharpness at each `every`-th step: E[gᵀ H g / ‖g‖²], of minibatch gradients and Hessians.

    The mean is over minibatches, each with its own gradient g and Hessian H at the same params. In SGD it is this
    quantity that rises to 2/η and stays there, while the sharpness of the whole data stays below (Andreyev and
    Beneventano, Edge of stochastic stability, 2024). The estimate is the mean of the ratio over `batches` minibatches
    that `Problem.sample` draws for the step with keys that training does not use, so that it is unbiased; a gradient
    of zero counts as 0. Without `sample` it is the ratio on the step's own batch, the whole data or that of
    `Problem.batches`. One Hessian-vector product per minibatch.

    It reads ``batch_sharpness`` (the last), ``batch_sharpness_error`` (the standard error of this mean, NaN for one
    minibatch) and ``batch_sharpness_max``, and with `record` ``batch_sharpness_curve``: the values at the steps 0,
    every, 2 · every, ..., NaN at steps that the run did not reach.

    Args:
      problem: the problem of the run, which monitors do not receive.
      every: steps from one measurement to the next; the steps between them cost nothing.
      batches: minibatches per measurement.
      record: the number of values in the curve; later values are not recorded.

    Raises:
      InputTypeError, InputValueError: `every` or `batches` is not an integer of at least 1, or `record` of 0.

    >>> from gdkit import descend, problems, sgd
    >>> bowl = problems.quadratic([1.0, 4.0])
    >>> run = descend(bowl, sgd(0.3), 50, monitors=[batch_sharpness_every(bowl, 10)])
    >>> round(float(run.statistics["batch_sharpness"]), 3)  # the steep coordinate has converged
    1.0
    """
    check_integer("batches", batches)

    def measure(sums: Any, before: State, after: State, info: Info, context: Context) -> tuple[Any, tuple[Array, ...]]:
        params, data, aux = widen(before.params, context.data, before.aux)

        def ratio(concrete: Problem, batch: PyTree) -> Array:
            loss = binding.objective(concrete, None, batch, aux)
            gradient = jax.grad(lambda p: loss(p)[0])
            slope, bend = jax.jvp(gradient, (params,), (gradient(params),))
            square = jnp.asarray(optax.tree.vdot(slope, slope))
            return jnp.where(square > 0, optax.tree.vdot(slope, bend) / jnp.where(square > 0, square, 1), 0)

        ratios = _map_batches(problem, batches, ratio, context._replace(data=data))
        count = len(ratios)
        error = jnp.std(ratios, ddof=1) / count**0.5 if count > 1 else jnp.full((), jnp.nan, ratios.dtype)
        return sums, (jnp.mean(ratios), error)

    return measure_every(("batch_sharpness", "batch_sharpness_error"), measure, every, record)


@cache_if_hashable(maxsize=32)
def gradient_noise_scale(
    problem: ProblemLike, every: int, *, batches: int = 8, memory: float = 10.0, record: int = 0
) -> Monitor:
    """A monitor of the gradient noise scale tr Σ / ‖G‖²: the batch size at which noise and gradient are of one size.

    Below it, a larger batch saves as many steps as it costs examples; above, it saves few (McCandlish et al., An
    empirical model of large-batch training, 2018: the simple noise scale, B_simple, by their appendix A.1). Σ is the
    covariance of one example's gradient and G the mean gradient. Both are estimated without bias from squared norms
    at two batch sizes, b and B = b · `batches`:

        ‖G‖² = (B ‖g_B‖² − b ‖g_b‖²) / (B − b),    tr Σ = (‖g_b‖² − ‖g_B‖²) / (1/b − 1/B),

    where ‖g_b‖² is the mean over the minibatches that `Problem.sample` draws with keys that training does not use, and
    g_B their mean gradient. The scale is the ratio of the two after both are averaged over about the last `memory`
    measurements, with exponential weights, since a ratio of noisy estimates is biased. Examples of a batch count as
    independent: of minibatches without replacement tr Σ is too small by the factor 1 − b / rows.

    It reads ``gradient_noise_scale``, in examples (infinite where ‖G‖² is estimated to be at most 0),
    ``gradient_noise_trace`` (tr Σ), ``gradient_square`` (‖G‖²) and ``gradient_noise_scale_max``, and with `record`
    ``gradient_noise_scale_curve``, as `batch_sharpness_every` does.

    Args:
      problem: the problem of the run, with `sample`.
      every, record: as in `batch_sharpness_every`.
      batches: minibatches per measurement, at least 2.
      memory: the number of measurements, at least 1; with 1 each counts on its own.

    Raises:
      InputTypeError, InputValueError: an argument is out of range; when a run starts, the problem has no `sample`.

    >>> from gdkit import descend, problems, sgd
    >>> problem = problems.logistic_regression("iris", batch_size=16)
    >>> run = descend(problem, sgd(0.1), 20, monitors=[gradient_noise_scale(problem, 5)])
    >>> bool(run.statistics["gradient_noise_scale"] > 1)
    True
    """
    check_integer("batches", batches, at_least=2)
    check_number("memory", memory, at_least=1)

    def measure(sums: Any, before: State, after: State, info: Info, context: Context) -> tuple[Any, tuple[Array, ...]]:
        params, data, aux = widen(before.params, context.data, before.aux)
        concrete, _ = binding.resolve_problem(problem, context.hyperparameters)
        if concrete.sample is None:
            remedy = "Pass a Problem with sample=, for example problems.minibatches(64)"
            raise bad_value("problem", concrete.name or concrete.loss, "it has no minibatches", remedy)

        def gradient(concrete: Problem, batch: PyTree) -> Params:
            loss = binding.objective(concrete, None, batch, aux)
            return jax.grad(lambda p: loss(p)[0])(params)

        gradients = _map_batches(problem, batches, gradient, context._replace(data=data))
        square = lambda tree: optax.tree.norm(tree, squared=True)
        small = jnp.mean(jax.vmap(square)(gradients))
        large = square(jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients))
        batch = jax.eval_shape(concrete.sample, context.key, context.t, context.data)
        rows = jax.tree.leaves(batch)[0].shape[0]
        seen = jnp.stack([
            (small - large) / (1 / rows - 1 / (rows * batches)),
            (batches * large - small) / (batches - 1),
            jnp.ones_like(small),
        ])  # fmt: skip
        sums = (1 - 1 / memory) * sums + seen.astype(sums.dtype)
        noise, mean = sums[0] / sums[2], sums[1] / sums[2]
        scale = jnp.where(mean > 0, noise / jnp.where(mean > 0, mean, 1), jnp.inf)
        return sums, (scale, noise, mean)

    names = "gradient_noise_scale", "gradient_noise_trace", "gradient_square"
    return measure_every(names, measure, every, record, sums=3)


@cache_if_hashable(maxsize=32)
def step_alpha_every(problem: ProblemLike, every: int, *, record: int = 0) -> Monitor:
    """A monitor of how far a step goes towards the minimum along its own line: α, at each `every`-th step.

    α = −s₁ / s₀, where s₀ and s₁ are the slopes of the loss along the update, before it and after it, on the step's
    batch. On the parabola with these slopes the step ends at the minimum for α = 0, short of it for α < 0 (−1 for a
    step that is too small to change the slope), beyond it for α > 0, and for α = 1 as high as it began. This is the
    diagnostic of Schneider, Dangel and Hennig (Cockpit: a practical debugging tool for the training of deep neural
    networks, 2021), who fit the parabola to losses and slopes of two batches by their noise; with one batch for both
    ends the slopes decide it. For gradient descent on a quadratic α = η gᵀHg / ‖g‖² − 1, so that 1 is the edge of
    stability.

    It reads ``step_alpha`` (the last), ``step_alpha_mean`` (over the measurements so far) and ``step_alpha_max``, and
    with `record` ``step_alpha_curve``, as `batch_sharpness_every` does. One gradient per measurement. An update of zero
    has α = NaN; the last loss of a run, which no update follows, is NaN in the curve and not measured otherwise.

    Args:
      problem: the problem of the run, which is minimized.
      every, record: as in `batch_sharpness_every`.

    Raises:
      InputTypeError, InputValueError: `every` is not an integer of at least 1, or `record` of 0.

    >>> from gdkit import descend, problems, sgd
    >>> bowl = problems.quadratic([4.0])
    >>> run = descend(bowl, sgd(0.4), 5, monitors=[step_alpha_every(bowl, 1)])
    >>> round(float(run.statistics["step_alpha_mean"]), 4)  # 0.4 · 4 − 1
    0.6
    """

    def measure(sums: Any, before: State, after: State, info: Info, context: Context) -> tuple[Any, tuple[Array, ...]]:
        concrete, batch = binding.get_run_batch(problem, context)
        loss = binding.objective(concrete, None, batch, before.aux)
        first = optax.tree.vdot(info.grad, info.update)
        last = jnp.asarray(optax.tree.vdot(jax.grad(lambda p: loss(p)[0])(after.params), info.update))
        is_known = context.moves & (first != 0)
        alpha = jnp.where(is_known, -last / jnp.where(is_known, first, 1), jnp.nan)
        sums = sums + jnp.where(is_known, jnp.stack([alpha, jnp.ones_like(alpha)]), 0).astype(sums.dtype)
        return sums, (alpha, sums[0] / sums[1])

    return measure_every(("step_alpha", "step_alpha_mean"), measure, every, record, sums=2, of_updates=True)
