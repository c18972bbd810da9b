"""What a user asks for: a pure loss, its start, and data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax

from gdkit.errors import bad_type
from gdkit.types import PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A pure loss, where it starts, and the data it is judged on.

    Args:
      loss: ``loss(params) -> scalar``, or ``loss(params, batch) -> scalar`` with `data`; with `has_aux`,
        ``loss(params, batch, aux) -> (scalar, aux)``. Pure.
      init: a pytree of float arrays, or ``key -> params`` (``key -> (params, aux)`` with `has_aux`). It is called
        if it is callable and its own pytree leaf.
      data: a pytree handed to the compiled program as an argument.
      sample: ``sample(key, t, data) -> batch``, pure, of one shape at every step; absent: the full batch.
      validation, test: data like `data`, on which the loss and `metrics` are read at the end.
      metrics: name to ``f(params, data) -> scalar``.
      optimum: the known minimum of the loss, if any.
      has_aux: whether state that is not trained goes through the loss.
      name: what tables and figures call it.
    """

    loss: Callable[..., Any]
    init: Any
    _: dataclasses.KW_ONLY
    data: PyTree = None
    sample: Callable[..., PyTree] | None = None
    validation: PyTree = None
    test: PyTree = None
    metrics: Mapping[str, Callable[..., Any]] | None = None
    optimum: Any = None
    has_aux: bool = False
    name: str | None = None

    def __post_init__(self):
        if not callable(self.loss):
            raise bad_type("loss", self.loss, "not callable", "Pass a pure function of the params")
        if self.sample is not None and self.data is None:
            raise bad_type("sample", self.sample, "there is no data to sample from", "Pass data= as well")
        if self.sample is not None and not callable(self.sample):
            raise bad_type("sample", self.sample, "not callable", "Pass sample(key, t, data) -> batch")
        check_metrics(self.metrics)

    @property
    def init_is_function(self) -> bool:
        """Whether `init` is called with a key; an equinox module is callable too, and is params.

        >>> Problem(jnp.sum, jnp.zeros).init_is_function, Problem(jnp.sum, np.zeros(3)).init_is_function
        (True, False)
        """
        return callable(self.init) and jax.tree_util.all_leaves([self.init])


ProblemLike: TypeAlias = Problem | Callable[..., Problem]  # a problem, or a factory of problems


def check_metrics(metrics: Any) -> None:
    """Raise unless `metrics` is None or maps names to functions."""
    if metrics is not None and not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise bad_type("metrics", metrics, "not a mapping of functions", "Pass metrics={'name': function}")
