"""States of optimizers: where they start, one update with what an optimizer asks for, and the params to evaluate."""

import contextlib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import optax
import optax.contrib
from jax.flatten_util import ravel_pytree

from gdkit.errors import GdkitError, bad_type
from gdkit.types import Array, Optimizer, Params, PyTree


def extra_arguments(optimizer: Optimizer) -> tuple[str, ...]:
    """The names among ``value``, ``grad`` and ``value_fn`` that the optimizer's `update` accepts.

    No other names are passed: lbfgs forwards names that it does not use, and then rejects them.
    """
    offered = ("value", "grad", "value_fn")
    accepted = inspect.signature(optimizer.update).parameters
    takes_all = any(p.kind == p.VAR_KEYWORD for p in accepted.values())
    return tuple(name for name in offered if takes_all or name in accepted)


class SlowParams(NamedTuple):
    """The state of an optimizer with the slow params of `optax.lookahead`; the trained params are its fast ones."""

    inner: PyTree
    slow: Params

    def evaluation_params(self, params: Params) -> Params:
        """The slow params, which Zhang et al. 2019 evaluate; params of other optimizers stay as they are."""
        return fill_masked(self.slow, params)


class _OuterSlowParams(SlowParams):
    """The state that `start` gives to an optimizer which expects `optax.LookaheadParams`."""


def lookahead(
    fast_optimizer: Optimizer, sync_period: int, slow_step_size: float | Array, reset_state: bool = False
) -> optax.GradientTransformation:
    """``optax.lookahead`` with its slow params in its state, so that other transforms can wrap it.

    ``optax.lookahead`` runs as it is where nothing but `optax.chain` is around it.

    >>> from gdkit import sgd
    >>> import jax.numpy as jnp
    >>> optimizer = lookahead(sgd(0.25), sync_period=1, slow_step_size=0.5)
    >>> updates, _ = optimizer.update(jnp.float32(4.0), optimizer.init(jnp.float32(1.0)), jnp.float32(1.0))
    >>> float(updates)
    -0.5
    """
    wrapped: Any = fast_optimizer
    optimizer: Any = optax.lookahead(wrapped, sync_period, slow_step_size, reset_state)

    def init(params: Params) -> SlowParams:
        return SlowParams(optimizer.init(optax.LookaheadParams.init_synced(params)), params)

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, SlowParams]:
        return _update_both(optimizer, updates, state, params)

    return optax.GradientTransformation(init, update)


def start(optimizer: Optimizer, params: Params) -> PyTree:
    """The state of an optimizer before its first step."""
    with _without_hint_of_lookahead():
        state = optimizer.init(params)
    is_found = lambda x: isinstance(x, SlowParams | optax.LookaheadState)
    found = jax.tree.leaves(state, is_leaf=is_found)
    return _OuterSlowParams(state, params) if any(isinstance(x, optax.LookaheadState) for x in found) else state


def update(
    optimizer: Optimizer,
    grads: Params,
    state: PyTree,
    params: Params,
    *,
    value: Array,
    value_fn: Callable[[Params], Array],
) -> tuple[Params, PyTree]:
    """The updates and the next state, with the extra arguments that the optimizer asks for.

    ``value``, ``grad`` and ``value_fn`` are passed where `update` accepts them, and ``grad_fn``, the gradient at other
    params, to sam(opaque_mode=True), within other transforms too. Where these mask params, as `optax.multi_transform`
    does, it takes the other params at their current values.

    Raises:
      InputTypeError: a transform does not pass on what the optimizer within it needs.
    """
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    accepted = {name: extra[name] for name in extra_arguments(optimizer)}
    extra["grad_fn"] = lambda masked, _: _mask_like(jax.grad(value_fn)(fill_masked(masked, params)), masked)
    is_pair = isinstance(state, _OuterSlowParams)
    call = functools.partial(_update_both, optimizer) if is_pair else optimizer.update
    for _ in range(2 * len(extra)):
        try:
            return call(grads, state, params, **accepted)
        except (TypeError, ValueError) as error:
            changed = _change_accepted(str(error), accepted, extra)
            if changed is None:
                raise
            accepted = changed
    problem = "sam with opaque_mode=True needs grad_fn, and a transform around it does not pass it on"
    raise bad_type("optimizer", optimizer, problem, "Put sam outside this transform, or use opaque_mode=False")


def _change_accepted(message: str, accepted: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Extra arguments of a transform whose signature a chain hides, found by the error that it raises; or None."""
    if "grad_fn must be provided" in message:
        return {**accepted, "grad_fn": extra["grad_fn"]}
    refused = re.search(r"unexpected keyword argument '(\w+)'", message)
    if refused is None or refused[1] not in accepted:
        return None
    return {name: x for name, x in accepted.items() if name != refused[1]}


def _update_both(
    optimizer: Optimizer, grads: Params, state: SlowParams, params: Params, **extra: Any
) -> tuple[Params, SlowParams]:
    """Call an optimizer that expects `optax.LookaheadParams`; the updates of the fast params."""
    both = optax.LookaheadParams(fast=params, slow=state.slow)
    try:
        updates, inner = optimizer.update(grads, state.inner, both, **extra)
        return updates.fast, type(state)(inner, optax.apply_updates(state.slow, updates.slow))
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, GdkitError) or "grad_fn" in str(error) or "unexpected keyword" in str(error):
            raise
        problem = "a transform around optax.lookahead, or after it, does not take its pair of fast and slow params"
        remedy = "Put optax.lookahead outermost, or use gdkit.optimizers.lookahead, which other transforms can wrap"
        raise bad_type("optimizer", optimizer, problem, remedy) from error


@contextlib.contextmanager
def _without_hint_of_lookahead() -> Generator[None]:
    """Suppress the log line in which `optax.lookahead` says that it was given fast params only."""
    logger, is_other = logging.getLogger("absl"), lambda record: "attribute `fast`" not in record.getMessage()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def evaluation_params(opt_state: PyTree, params: Params) -> Params:
    """The params at which a run is evaluated: the trained ones, unless a state of the optimizer has others.

    Others are the average of `optax.contrib.schedule_free` and the slow params of `lookahead`. A state of your own has
    them by a method ``evaluation_params(params) -> params``. States are found within the states of all wrappers, such
    as `optax.chain`, `optax.MultiSteps` and `optax.multi_transform`, and an outer one comes before those within it.
    Params that a wrapper masks stay as they are.
    """
    is_inner = lambda x: x is not opt_state and _has_evaluation_params(x)
    if isinstance(opt_state, optax.contrib.ScheduleFreeState):
        params = _average_schedule_free(opt_state, params)
    elif _has_evaluation_params(opt_state):
        params = opt_state.evaluation_params(params)
    for state in jax.tree.leaves(opt_state, is_leaf=is_inner):
        params = evaluation_params(state, params) if is_inner(state) else params
    return params


def _has_evaluation_params(state: Any) -> bool:
    return isinstance(state, optax.contrib.ScheduleFreeState) or hasattr(state, "evaluation_params")


def _average_schedule_free(state: Any, params: Params) -> Params:
    """The averaged params; `optax.flatten` holds them as one vector."""
    average = lambda params: optax.contrib.schedule_free_eval_params(state, params)
    if isinstance(state.z, jax.Array) and getattr(params, "shape", None) != state.z.shape:
        flat, unravel = ravel_pytree(params)
        return unravel(average(flat))
    return fill_masked(average(_mask_like(params, state.z)), params)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def fill_masked(tree: PyTree, full: PyTree) -> PyTree:
    """`tree` with the parts of `full` in the place of those that a wrapper has masked."""
    return jax.tree.map(lambda x, y: y if _is_masked(x) else x, tree, full, is_leaf=_is_masked)


def _mask_like(full: PyTree, tree: PyTree) -> PyTree:
    """`full` with the parts masked that are masked in `tree`."""
    return jax.tree.map(lambda x, y: x if _is_masked(x) else y, tree, full, is_leaf=_is_masked)
