"""Averages of params along a run, at which the run is evaluated."""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gdkit.checks import check_callable
from gdkit.errors import bad_type, bad_value
from gdkit.factories import is_number
from gdkit.optimizers.states import fill_masked
from gdkit.types import Array, Numeric, Optimizer, OptimizerFactory, Params, PyTree


class EmaState(NamedTuple):
    """The state of an optimizer, and the average of the params that it trains."""

    inner: PyTree
    average: Params

    def evaluation_params(self, params: Params) -> Params:
        """The average; parts that a wrapper masks stay as they are."""
        return fill_masked(self.average, params)


def ema(optimizer: OptimizerFactory, decay: float = 0.999) -> OptimizerFactory:
    """A factory of the same optimizer, whose runs are evaluated at an exponential moving average of their params.

    After each step ``average = decay * average + (1 - decay) * params``, from the initial params on and without bias
    correction. The training does not change: losses of steps are those of the params, and
    validation and test data are evaluated at the average, as by `optimizers.evaluation_params`.

    Args:
      optimizer: a factory such as ``optax.adam``.
      decay: in [0, 1]; a sweep varies it by the axis ``ema_decay``.

    Raises:
      InputValueError: `decay` is not a number in [0, 1].

    >>> import jax.numpy as jnp
    >>> from gdkit import optimizers, sgd
    >>> optimizer = ema(sgd, decay=0.5)(learning_rate=1.0)
    >>> _, state = optimizer.update(jnp.float32(2.0), optimizer.init(jnp.float32(0.0)), jnp.float32(0.0))
    >>> float(optimizers.evaluation_params(state, jnp.float32(-2.0)))
    -1.0
    """
    check_callable("optimizer", optimizer, "Pass a factory, for example optax.adam")
    if not is_number(decay) or not 0 <= decay <= 1:
        raise bad_value("decay", decay, "not a number in [0, 1]", "Pass for example 0.999")

    @functools.wraps(optimizer)
    def averaged(*arguments: Any, ema_decay: Any = decay, **hyperparameters: Any) -> Optimizer:
        return _average(optimizer(*arguments, **hyperparameters), ema_decay)

    own = inspect.Parameter("ema_decay", inspect.Parameter.KEYWORD_ONLY, default=decay)
    signature = inspect.signature(optimizer)
    places = sorted([*signature.parameters.values(), own], key=lambda parameter: parameter.kind)
    vars(averaged)["__signature__"] = signature.replace(parameters=places)
    return averaged


def _average(optimizer: Optimizer, decay: Numeric) -> optax.GradientTransformationExtraArgs:
    given: Any = optimizer
    inner = optax.with_extra_args_support(given)

    def init(params: Params) -> EmaState:
        return EmaState(inner.init(params), params)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, EmaState]:
        if params is None:
            raise bad_type("params", None, "ema averages them", "Pass update(updates, state, params)")
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        after = optax.apply_updates(params, updates)
        return updates, EmaState(inner_state, jax.tree.map(lambda a, p: _mix(a, p, decay), state.average, after))

    return optax.GradientTransformationExtraArgs(init, update)


def _mix(average: Array, new: Array, decay: Numeric) -> Array:
    """``decay * average + (1 - decay) * new`` in float32 at least, in the dtype of `average`."""
    wide = jnp.promote_types(average.dtype, jnp.float32)
    return (new.astype(wide) + decay * (average.astype(wide) - new.astype(wide))).astype(average.dtype)
