"""A problem: a pure loss, its initial params, and data."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from gdkit.checks import check_arrays, check_flag, check_instances, check_optimum, check_variable_name
from gdkit.data import Source
from gdkit.data.held_out import HeldOutSource
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.types import Array, PyTree

MAXIMIZED = ("accuracy", "r2")  # metrics of these names are better when larger, unless a Metric says otherwise


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric with its direction, a value of ``Problem(metrics=...)`` and of ``problems.supervised(metrics=...)``.

    Args:
      function: what a plain function would be in its place.
      maximize: whether larger is better.

    Raises:
      InputTypeError: `function` is not callable.

    >>> Metric(lambda params, data: -abs(params - data), maximize=True)(1.0, 3.0)
    -2.0
    """

    function: Callable[..., Any]
    _: dataclasses.KW_ONLY
    maximize: bool = False

    def __post_init__(self):
        if not callable(self.function):
            raise bad_type("function", self.function, "not callable", "Pass Metric(function, maximize=True)")
        check_flag("maximize", self.maximize)

    def __call__(self, *args: Any) -> Any:
        """The value of the function."""
        return self.function(*args)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A pure loss, its initial params, and the data that it is trained and evaluated on.

    Args:
      loss: ``loss(params) -> scalar``, or ``loss(params, batch) -> scalar`` with `data`; with `has_aux`,
        ``loss(params, batch, aux) -> (scalar, aux)``. Pure.
      init: a pytree of float arrays, or ``key -> params`` (``key -> (params, aux)`` with `has_aux`). A callable
        pytree with leaves of its own, such as an equinox module, is params.
      data: a pytree, passed to the compiled program as an argument.
      sample: ``sample(key, t, data) -> batch``, pure, of the same shape at every step; None: all of `data`.
      batches: data on the host in place of `data`: a pure function ``(seed: int, t: int) -> batch`` of NumPy arrays of
        one shape, or a source of `gdkit.data`. Batches are read ahead while the device works.
      validation, test: batches as the loss takes them, of any number of rows, on which the loss and `metrics` are
        evaluated at the end of a run. None may stand for a leaf. Where many rows would take much memory, values that
        are means over rows are evaluated in chunks of them. Sources of `gdkit.data` are read whole at every evaluation,
        in chunks of their batch size, and all values averaged over rows.
      metrics: name to ``f(params, data) -> scalar``, or with `has_aux` ``f(params, data, aux)``: a metric gets the aux
        of the last step if it has a third positional parameter without a default, or one named ``aux``. Small where
        the params are good; `Metric` marks those to be large, and ``accuracy`` and ``r2`` are large by name. Read on
        `validation` and `test`; without these on the training data, as ``train_NAME``.
      evaluate: ``evaluate(params, data, aux) -> {name: scalar}``, or without the third argument, in place of the loss
        and `metrics` on `validation` and `test`, where these differ from training: without dropout, with running
        averages, without a regularizer. The values become ``validation_NAME`` and ``test_NAME``, or ``train_NAME``
        without either. Runs are compared by ``loss`` if it is among them, else by the first of `maximize`, else by the
        first name in the order of the alphabet.
      maximize: the names of `metrics` and `evaluate` that are better when larger.
      optimum: the minimum of the loss, where it is known.
      has_aux: whether the loss takes and returns state that is not trained.
      has_logs: whether the loss returns a dictionary of scalars last, ``(scalar, logs)`` or ``(scalar, aux, logs)``.
        They are recorded beside the loss, as ``curve_NAME`` in sweeps and as `Trajectory.logs`.
      name: the name in tables and figures.
      caveats: what is suspicious about the data, one sentence each; recommendations and reports repeat them.

    Raises:
      InputTypeError: `loss`, `sample`, `batches` or `evaluate` is not callable, there is no `data` to sample from,
        `metrics` is not a mapping of functions, or another argument has a wrong type.
      InputValueError: there are both `metrics` and `evaluate`, or both `data` and `batches`, or `maximize` names what
        neither `metrics` nor `evaluate` has, or `optimum` is not finite.
    """

    loss: Callable[..., Any]
    init: Any  # params, or key -> params
    _: dataclasses.KW_ONLY
    data: PyTree = None
    sample: Callable[..., PyTree] | None = None
    batches: Callable[[int, int], PyTree] | None = None
    validation: PyTree = None
    test: PyTree = None
    metrics: Mapping[str, Callable[..., Any]] | None = None
    evaluate: Callable[..., Mapping[str, Any]] | None = None
    maximize: Sequence[str] = ()
    optimum: float | Array | None = None
    has_aux: bool = False
    has_logs: bool = False
    name: str | None = None
    caveats: tuple[str, ...] = ()
    training_part: ClassVar[str] = "train"  # prefix of the names of metrics on the training data

    def __post_init__(self):
        if not callable(self.loss):
            raise bad_type("loss", self.loss, "not callable", "Pass a pure function of the params")
        if self.sample is not None and self.data is None:
            raise bad_type("sample", self.sample, "there is no data to sample from", "Pass data= as well")
        if self.sample is not None and not callable(self.sample):
            raise bad_type("sample", self.sample, "not callable", "Pass sample(key, t, data) -> batch")
        for name in ("has_aux", "has_logs"):
            check_flag(name, getattr(self, name))
        check_optimum(self.optimum)
        if self.name is not None and not isinstance(self.name, str):
            raise bad_type("name", self.name, "not a string", "Pass text, or leave it out")
        check_instances("caveats", self.caveats, str, "Pass one sentence per caveat, for example ('few rows',)")
        check_metrics(self.metrics)
        _check_evaluate(self)
        _check_batches(self)
        for part in ("data", "validation", "test"):
            if part not in self.held_out_sources:
                check_arrays(part, getattr(self, part))
                _check_rows(part, getattr(self, part))
        for part in self.held_out_sources.values():
            if not hasattr(part.source, "read_chunk"):
                remedy = "Pass data, or for example gdkit.data.from_arrays(arrays, batch_size=64)"
                raise bad_type(part.part, part.source, "a function does not tell how many batches it has", remedy)

    @functools.cached_property
    def source(self) -> Source | None:
        """`batches` with its checks; None without."""
        return None if self.batches is None else Source(self.batches)

    @functools.cached_property
    def held_out_sources(self) -> dict[str, HeldOutSource]:
        """The parts among `validation` and `test` that are on the host, with checks."""
        parts = {"validation": self.validation, "test": self.test}
        is_source = lambda data: callable(data) and jax.tree_util.all_leaves([data])
        return {part: HeldOutSource(data, part) for part, data in parts.items() if is_source(data)}

    def get_held_out(self, part: str) -> PyTree:
        """The validation or test data; of a source the first chunk."""
        source = self.held_out_sources.get(part)
        return getattr(self, part) if source is None else source.first

    @property
    def is_sampled(self) -> bool:
        """Whether each step sees a batch of its own."""
        return self.sample is not None or self.batches is not None

    @property
    def init_is_function(self) -> bool:
        """Whether `init` is called with a key: a callable without leaves of its own.

        >>> import jax.numpy as jnp
        >>> Problem(jnp.sum, jnp.zeros).init_is_function, Problem(jnp.sum, jnp.zeros(3)).init_is_function
        (True, False)
        """
        return callable(self.init) and jax.tree_util.all_leaves([self.init])


def maximized_metrics(metrics: Mapping[str, Callable[..., Any]] | None) -> tuple[str, ...]:
    """The names of the metrics that are better when larger.

    >>> maximized_metrics({"accuracy": max, "r2": Metric(max), "recall": Metric(max, maximize=True), "error": max})
    ('accuracy', 'recall')
    """
    larger = lambda name, metric: metric.maximize if isinstance(metric, Metric) else name in MAXIMIZED
    return tuple(name for name, metric in (metrics or {}).items() if larger(name, metric))


def maximized_names(problem: Problem) -> tuple[str, ...]:
    """The names of what a problem is evaluated by that are better when larger, those of `Problem.maximize` first.

    >>> maximized_names(Problem(sum, [1.0], metrics={"accuracy": max, "recall": max}, maximize=["recall"]))
    ('recall', 'accuracy')
    """
    by_name = MAXIMIZED if problem.evaluate is not None else maximized_metrics(problem.metrics)
    return tuple(dict.fromkeys((*problem.maximize, *by_name)))


def count_paired_rows(data: PyTree) -> int:
    """The number of rows of data of several arrays with equally many rows, such as ``(x, y)``; 0 for other data.

    >>> count_paired_rows((np.ones((30, 4)), np.ones(30))), count_paired_rows(np.ones(30)), count_paired_rows(None)
    (30, 0, 0)
    """
    rows = [np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)]
    return rows[0][0] if len(rows) > 1 and rows[0] and len(set(rows)) == 1 else 0


def count_validation_rows(problem: Problem) -> int:
    """The number of rows of the validation data; 0 if it is unknown."""
    source = problem.held_out_sources.get("validation")
    return (
        count_paired_rows(problem.validation) if source is None else source.rows * bool(count_paired_rows(source.first))
    )


def takes_aux(metric: Callable[..., Any]) -> bool:
    """Whether a metric takes aux: its third positional parameter has no default, or is named ``aux``.

    >>> takes_aux(lambda params, data, aux: 0.0), takes_aux(Metric(lambda params, data: 0.0))
    (True, False)
    """
    try:
        parameters = inspect.signature(metric.function if isinstance(metric, Metric) else metric).parameters.values()
    except ValueError:  # a builtin without a signature
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) > 2 and (places[2].default is inspect.Parameter.empty or places[2].name == "aux")


def check_metrics(metrics: Any) -> None:
    """Raise unless `metrics` is None or a mapping of names to functions."""
    if metrics is not None and not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise bad_type("metrics", metrics, "not a mapping of functions", "Pass metrics={'name': function}")
    for name in metrics or {}:
        check_variable_name("metrics", name)
        if name == "loss":
            raise bad_value("metrics", name, "validation_loss is the loss itself", "Give the metric another name")


def _check_rows(part: str, data: PyTree) -> None:
    """Raise for arrays to evaluate on that have no rows: a mean over none is not finite."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)] if part != "data" else []
    if any(shape[:1] == (0,) for shape in shapes):
        raise bad_value(part, shapes, "an array has no rows", "Pass at least one row, or leave it out")


def _check_batches(problem: Problem) -> None:
    """Raise unless `Problem.batches` can be used."""
    if problem.batches is None:
        return
    if not callable(problem.batches):
        remedy = "Pass a function (seed, t) -> batch, or for example gdkit.data.from_arrays(arrays, batch_size=64)"
        raise bad_type("batches", problem.batches, "not callable", remedy)
    if problem.data is not None:
        raise bad_value("batches", problem.batches, "there is data= as well", "Pass one of the two")
    if (problem.metrics or problem.evaluate) and problem.validation is None and problem.test is None:
        remedy = "Pass validation= or test="
        raise bad_value("batches", problem.batches, "there are no data to evaluate on", remedy)


def _check_evaluate(problem: Problem) -> None:
    """Raise unless `Problem.evaluate` and `Problem.maximize` can be used; `evaluate` is called in a trace, later."""
    evaluate, maximize = problem.evaluate, problem.maximize
    if evaluate is not None and not callable(evaluate):
        raise bad_type("evaluate", evaluate, "not callable", "Pass evaluate(params, data, aux) -> {name: scalar}")
    if evaluate is not None and problem.metrics is not None:
        remedy = "Return the metrics from evaluate as well, or leave evaluate out"
        raise bad_value("metrics", list(problem.metrics), "evaluate replaces the loss and the metrics", remedy)
    check_instances("maximize", maximize, str, "Pass for example maximize=('accuracy',)")
    for name in maximize:
        if evaluate is None and not problem.metrics:
            raise bad_value(
                "maximize", name, "nothing is evaluated under this name", "Return it from evaluate= as well"
            )
        if evaluate is None and name not in (problem.metrics or {}):
            raise unknown_name("maximize", name, problem.metrics or {})
