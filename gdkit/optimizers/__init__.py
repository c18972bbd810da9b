"""Optimizers in optax's protocol: sgd, ascent, schedules, clipping, μP, and every factory by name."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from gdkit import factories
from gdkit.checks import check_callable, check_choice, check_integer, check_number
from gdkit.errors import bad_type
from gdkit.optimizers.averaging import ema as ema
from gdkit.optimizers.parametrization import mup as mup
from gdkit.optimizers.second_moments import gradient_initialized as gradient_initialized
from gdkit.optimizers.second_moments import scalar_rmsprop as scalar_rmsprop
from gdkit.optimizers.states import SlowParams as SlowParams
from gdkit.optimizers.states import evaluation_params as evaluation_params
from gdkit.optimizers.states import extra_arguments as extra_arguments
from gdkit.optimizers.states import lookahead as lookahead
from gdkit.types import Array, Hyperparameters, Optimizer, OptimizerFactory, OptimizerLike, Params

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # in typing from Python 3.13 on

Schedule: TypeAlias = Callable[[Array], Array]  # count () int32 -> share or learning rate ()


class SgdState(NamedTuple):
    """The state of sgd; empty without momentum and schedule."""

    trace: Any  # like the params, or () without momentum
    count: Any  # () int32, or () without a schedule


class Plain(optax.GradientTransformation):
    """Gradient descent without state: its updates are `multiple` times the gradients; monitors use the factor."""

    multiple: Any = None


def sgd(
    learning_rate: float | Array | Schedule, momentum: float | Array | None = None, nesterov: bool = False
) -> optax.GradientTransformation:
    """Gradient descent, with heavy-ball or Nesterov momentum.

    The update is −η·v with v = g + β·v₋ (heavy ball, Polyak 1964) or g + β·(g + β·v₋) (Nesterov, as Sutskever et
    al. 2013 write it). It equals ``optax.sgd`` bit for bit on CPU in the same compiled context.

    Args:
      learning_rate: η, a number or a schedule ``count -> η``.
      momentum: β; None: no momentum.
      nesterov: whether momentum is Nesterov's; without momentum it changes nothing, as in optax.

    >>> optimizer = sgd(0.5)
    >>> updates, _ = optimizer.update(jnp.float32(4.0), optimizer.init(jnp.float32(1.0)))
    >>> float(updates)
    -2.0
    """
    scheduled = callable(learning_rate)

    def init(params: Params) -> SgdState:
        trace = () if momentum is None else jax.tree.map(jnp.zeros_like, params)
        return SgdState(trace, jnp.zeros((), jnp.int32) if scheduled else ())

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, SgdState]:
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        count = optax.safe_increment(state.count) if scheduled else ()
        if momentum is None:
            return jax.tree.map(lambda g: -rate * g, updates), SgdState((), count)
        trace = jax.tree.map(lambda g, v: g + momentum * v, updates, state.trace)
        direction = jax.tree.map(lambda g, v: g + momentum * v, updates, trace) if nesterov else trace
        return jax.tree.map(lambda v: -rate * v, direction), SgdState(trace, count)

    if momentum is not None or callable(learning_rate):
        return optax.GradientTransformation(init, update)
    plain = Plain(init, update)
    plain.multiple = -learning_rate
    return plain


class Ascent(optax.GradientTransformationExtraArgs):
    """An optimizer that maximizes: runs record, and regimes judge, the negated loss."""


def ascent(optimizer: OptimizerLike) -> OptimizerLike:
    """Turn an optimizer, or a factory of one, from minimizing the loss to maximizing it.

    The recorded losses are those of −loss, the quantity that falls.

    >>> from gdkit import descend, problems
    >>> run = descend(problems.parabola(), ascent(sgd(0.1)), 2)
    >>> [round(float(loss), 2) for loss in run.loss]
    [-9.0, -12.96, -18.66]
    """
    if not is_optimizer(optimizer):
        check_callable("optimizer", optimizer, "Pass an optimizer, or a factory such as optax.adam")
        wrap: Any = functools.wraps(optimizer)
        return wrap(lambda **hyperparameters: ascent(optimizer(**hyperparameters)))
    # The step map differentiates the negated loss, so the inner optimizer minimizes.
    return Ascent(optimizer.init, optimizer.update)


def is_optimizer(value: Any) -> "TypeIs[Optimizer]":
    """Whether `value` follows optax's protocol, rather than being a factory."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def build(optimizer: OptimizerLike, hyperparameters: Hyperparameters) -> Optimizer:
    """The optimizer that a factory returns for `hyperparameters`; an optimizer is returned unchanged.

    Raises:
      InputTypeError: hyperparameters for an optimizer, or a factory that does not return one.
    """
    if is_optimizer(optimizer):
        if hyperparameters:
            remedy = "Pass the factory, for example optax.adam, not optax.adam(0.1)"
            raise bad_type("optimizer", optimizer, f"a finished optimizer takes no {sorted(hyperparameters)}", remedy)
        return optimizer
    built = factories.call("optimizer", optimizer, hyperparameters)
    if not is_optimizer(built):
        problem = "the factory did not return an (init, update) pair"
        raise bad_type("optimizer", built, problem, "Return an optax optimizer")
    return built


def names() -> dict[str, OptimizerFactory]:
    """Every optimizer that a config can name: gdkit's sgd, and the factories of optax and optax.contrib."""
    by_name: dict[str, OptimizerFactory] = {"sgd": sgd}
    for module in (optax, optax.contrib):
        for name in dir(module):
            if _is_factory(name, getattr(module, name)):
                by_name.setdefault(name, getattr(module, name))
    return dict(sorted(by_name.items()))


def by_name(name: str) -> OptimizerFactory:
    """The factory of that name.

    Raises:
      InputValueError: there is none; the message names the nearest one.
      InputTypeError: the optimizer is not supported; the message says why.

    >>> by_name("sgd") is sgd
    True
    """
    if name in UNSUPPORTED:
        raise bad_type("optimizer", name, UNSUPPORTED[name], "Wrap it in a factory of your own that supplies this")
    known = names()
    check_choice("optimizer", name, known)
    return known[name]


# The optimizers of optax that the step map does not support, and why. The contract tests check this list.
UNSUPPORTED = {
    "dpsgd": "it needs per-example gradients, and a loss has one gradient",
    "sophia": "it needs obj_fn, the loss as a function of the params alone",
}


def _is_factory(name: str, value: Any) -> bool:
    is_wrapper = name == "schedule_free"  # of another optimizer
    if name.startswith(("_", "scale_by_")) or is_wrapper or inspect.isclass(value) or not callable(value):
        return False
    try:
        accepted = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False
    return "learning_rate" in accepted or name == "polyak_sgd"


# Schedules give the share of the peak learning rate at a step. They are functions of traced values, so that the peak
# can be swept (optax.warmup_cosine_decay_schedule branches in Python on its arguments).


def schedule(name: str, steps: int, **options: float) -> Schedule:
    """The schedule of that name over `steps` steps: ``count -> share of the peak`` in [0, 1].

    Args:
      name: constant, linear, cosine, warmup, warmup_linear or warmup_cosine.
      steps: steps of the run.
      options: ``final``, the share at the end of linear and cosine (default 0); ``warmup``, the fraction of the steps
        with a rising share (default 0.1); ``start``, the share at the first step of a warm-up (default 0), for which
        `gdkit.stability.catapult_rate` finds the rate.

    Raises:
      InputValueError: an unknown name or option; the message names the nearest one.

    >>> float(schedule("warmup_cosine", 100, warmup=0.1)(10))
    1.0
    """
    check_choice("schedule", name, SCHEDULES)
    check_integer("steps", steps)
    factories.check_names(f"schedule.{name}", SCHEDULES[name], options)
    return SCHEDULES[name](steps, **options)


def depends_on_steps(optimizer: OptimizerLike) -> bool:
    """Whether the optimizer has a schedule by `with_schedule`, which depends on the number of steps of the run."""
    return getattr(optimizer, "depends_on_steps", False)


def with_schedule(optimizer: OptimizerFactory, share: Schedule) -> OptimizerFactory:
    """The factory `optimizer` with its learning rate as the peak of a schedule, ``count -> share of the peak``.

    >>> halved = with_schedule(sgd, lambda count: jnp.where(count < 1, 1.0, 0.5))(learning_rate=0.2)
    >>> updates, _ = halved.update(jnp.float32(1.0), SgdState((), jnp.int32(1)))
    >>> round(float(updates), 2)
    -0.1
    """
    check_callable("optimizer", optimizer, "Pass a factory, for example optax.adam")
    check_callable("share", share, 'Pass for example optimizers.schedule("cosine", steps)')

    @functools.wraps(optimizer)
    def scheduled(*, learning_rate: float | Array, **hyperparameters: Any) -> Optimizer:
        return optimizer(learning_rate=lambda count: learning_rate * share(count), **hyperparameters)

    vars(scheduled)["depends_on_steps"] = True
    return scheduled


def with_clipping(optimizer: OptimizerFactory, clip_norm: float | Array) -> OptimizerFactory:
    """The factory `optimizer`, with gradients scaled to a global norm of at most `clip_norm`, which may be traced.

    With an infinite `clip_norm` no gradient is scaled.

    >>> clipped = with_clipping(sgd, 1.0)(learning_rate=1.0)
    >>> updates, _ = clipped.update(jnp.float32(4.0), clipped.init(jnp.float32(0.0)))
    >>> float(updates)
    -1.0
    """
    check_callable("optimizer", optimizer, "Pass a factory, for example optax.adam")
    check_number("clip_norm", clip_norm, above=0, or_infinite=True)

    @functools.wraps(optimizer)
    def clipped(**hyperparameters: Any) -> Optimizer:
        inner: Any = optimizer(**hyperparameters)
        return optax.chain(optax.clip_by_global_norm(clip_norm), inner)

    return clipped


def _constant(steps: int) -> Schedule:
    return lambda count: jnp.ones(jnp.shape(count))


def _linear(steps: int, final: float = 0.0) -> Schedule:
    return lambda count: 1 - (1 - final) * jnp.clip(count / steps, 0, 1)


def _cosine(steps: int, final: float = 0.0) -> Schedule:
    return lambda count: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(count / steps, 0, 1)))


def _with_warmup(decay: Callable[..., Schedule]) -> Callable[..., Schedule]:
    @functools.wraps(decay)
    def warmup_schedule(steps: int, warmup: float = 0.1, start: float = 0.0, **options: float) -> Schedule:
        check_number("start", start, at_least=0)
        rise = max(1, round(warmup * steps))
        after = decay(max(1, steps - rise), **options)
        rising = lambda count: start + (1 - start) * count / rise if start else count / rise
        return lambda count: jnp.where(count < rise, rising(count), after(count - rise))

    extra = list(inspect.signature(decay).parameters.values())[1:]
    own = [
        p
        for p in inspect.signature(warmup_schedule, follow_wrapped=False).parameters.values()
        if p.kind != p.VAR_KEYWORD
    ]
    vars(warmup_schedule)["__signature__"] = inspect.Signature(own + extra)  # a misspelled option is then an error
    return warmup_schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "warmup": _with_warmup(_constant),
    "warmup_linear": _with_warmup(_linear),
    "warmup_cosine": _with_warmup(_cosine),
}
