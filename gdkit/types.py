"""Type aliases and protocols that the whole library shares."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import chex
import jax

Array = jax.Array
Key = chex.PRNGKey
Numeric = chex.Numeric  # a number or an array of numbers
ArrayTree = chex.ArrayTree  # a pytree of arrays of any structure
Params = Any  # a pytree of float arrays; not ArrayTree, since a loss takes one structure
PyTree = Any
Hyperparameters = Mapping[str, Any]  # name -> value, traced or concrete
StaticHyperparameters = tuple[tuple[str, Any], ...]  # sorted by name; hashable where all values are


class Optimizer(Protocol):
    """optax's protocol: a pair of pure functions."""

    @property
    def init(self) -> Callable[..., PyTree]: ...  # params -> state
    @property
    def update(self) -> Callable[..., tuple[PyTree, PyTree]]: ...  # grads, state, params, **extra -> updates, state


OptimizerFactory = Callable[..., Optimizer]  # (**hyperparameters) -> Optimizer
OptimizerLike = Optimizer | OptimizerFactory


class State(NamedTuple):
    """The state of a run between two steps."""

    params: Params
    aux: PyTree  # state that is not trained; () if there is none
    opt_state: PyTree


class Info(NamedTuple):
    """The values of one step that monitors read."""

    loss: Array  # () at the params before the update
    grad: Params
    update: Params  # monitors that freeze see zero where no update is made
    logs: Any = ()  # name -> (), what a loss with `has_logs` reports; () without


class Context(NamedTuple):
    """The inputs of a monitor besides states and info."""

    t: Array  # () int32, the step
    key: Key  # the key that samples batches
    hyperparameters: Hyperparameters
    data: PyTree
    moves: Array  # () bool, whether an update is made; False in the last observation of a run
    going: Array  # () bool, whether the run has not ended before this step


class Evaluation(NamedTuple):
    """The values of one evaluation along a run that monitors read."""

    t: Array  # () int32, updates made
    values: Mapping[str, Array]  # name -> (), such as ``validation_loss``
    maximized: frozenset[str]  # those of the names whose value is better when larger


class Monitor(NamedTuple):
    """A triple of pure functions folded into the carry of a run; in the last call `after` equals `before`.

    With `stop` it is a stopping rule too: where ``stop(memory)``, a () bool, is true after a step was observed, the run
    ends at this step, with the params at which its loss was observed (`EndKind.STOPPED`). That step was observed as if
    it were made.
    """

    init: Callable[[State], PyTree]
    update: Callable[[PyTree, State, State, Info, Context], PyTree]
    read: Callable[[PyTree], dict[str, Array]]
    roll: Callable[[PyTree, State], PyTree] | None = None  # called before a step that starts a dyadic window
    freeze: bool = True  # keep its value after the end; if False, it is still called, with NaN losses and moves=False
    stop: Callable[[PyTree], Array] | None = None  # memory -> () bool, whether the run ends
    # (memory, state, evaluation) -> memory, called after each evaluation along the run but the one at its end
    on_evaluation: Callable[[PyTree, State, Evaluation], PyTree] | None = None
