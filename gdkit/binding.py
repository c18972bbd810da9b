"""A problem and an optimizer for given hyperparameters: resolved, checked, and with their arrays as arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr

from gdkit import checks, factories, optimizers
from gdkit import data as host_data
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.problems import Learner, Metric, Problem, ProblemLike
from gdkit.problems.learner import check_no_optimizer, inspect_learner, no_optimizer
from gdkit.problems.problem import takes_aux
from gdkit.tracing import jaxprs, user_code
from gdkit.types import (
    Array,
    ArrayTree,
    Context,
    Hyperparameters,
    Key,
    Optimizer,
    OptimizerLike,
    Params,
    PyTree,
    State,
    StaticHyperparameters,
)


class Arrays(NamedTuple):
    """The arrays of a problem: arguments of compiled programs rather than constants in them."""

    init: ArrayTree  # the initial params where they are given, else ()
    data: ArrayTree | None
    validation: ArrayTree | None
    test: ArrayTree | None
    start: State | None = None  # where to start instead of at `init`; aux and optimizer state None for the usual ones


def get_arrays(problem: Problem) -> Arrays:
    """The arrays of `problem`, with None for data that it lacks; examples of a window and of chunks on the host."""
    init = () if problem.init_is_function else problem.init
    data = problem.source.example() if problem.source else problem.data
    return Arrays(init, data, problem.get_held_out("validation"), problem.get_held_out("test"))


def replace_data(problem: ProblemLike, hyperparameters: Hyperparameters, arrays: Arrays, data: PyTree) -> Arrays:
    """`arrays` with `data` in place of the problem's; of None as they are.

    Raises:
      InputValueError: the loss of the problem takes no data.
    """
    if data is None:
        return arrays
    if not isinstance(problem, Learner):
        check_takes_data("data", data, resolve_problem(problem, hyperparameters)[0])
    return arrays._replace(data=data)


def check_takes_data(argument: str, data: PyTree, problem: Problem) -> None:
    """Raise if `data` are given for a problem whose loss takes none."""
    if data is not None and _get_loss_arguments(problem) == ("params",):
        remedy = "Leave it out, or pass Problem(loss, init, data=...) with a loss of params and a batch"
        raise bad_value(argument, data, "the loss of this problem takes no data", remedy)


def bind(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    *,
    reads_batches: bool = False,
) -> tuple[Arrays, StaticHyperparameters, dict[str, Array]]:
    """The arrays of the problem, and the checked hyperparameters: static ones, and traced ones of `traced_dtype`.

    Raises:
      InputValueError: the caller does not read the batches of a problem with data on the host.
    """
    if isinstance(problem, Learner) and not reads_batches:
        text = "a Learner has no loss that is a function of params alone"
        raise bad_type("problem", problem, text, "Pass a Problem; sweep, descend and step_map take a Learner")
    check_hyperparameters(problem, optimizer, hyperparameters)
    static, traced = {}, {}
    for name, value in hyperparameters.items():
        (traced if _is_traced(problem, optimizer, name, value) else static)[name] = value
    concrete, _ = resolve_problem(problem, hyperparameters)
    if concrete.batches is not None and not reads_batches:
        remedy = "Pass a Problem with data= and sample="
        raise bad_value("problem", concrete.name or concrete.loss, "only sweep and descend read batches=", remedy)
    traced = {name: jnp.asarray(value, traced_dtype()) for name, value in traced.items()}
    return get_arrays(concrete), tuple((n, factories.hashable(v)) for n, v in sorted(static.items())), traced


def _is_traced(problem: ProblemLike, optimizer: OptimizerLike, name: str, value: Any) -> bool:
    """Whether a hyperparameter is an argument of compiled programs; of a Learner, whether it is a float or a rate."""
    if isinstance(problem, Learner):
        return factories.is_float(value) or (name == "learning_rate" and factories.is_number(value))
    factory: Any = problem if name.startswith(factories.PROBLEM_PREFIX) else optimizer
    return factories.is_traced(factory, name.removeprefix(factories.PROBLEM_PREFIX), [value])


def resolve(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters
) -> tuple[Problem, Optimizer]:
    """The problem and the optimizer of these hyperparameters."""
    concrete, of_optimizer = resolve_problem(problem, hyperparameters)
    return concrete, no_optimizer() if isinstance(problem, Learner) else optimizers.build(optimizer, of_optimizer)


def resolve_problem(problem: ProblemLike, hyperparameters: Hyperparameters) -> tuple[Problem, dict[str, Any]]:
    """The problem of these hyperparameters, and the hyperparameters of the optimizer; a Learner gets all of them."""
    if isinstance(problem, Learner):
        return problem.as_problem(hyperparameters), {}
    values = {name: factories.as_python_number(value) for name, value in hyperparameters.items()}
    of_optimizer, of_problem = factories.split_hyperparameters(values)
    if isinstance(problem, Problem):
        return problem, of_optimizer
    check_problem(problem)
    concrete = factories.call("problem", problem, of_problem)
    if not isinstance(concrete, Problem):
        raise bad_type("problem", concrete, "the factory returned no Problem", "Return gdkit.Problem(loss, init, ...)")
    return concrete, of_optimizer


def traced_dtype() -> np.dtype:
    """The dtype of traced hyperparameters, whatever that of the params: float32, or float64 under x64."""
    return jnp.result_type(float)


def objective(problem: Problem, optimizer: Optimizer | None, batch: PyTree, aux: PyTree) -> Callable[[Params], Any]:
    """``params -> (loss, aux)`` on `batch`; negated under ascent."""
    logged = logged_objective(problem, optimizer, batch, aux)

    def loss(params: Params) -> tuple[Array, PyTree]:
        value, (new_aux, _) = logged(params)
        return value, new_aux

    return loss


def logged_objective(
    problem: Problem, optimizer: Optimizer | None, batch: PyTree, aux: PyTree
) -> Callable[[Params], Any]:
    """``params -> (loss, (aux, logs))`` on `batch`; the logs of a loss without `has_logs` are ()."""
    is_ascent = isinstance(optimizer, optimizers.Ascent)
    arguments = (batch, aux) if problem.has_aux else () if batch is None else (batch,)

    def loss(params: Params) -> tuple[Array, tuple[PyTree, PyTree]]:
        with user_code.translate_errors("loss", problem.loss):
            value, new_aux, logs = _split_loss(problem, problem.loss(params, *arguments), aux)
        return (-value if is_ascent else value), (new_aux, logs)

    return loss


def _split_loss(problem: Problem, returned: Any, aux: PyTree) -> tuple[Array, PyTree, PyTree]:
    """The loss, the next aux and the logs of what a loss returned."""
    if not problem.has_logs:
        value, new_aux = returned if problem.has_aux else (returned, aux)
        return value, new_aux, ()
    form = "(scalar, aux, logs)" if problem.has_aux else "(scalar, logs)"
    if not isinstance(returned, tuple) or len(returned) != form.count(",") + 1:
        raise bad_type("loss", returned, f"has_logs is set, and it does not return {form}", f"Return {form}")
    value, *new_aux, logs = returned
    return value, (new_aux[0] if new_aux else aux), checks.check_logs("loss", logs)


def get_log_names(problem: Problem, key: Key, arrays: Arrays) -> tuple[str, ...]:
    """The names of what a loss with `has_logs` reports, in the order of the alphabet."""
    if not problem.has_logs:
        return ()
    params, aux = get_start(problem, key, arrays.init)
    batch = check_batch(problem, key, arrays.data)
    logs = lambda params, batch, aux: logged_objective(problem, None, batch, aux)(params)[1][1]
    return tuple(jax.eval_shape(logs, params, batch, aux))


def get_batch(problem: Problem, t: Array, key: Key, data: PyTree) -> PyTree:
    """The batch of step `t`: a sample, or all the data, or None for a problem without data."""
    if problem.batches is not None:
        return host_data.select_batch(data, t)
    if problem.sample is None:
        return data
    with user_code.translate_errors("sample", problem.sample):
        return problem.sample(key, t, data)


def get_run_batch(problem: ProblemLike, context: Context) -> tuple[Problem, PyTree]:
    """The problem with the hyperparameters of a run that is monitored, and the batch of its step."""
    concrete, _ = resolve_problem(problem, context.hyperparameters)
    return concrete, get_batch(concrete, context.t, context.key, context.data)


def get_training_data(problem: Problem, t: Array, key: Key, data: PyTree) -> PyTree:
    """All training data, or the batch of step `t` if the structure of the data differs from that of a batch."""
    if problem.sample is None:
        return data
    batch = jax.eval_shape(problem.sample, key, t, data)
    return data if find_mismatch(data, batch) is None else problem.sample(key, t, data)


def get_params_dtype(problem: Problem) -> np.dtype:
    """The dtype of a run, to which the leaves of its params promote."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(*jax.tree.leaves(get_params_shape(problem))))


def get_params_shape(problem: Problem) -> Params:
    """The params as shapes and dtypes."""
    key = jax.eval_shape(jax.random.key, 0)
    params, _ = get_start(problem, key, problem.init)
    checks.check_floats("params", params)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)


def get_start(problem: Problem, key: Key, init: PyTree) -> tuple[Params, PyTree]:
    """The params and the aux of `init`; if `Problem.init` is a function, of what it returns, as shapes and dtypes."""
    if problem.init_is_function:
        with user_code.translate_errors("init", problem.init):
            init = jax.eval_shape(problem.init, key)
    return split_aux(problem, init)


def split_aux(problem: Problem, start: Any) -> tuple[Params, PyTree]:
    """The params and the aux of what `init` returns."""
    if not problem.has_aux:
        return start, ()
    if not isinstance(start, tuple) or len(start) != 2:
        remedy = "Return (params, aux) from init(key)"
        raise bad_type("init", start, "has_aux is set, and it is not a pair of params and aux", remedy)
    return start


# Checks before a run


def check_hyperparameters(
    problem: ProblemLike, optimizer: OptimizerLike, names: Sequence[str] | Mapping[str, Any]
) -> None:
    """Raise for names that the factories do not take."""
    if isinstance(problem, Learner):
        check_no_optimizer(optimizer)
        return
    of_optimizer, of_problem = factories.split_hyperparameters(dict.fromkeys(names))
    if of_problem and isinstance(problem, Problem):
        name = factories.PROBLEM_PREFIX + next(iter(of_problem))
        remedy = "Pass a factory, for example gdkit.problems.quadratic, not a finished Problem"
        raise bad_value("hyperparameters", name, "a finished Problem takes no hyperparameters", remedy)
    check_problem(problem)
    if optimizers.is_optimizer(optimizer):
        optimizers.build(optimizer, of_optimizer)
    elif callable(optimizer):
        factories.check_names("hyperparameters", optimizer, of_optimizer)
    else:
        raise bad_type("optimizer", optimizer, "neither an optimizer nor a factory", "Pass for example optax.adam")
    if not isinstance(problem, Problem):
        factories.check_names("hyperparameters", problem, of_problem)


def check_problem(value: Any) -> None:
    """Raise unless `value` is a Problem or can be called for one."""
    if not isinstance(value, Problem) and not callable(value):
        raise bad_type("problem", value, "neither a Problem nor a factory of one", "Pass gdkit.Problem(loss, init)")


def describe_steps(
    problem: ProblemLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> tuple[bool, bool]:
    """Whether steps report their gradient, and whether their loss is that of a minibatch."""
    if isinstance(problem, Learner):
        facts = inspect_learner(problem, hyperparameters, key, arrays.data)
        return facts.has_gradient, facts.is_stochastic
    return True, resolve_problem(problem, hyperparameters)[0].is_sampled


class RunFacts(NamedTuple):
    """Properties of runs, found by tracing them."""

    program: Jaxpr  # the loss, or the first steps of a Learner
    logs: tuple[str, ...]  # names of what is recorded beside the loss, in the order of the alphabet
    has_gradient: bool  # whether steps report their gradient
    is_stochastic: bool  # whether a loss is that of a minibatch


def check_run(
    problem: ProblemLike, optimizer: OptimizerLike, hyperparameters: Hyperparameters, key: Key, arrays: Arrays
) -> RunFacts:
    """Trace the loss; raise if it is not a float scalar or is constant, or if its batch changes shape."""
    concrete, built = resolve(problem, optimizer, hyperparameters)
    if isinstance(problem, Learner):
        facts = inspect_learner(problem, hyperparameters, key, arrays.data)
        _check_evaluation(concrete, key, arrays)
        _check_effects(concrete, facts.program.jaxpr)
        return RunFacts(facts.program.jaxpr, facts.logs, facts.has_gradient, facts.is_stochastic)
    closed, leaves = _trace_loss(concrete, built, key, arrays)
    _check_evaluation(concrete, key, arrays)
    if not any(jaxprs.depends_on(closed.jaxpr)[:leaves]):
        remedy = "Use the params in it; an array computed from them before the call is a constant"
        raise bad_value("loss", concrete.name or concrete.loss, "it does not depend on the params", remedy)
    _check_effects(concrete, closed.jaxpr)
    return RunFacts(closed.jaxpr, get_log_names(concrete, key, arrays), True, concrete.is_sampled)


def _check_effects(problem: Problem, loss: Jaxpr) -> None:
    """Raise for a loss that changes something outside itself; `jax.debug.print` only observes."""
    for equation in jaxprs.equations(loss):
        if equation.primitive.name == "io_callback":
            effect = f"it calls jax.experimental.io_callback{user_code.locate(jaxprs.get_lines(equation))}"
            remedy = "Record values with has_aux or a Monitor, or print them with jax.debug.print"
            raise bad_value("loss", problem.name or problem.loss, f"{effect}, which is not pure", remedy)


def _trace_loss(problem: Problem, optimizer: Optimizer | None, key: Key, arrays: Arrays) -> tuple[ClosedJaxpr, int]:
    """The loss as a program of params, batch and aux, and the number of leaves of the params."""
    params, aux = get_start(problem, key, arrays.init)
    checks.check_floats("params", params)
    remedy = "Give it these arguments; a loss takes a batch where the Problem has data, and aux with has_aux"
    checks.check_call("loss", problem.loss, _get_loss_arguments(problem), remedy)
    batch = check_batch(problem, key, arrays.data)

    # a new function each time, since JAX caches traces by function
    def loss(params: Params, batch: PyTree, aux: PyTree) -> Array:
        value = objective(problem, optimizer, batch, aux)(params)[0]
        checks.check_scalar("loss", value)
        return value

    with user_code.translate_errors("loss", problem.loss):
        closed = jax.make_jaxpr(loss)(params, batch, aux)
        if any(isinstance(constant, Tracer) for constant in closed.consts):
            raise jax.errors.UnexpectedTracerError("a constant of the loss belongs to an earlier trace")
    return closed, len(jax.tree.leaves(params))


def _get_loss_arguments(problem: Problem) -> tuple[str, ...]:
    if problem.has_aux:
        return ("params", "batch", "aux")
    return ("params",) if problem.data is None and problem.batches is None else ("params", "batch")


def check_batch(problem: Problem, key: Key, data: PyTree) -> PyTree:
    """Raise if the shapes of a batch change with the step; return them otherwise."""
    if problem.batches is not None:
        return jax.eval_shape(host_data.select_batch, data, np.int32(0))
    if problem.sample is None:
        return data
    checks.check_call("sample", problem.sample, ("key", "t", "data"), "Give it these arguments")
    draw = lambda key, t, data: get_batch(problem, t, key, data)
    first, second = (jax.eval_shape(draw, key, np.int32(t), data) for t in (0, 1))
    try:
        chex.assert_trees_all_equal_shapes(first, second)
    except AssertionError as error:
        remedy = "Return batches of one shape at every step"
        raise bad_value("sample", problem.sample, "the batch's shape changes with the step", remedy) from error
    return first


def _check_evaluation(problem: Problem, key: Key, arrays: Arrays) -> None:
    """Raise for validation or test data of another structure than a batch, and for metrics that are not callable."""
    batch = check_batch(problem, key, arrays.data)
    for name, data in (("validation", arrays.validation), ("test", arrays.test)):
        found = None if data is None else find_mismatch(data, batch)
        if found is not None:
            path, difference = found
            remedy = "Pass data as the loss takes them, with any number of rows; None may stand for a leaf"
            raise bad_type(name + path, _describe_shapes(data), difference, remedy)
    for name, metric in (problem.metrics or {}).items():
        names = ("params", "data", "aux") if problem.has_aux and takes_aux(metric) else ("params", "data")
        function = metric.function if isinstance(metric, Metric) else metric
        checks.check_call(f"metrics[{name!r}]", function, names, "Give it these arguments")
    if problem.evaluate is not None:
        names = ("params", "data", "aux") if takes_aux(problem.evaluate) else ("params", "data")
        checks.check_call("evaluate", problem.evaluate, names, "Give it these arguments")
        values = get_evaluated_shapes(problem, key, arrays)
        for name in problem.maximize:
            if name not in values:
                raise unknown_name("maximize", name, values)


def get_evaluated_shapes(problem: Problem, key: Key, arrays: Arrays) -> dict[str, Any]:
    """The values of `Problem.evaluate` by name, as shapes and dtypes.

    Raises:
      InputValueError, InputTypeError: they are not scalars by name.
    """

    def evaluate(params: Params, aux: PyTree, arrays: Arrays, key: Key) -> dict[str, Array]:
        held_out = [data for data in (arrays.validation, arrays.test) if data is not None]
        data = held_out[0] if held_out else get_training_data(problem, jnp.int32(0), key, arrays.data)
        return call_evaluate(problem, params, data, aux)

    return jax.eval_shape(evaluate, *get_start(problem, key, arrays.init), arrays, key)


def call_evaluate(problem: Problem, params: Params, data: PyTree, aux: PyTree) -> dict[str, Array]:
    """The scalars of `Problem.evaluate` by name; it gets aux, () without `has_aux`, if it takes it."""
    evaluate: Any = problem.evaluate
    with user_code.translate_errors("evaluate", evaluate):
        values = evaluate(params, data, aux) if takes_aux(evaluate) else evaluate(params, data)
    if not isinstance(values, Mapping) or not values:
        raise bad_type("evaluate", values, "it does not return a mapping of names", "Return {name: scalar} from it")
    for name in values:
        checks.check_variable_name("evaluate", name)
    return {name: checks.as_scalar(f"evaluate()[{name!r}]", value) for name, value in values.items()}


def find_mismatch(data: PyTree, batch: PyTree) -> tuple[str, str] | None:
    """Where and how the structure of `data` differs from that of `batch`; None if it does not.

    Leaves agree if they have the same number of dimensions, the same sizes but for the first (rows), and the same kind
    of numbers. None in `data` stands for whatever the batch has in its place.

    >>> x, y = np.zeros((8, 3)), np.zeros(8)
    >>> find_mismatch((x[:2], y[:2]), (x, y)), find_mismatch((x, None), (x, y))
    (None, None)
    >>> find_mismatch((x, x), (x, y))
    ('[1]', 'a batch has float64[8] there')
    """
    is_none = lambda x: x is None
    leaves, structure = jax.tree_util.tree_flatten_with_path(data, is_leaf=is_none)
    try:
        parts = structure.flatten_up_to(batch)
    except (ValueError, TypeError, KeyError):
        return "", f"its structure is not that of a batch, {_describe_shapes(batch)}"
    for (path, leaf), part in zip(leaves, parts, strict=True):
        if leaf is not None and (not jax.tree_util.all_leaves([part], is_leaf=is_none) or not _is_like(leaf, part)):
            return jax.tree_util.keystr(path), f"a batch has {_describe_shapes(part)} there"
    return None


def _is_like(leaf: Any, other: Any) -> bool:
    """Whether two arrays differ at most in their number of rows and their precision."""
    a, b = np.shape(leaf), np.shape(other)
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, jax.dtypes.prng_key)
    same_kind = any(jnp.issubdtype(_dtype_of(leaf), kind) and jnp.issubdtype(_dtype_of(other), kind) for kind in kinds)
    return other is not None and len(a) == len(b) and a[1:] == b[1:] and same_kind


def _dtype_of(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _describe_shapes(tree: PyTree) -> str:
    """The tree with dtype and shape in place of each array."""
    describe = lambda x: f"{_dtype_of(x)}[{','.join(map(str, np.shape(x)))}]"
    return str(jax.tree.map(describe, tree)).replace("'", "")


def is_impure(problem: ProblemLike, hyperparameters: Hyperparameters, key: Key) -> bool:
    """Whether two traces of the loss hold different constants, as they do when it draws numbers outside JAX."""
    concrete, _ = resolve_problem(problem, hyperparameters)
    arrays = get_arrays(concrete)

    def trace() -> ClosedJaxpr:
        if isinstance(problem, Learner):
            return inspect_learner(problem, hyperparameters, key, arrays.data).program
        return _trace_loss(concrete, None, key, arrays)[0]

    first, second = (jaxprs.constants(trace()) for _ in range(2))
    return len(first) != len(second) or not all(map(_is_same, first, second))


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.inexact)))
