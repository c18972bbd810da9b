"""Type aliases and protocols that the whole library shares."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array
Params = Any  # any pytree of float arrays
PyTree = Any
Hyperparameters = Mapping[str, Any]  # name -> value, traced or concrete


class Optimizer(Protocol):
    """optax's protocol: a pair of pure functions."""

    @property
    def init(self) -> Callable[..., PyTree]: ...  # params -> state
    @property
    def update(self) -> Callable[..., tuple[PyTree, PyTree]]: ...  # grads, state, params, **extra -> updates, state


OptimizerFactory = Callable[..., Optimizer]  # (**hyperparameters) -> Optimizer
OptimizerLike = Optimizer | OptimizerFactory


class State(NamedTuple):
    """What the next step needs."""

    params: Params
    aux: PyTree  # state that is not trained, () without
    opt_state: PyTree


class Info(NamedTuple):
    """What a reader wants to see of one step."""

    loss: Array  # () at the params before the update
    grad: Params
    update: Params  # zero in the last observation of a run


class Context(NamedTuple):
    """What a monitor may look at besides the states."""

    t: Array  # () int32, the step
    key: Key  # the seed's key
    hyperparameters: Hyperparameters
    data: PyTree
    moves: Array  # () bool, whether an update is made: False in a run's last observation
    going: Array  # () bool, whether the loss is one of the run's: False after its end
    multiple: Array | None = None  # () what an update is of the gradient; None where it is no multiple for sure


class Monitor(NamedTuple):
    """A triple of pure functions folded into the carry of a run; the last call has ``after`` equal to ``before``."""

    init: Callable[[State], PyTree]
    update: Callable[[PyTree, State, State, Info, Context], PyTree]
    read: Callable[[PyTree], dict[str, Array]]
    roll: Callable[[PyTree, State], PyTree] | None = None  # called before a step that starts a dyadic window
    freeze: bool = True  # False: never frozen; after the end it sees NaN losses and no moves
