"""Optimizers in optax's protocol: sgd by hand, ascent, schedules, and every factory by name."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from gdkit import factories
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.types import Array, Optimizer, OptimizerFactory, Params, PyTree


class SgdState(NamedTuple):
    """What sgd remembers; without momentum and schedule, nothing."""

    trace: Any  # like the params, or () without momentum
    count: Any  # () int32, or () without a schedule


class Plain(optax.GradientTransformation):
    """Gradient descent without memory: its updates are `multiple` times the gradients, which its monitors use."""

    multiple: Any = None


def sgd(learning_rate: Any, momentum: float | None = None, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent, with heavy-ball or Nesterov momentum.

    The update is −η·v with v = g + β·v₋ (heavy ball, Polyak 1964) or g + β·(g + β·v₋) (Nesterov, as Sutskever et
    al. 2013 write it). It equals ``optax.sgd`` bit for bit on CPU in the same compiled context.

    Args:
      learning_rate: η, a number or a schedule ``count -> η``.
      momentum: β, or None for none.
      nesterov: whether to look ahead; without momentum it changes nothing, as in optax.

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
        rate = learning_rate(state.count) if scheduled else learning_rate
        count = optax.safe_increment(state.count) if scheduled else ()
        if momentum is None:
            return jax.tree.map(lambda g: -rate * g, updates), SgdState((), count)
        trace = jax.tree.map(lambda g, v: g + momentum * v, updates, state.trace)
        direction = jax.tree.map(lambda g, v: g + momentum * v, updates, trace) if nesterov else trace
        return jax.tree.map(lambda v: -rate * v, direction), SgdState(trace, count)

    if momentum is not None or scheduled:
        return optax.GradientTransformation(init, update)
    plain = Plain(init, update)
    plain.multiple = -learning_rate
    return plain


class Ascent(optax.GradientTransformationExtraArgs):
    """An optimizer that maximizes: runs record, and regimes judge, the negated loss."""


def ascent(optimizer: Any) -> Any:
    """Turn an optimizer, or a factory of one, from minimising the loss to maximising it.

    Losses recorded under it are those of −loss, the quantity that falls.
    """
    if not is_optimizer(optimizer):
        return functools.wraps(optimizer)(lambda **hyperparameters: ascent(optimizer(**hyperparameters)))
    # the step map differentiates the negated loss, so the inner optimizer sees a minimisation
    return Ascent(optimizer.init, optimizer.update)


def is_optimizer(value: Any) -> bool:
    """Whether `value` follows optax's protocol, rather than being a factory."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def build(optimizer: Any, hyperparameters: Mapping[str, Any]) -> Optimizer:
    """The optimizer that a factory makes of `hyperparameters`, or `optimizer` itself where it is one already."""
    if is_optimizer(optimizer):
        if hyperparameters:
            remedy = "Pass the factory, for example optax.adam, not optax.adam(0.1)"
            raise bad_type("optimizer", optimizer, f"a finished optimizer takes no {sorted(hyperparameters)}", remedy)
        return optimizer
    made = factories.call("optimizer", optimizer, hyperparameters)
    if not is_optimizer(made):
        raise bad_type("optimizer", made, "the factory returned no (init, update) pair", "Return an optax optimizer")
    return made


def extra_arguments(optimizer: Optimizer) -> tuple[str, ...]:
    """Which of ``value``, ``grad``, ``value_fn`` the optimizer's `update` accepts.

    Nothing else is offered: lbfgs hands on, and then rejects, names that it does not use.
    """
    offered = ("value", "grad", "value_fn")
    accepted = inspect.signature(optimizer.update).parameters
    if any(p.kind == p.VAR_KEYWORD for p in accepted.values()):
        return offered
    return tuple(name for name in offered if name in accepted)


def evaluation_params(opt_state: PyTree, params: Params) -> Params:
    """The params at which a run is judged: those it trains, but for schedule_free its average."""
    is_free = lambda x: isinstance(x, optax.contrib.ScheduleFreeState)
    states = [s for s in jax.tree.leaves(opt_state, is_leaf=is_free) if is_free(s)]
    return optax.contrib.schedule_free_eval_params(states[0], params) if states else params


def names() -> dict[str, OptimizerFactory]:
    """Every optimizer that a config can name: gdkit's sgd, and optax's and optax.contrib's factories."""
    found: dict[str, OptimizerFactory] = {"sgd": sgd}
    for module in (optax, optax.contrib):
        for name in dir(module):
            if _is_factory(name, getattr(module, name)):
                found.setdefault(name, getattr(module, name))
    return dict(sorted(found.items()))


def by_name(name: str) -> OptimizerFactory:
    """The factory of that name.

    Raises:
      InputValueError: there is none, with the nearest one; or one that is known not to work, with the reason.
    """
    known = names()
    if name in UNSUPPORTED:
        raise bad_type("optimizer", name, UNSUPPORTED[name], "Wrap it in a factory of your own that supplies this")
    if name not in known:
        raise unknown_name("optimizer", name, known)
    return known[name]


# The optimizers of optax that the step map cannot drive, and why (the contract tests hold this list to the truth).
UNSUPPORTED = {
    "dpsgd": "it wants per-example gradients, and a loss has one",
    "sophia": "it wants obj_fn, the loss as a function of the params alone",
}
_NO_FACTORIES = {"schedule_free": "wraps another optimizer"}


def _is_factory(name: str, value: Any) -> bool:
    if name.startswith(("_", "scale_by_")) or name in _NO_FACTORIES or inspect.isclass(value) or not callable(value):
        return False
    try:
        accepted = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False
    return "learning_rate" in accepted or name == "polyak_sgd"


# Schedules: the share of the peak learning rate at a step. They are functions of traced values, so that the peak can
# be a lane (optax.warmup_cosine_decay_schedule branches in Python on its arguments).


def schedule(name: str, steps: int, **options: Any) -> Callable[[Array], Array]:
    """The schedule of that name over `steps` steps: ``count -> share`` in [0, 1].

    Names: constant; linear, cosine (``final`` share, default 0); warmup, warmup_linear, warmup_cosine (``warmup``,
    the fraction of steps that it takes, default 0.1).

    >>> float(schedule("warmup_cosine", 100, warmup=0.1)(10))
    1.0
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    factories.check_names(f"schedule.{name}", SCHEDULES[name], options)
    return SCHEDULES[name](steps, **options)


def counts_steps(factory: Any) -> bool:
    """Whether what `scheduled` made has a schedule that depends on how many steps there are in all."""
    return getattr(factory, "counts_steps", False)


def scheduled(factory: OptimizerFactory, share: Callable[[Array], Array]) -> OptimizerFactory:
    """`factory` with its learning rate as the peak of a schedule over all steps."""

    @functools.wraps(factory)
    def with_schedule(*, learning_rate: Any, **hyperparameters: Any) -> Optimizer:
        return factory(learning_rate=lambda count: learning_rate * share(count), **hyperparameters)

    vars(with_schedule)["counts_steps"] = True
    return with_schedule


def clipped(factory: OptimizerFactory, clip_norm: Any) -> OptimizerFactory:
    """`factory` on gradients whose global norm is at most `clip_norm`, a number that may be traced."""

    @functools.wraps(factory)
    def with_clipping(**hyperparameters: Any) -> Optimizer:
        optimizer: Any = factory(**hyperparameters)
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)

    return with_clipping


def mup(factory: OptimizerFactory, base: Params, rule: str) -> OptimizerFactory:
    """`factory` with steps of maximal update parametrisation (μP), for which the best learning rate keeps with width.

    A leaf's update is multiplied by 1/rᵢ with the rule ``"adam"``, for optimizers whose step does not grow with the
    gradient, and by rₒ/rᵢ with ``"sgd"``. Here rₒ is how many times wider the outputs of a leaf, its last dimension,
    are than in `base`, and rᵢ its inputs, the dimension before (1 for a bias). So of Adam input weights and biases
    have steps as before, and hidden and output weights 1/width; of gradient descent input weights and biases have
    steps of width, hidden weights as before and output weights 1/width.

    Yang et al., Tensor Programs V, 2022, table 3. Weights must start as there too, output weights with a standard
    deviation of 1/width, or at 0: `gdkit.problems.mlp` with `zero_last`. At the base's own width nothing changes.
    Weight decay that is part of the update is scaled with it.

    Args:
      factory: of an optimizer.
      base: params of the same model at the base width, or ``jax.eval_shape(init, key)`` of it; weights
        are (inputs, outputs).
      rule: "adam" or "sgd".

    >>> optimizer = mup(sgd, [jnp.zeros((4, 2)), jnp.zeros(2)], "sgd")(learning_rate=1.0)
    >>> updates, _ = optimizer.update([jnp.ones((4, 6)), jnp.ones(6)], optimizer.init(None))
    >>> [float(update.min()) for update in updates]
    [-3.0, -3.0]
    """
    if rule not in ("adam", "sgd"):
        raise unknown_name("rule", rule, ("adam", "sgd"))

    def scale(updates: Params, params: Params | None = None) -> Params:
        if jax.tree.structure(updates) != jax.tree.structure(base):
            remedy = "Pass params of the same model at another width"
            raise bad_type("base", jax.tree.structure(base), "its structure is not that of the params", remedy)
        return jax.tree.map(
            lambda update, base: update * _mup_factor(update.shape, jnp.shape(base), rule), updates, base
        )

    @functools.wraps(factory)
    def with_mup(**hyperparameters: Any) -> Optimizer:
        optimizer: Any = factory(**hyperparameters)
        return optax.chain(optimizer, optax.stateless(scale))

    return with_mup


def _mup_factor(shape: tuple[int, ...], base: tuple[int, ...], rule: str) -> float:
    if len(shape) != len(base):
        raise bad_value("base", base, f"a leaf of the params is of shape {shape}", "Pass params of the same model")
    times = [1.0, 1.0, *(own / former for own, former in zip(shape, base, strict=True))]
    return (times[-1] if rule == "sgd" else 1.0) / times[-2]


def _constant(steps: int) -> Callable[[Array], Array]:
    return lambda count: jnp.ones(jnp.shape(count))


def _linear(steps: int, final: float = 0.0) -> Callable[[Array], Array]:
    return lambda count: 1 - (1 - final) * jnp.clip(count / steps, 0, 1)


def _cosine(steps: int, final: float = 0.0) -> Callable[[Array], Array]:
    return lambda count: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(count / steps, 0, 1)))


def _warm(decay: Callable[..., Callable[[Array], Array]]) -> Callable[..., Callable[[Array], Array]]:
    @functools.wraps(decay)
    def warmed(steps: int, warmup: float = 0.1, **options: float) -> Callable[[Array], Array]:
        rise = max(1, round(warmup * steps))
        after = decay(max(1, steps - rise), **options)
        return lambda count: jnp.where(count < rise, count / rise, after(count - rise))

    extra = list(inspect.signature(decay).parameters.values())[1:]
    own = [p for p in inspect.signature(warmed, follow_wrapped=False).parameters.values() if p.kind != p.VAR_KEYWORD]
    vars(warmed)["__signature__"] = inspect.Signature(own + extra)  # so that a misspelt option is found
    return warmed


SCHEDULES: dict[str, Callable[..., Callable[[Array], Array]]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "warmup": _warm(_constant),
    "warmup_linear": _warm(_linear),
    "warmup_cosine": _warm(_cosine),
}
