"""Derivatives equal closed forms, finite differences and jax.grad, and wrong ones are told from rounding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import assert_refused, quick

from gdkit import problems
from gdkit.gradients import chain_rule_trace, check_gradient, finite_difference, partial_derivative, sensitivity

NUMBERS = st.floats(-4, 4, width=32)


def square(t):
    return t**2


# finite differences


def test_slopes_of_a_square_at_three_are_seven_then_nearly_six():
    table = finite_difference(square, 3.0, [1.0, 0.01, 0.001])
    np.testing.assert_allclose(table.estimate, [7.0, 6.01, 6.001], rtol=1e-12)
    np.testing.assert_allclose(table.error, [1.0, 0.01, 0.001], rtol=1e-9)
    assert table.derivative == 6.0 and table.best == 0.001


def test_central_differences_of_a_square_are_exact():
    np.testing.assert_allclose(finite_difference(square, 3.0, [1.0, 0.25], "central").error, 0.0, atol=1e-14)


@pytest.mark.parametrize(("method", "order"), [("forward", 1), ("central", 2)])
def test_error_of_large_steps_falls_with_the_order_of_the_method(method, order):
    errors = finite_difference(jnp.exp, 1.0, [1e-2, 1e-3], method).error
    assert errors[0] / errors[1] == pytest.approx(10**order, rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("method", "power"), [("forward", 1 / 2), ("central", 1 / 3)])
def test_best_step_is_near_the_root_of_the_rounding_unit(method, power, dtype):
    eps = float(np.finfo(dtype).eps)
    steps = np.geomspace(eps**0.9, 1.0, 40)
    tables = [finite_difference(jnp.exp, x, steps, method, dtype=dtype) for x in (0.6, 0.8, 0.9, 1.1, 1.3)]
    assert np.exp(np.mean([np.log(t.best) for t in tables])) == pytest.approx(eps**power, rel=9), (
        "within a factor of 10"
    )
    mean = np.mean([t.error for t in tables], axis=0)
    assert mean[0] > 100 * mean.min() and mean[-1] > 100 * mean.min(), "the curve of the error is a V"


def test_float64_is_switched_on_inside_the_call_only():
    before = jax.config.jax_enable_x64
    seen = []
    finite_difference(lambda t: (seen.append(t.dtype), t**2)[1], 3.0, [0.1])
    assert set(seen) == {np.dtype("float64")}
    assert jax.config.jax_enable_x64 == before and jnp.asarray(1.5).dtype == jnp.float32


def test_a_finite_difference_prints_a_row_a_step_and_the_derivative():
    lines = str(finite_difference(square, 3.0, [1.0, 0.01])).splitlines()
    assert [line.split()[0] for line in lines] == ["step", "-" * len(lines[0]), "1", "0.01", "jax.grad"]


# several inputs


def lesson(c, d):
    return c**2 + 2 * c * d + d


@pytest.mark.parametrize("at", [(0.5, 0.3), {"c": 0.5, "d": 0.3}, {"d": 0.3, "c": 0.5}])
@pytest.mark.parametrize(("names", "slope"), [((0, -2, "c"), 1.6), ((1, -1, "d"), 2.0)])
def test_partial_derivatives_of_the_lesson_by_position_and_by_name(at, names, slope):
    for name in names[:1] + names[2:] if isinstance(at, dict) else names:
        np.testing.assert_allclose(partial_derivative(lesson, name, at), slope, rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(NUMBERS, NUMBERS)
def test_partial_derivatives_equal_the_closed_form(c, d):
    np.testing.assert_allclose(partial_derivative(lesson, "c", (c, d)), 2 * c + 2 * d, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(partial_derivative(lesson, "d", (c, d)), 2 * c + 1, rtol=1e-5, atol=1e-5)


def test_a_partial_derivative_has_the_shape_of_its_input_and_leaves_integers_alone():
    f = lambda w, n: jnp.sum(w**n)
    np.testing.assert_allclose(partial_derivative(f, "w", (jnp.arange(3.0), 3)), 3 * jnp.arange(3.0) ** 2)


def test_sensitivity_ranks_inputs_by_the_size_of_their_derivative():
    def score(conjunction_risk, debris_density, solar_activity, comms_window):
        return 4 * conjunction_risk**2 + 3 * debris_density * solar_activity - 0.5 * comms_window

    ranked = sensitivity(score, conjunction_risk=0.5, debris_density=0.4, solar_activity=0.6, comms_window=0.8)
    assert [row.name for row in ranked] == ["conjunction_risk", "debris_density", "solar_activity", "comms_window"]
    np.testing.assert_allclose([row.derivative for row in ranked], [4.0, 1.8, 1.2, -0.5], rtol=1e-6)
    assert str(ranked).splitlines()[2].split(" | ")[0].strip() == "conjunction_risk"


def test_no_random_direction_climbs_faster_than_the_gradient(key):
    at, problem = jnp.array([-1.2, 1.0]), problems.rosenbrock()
    directions = jax.random.normal(key, (10_000, 2))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    slope_along = lambda v: jax.jvp(problem.loss, (at,), (v,))[1]
    slopes = jax.vmap(slope_along)(directions)
    gradient = jax.grad(problem.loss)(at)
    steepest = slope_along(gradient / jnp.linalg.norm(gradient))
    assert jnp.max(slopes) <= steepest * (1 + 1e-6)
    np.testing.assert_allclose(steepest, jnp.linalg.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(directions[jnp.argmax(slopes)], gradient / jnp.linalg.norm(gradient), atol=1e-2)


# check_gradient


def scaled(factor):
    """The square, with a derivative that is wrong by `factor`."""

    @jax.custom_vjp
    def f(x):
        return x**2

    f.defvjp(lambda x: (x**2, x), lambda x, g: (factor * 2 * x * g,))
    return f


def single(x):
    """Passes through float32 whatever comes in."""
    return jnp.asarray(x, jnp.float32)


def mlp():
    """Loss, params and a batch of a network of 64-16-10."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = [{"w": draw(64, 16) / 8, "b": jnp.zeros(16)}, {"w": draw(16, 10) / 4, "b": jnp.zeros(10)}]

    def loss(params, batch):
        x, y = batch
        hidden = jax.nn.relu(x @ params[0]["w"] + params[0]["b"][None])
        logits = hidden @ params[1]["w"] + params[1]["b"][None]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    return loss, params, (draw(32, 64), jnp.asarray(rng.integers(0, 10, 32)))


RIGHT = {
    "scalar": (lambda x: jnp.exp(x) * x, 0.7),
    "vector": (lambda x: jnp.sum(jnp.sin(x) ** 2), jnp.linspace(-1, 1, 7)),
    "tree": (lambda p: p["a"][0] * jnp.sum(p["b"] ** 3), {"a": (1.5,), "b": jnp.ones((2, 3))}),
    "large leaf": (lambda x: jnp.sum(jnp.tanh(x) ** 2), jnp.linspace(-2, 2, 5000)),
    "own rule": (lambda x: jnp.sum(scaled(1.0)(x)), jnp.arange(1.0, 4.0)),
    "kink": (lambda x: jnp.sum(jnp.abs(x)) + jnp.sum(jnp.maximum(x, 0.0)), jnp.array([0.0, 1.0, -2.0])),
    "edge of the domain": (lambda x: jnp.sum(jnp.log(x)), jnp.array([1.0, 1e-7])),
    "stiff": (lambda x: 1e6 * x**2, 1e-6),
    "far away": (lambda x: 1e8 + x**2, 1.0),
    "zero slope": (lambda x: x**2, 0.0),
    "float32": (lambda x: jnp.sum(jnp.sin(single(x)) ** 2), jnp.linspace(-1, 1, 7)),
    "large float32": (lambda x: jnp.sum(jnp.tanh(single(x)) ** 2), jnp.linspace(-2, 2, 5000)),
    "softplus": (lambda x: jnp.sum(jax.nn.softplus(x)), jnp.ones(3)),
}


@pytest.mark.parametrize("name", quick(RIGHT, "tree", "large leaf", "own rule", "kink", "stiff", "float32"))
def test_right_gradients_pass(name):
    check = check_gradient(*RIGHT[name])
    assert check.ok, f"\n{check}"
    assert check.dtype == ("float32" if "float32" in name else "float64")


def test_the_gradient_of_a_network_passes_leaf_by_leaf():
    loss, params, batch = mlp()
    check = check_gradient(loss, params, batch)
    assert check.ok, f"\n{check}"
    assert [leaf.size for leaf in check.leaves] == [x.size for x in jax.tree.leaves(params)]


@pytest.mark.parametrize("size", [3, 1000], ids=["every coordinate", "directions"])
@pytest.mark.parametrize("precision", [lambda x: x, single], ids=["float64", "float32"])
@pytest.mark.parametrize("factor", quick([0.0, -1.0, 0.5, 1.02, 2.0], 0.0, -1.0, 1.02))
def test_a_custom_vjp_that_is_wrong_by_a_factor_is_found_in_its_leaf(factor, precision, size):
    loss = lambda p: jnp.mean(scaled(factor)(precision(p["wrong"]))) + jnp.mean(precision(p["right"]) ** 2)
    check = check_gradient(loss, {"wrong": jnp.linspace(1, 2, size), "right": jnp.linspace(1, 2, size)})
    assert {leaf.leaf: leaf.ok for leaf in check.leaves} == {"['wrong']": False, "['right']": True}, f"\n{check}"
    assert not check.ok and str(check).count("WRONG") == 1


def sines(precision, factor=1.0):
    """Σ sin x in a precision, with a derivative that is wrong by `factor`."""
    total = lambda x: jnp.sum(jnp.sin(x))
    f = jax.custom_vjp(total)
    f.defvjp(lambda x: (total(x), x), lambda x, g: (factor * g * jnp.cos(x),))
    return lambda x: f(precision(x))


def dense(precision, factor=1.0):
    """The mean softplus of a product with 100 x 100 weights, with a derivative that is wrong by `factor`."""
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(20, 100)), jnp.float32)
    value = lambda w: jnp.mean(jax.nn.softplus(rows.astype(w.dtype) @ w))
    f = jax.custom_vjp(value)
    f.defvjp(lambda w: (value(w), w), lambda w, g: (factor * g * jax.grad(value)(w),))
    return lambda w: f(precision(w))


WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(100, 100)) / 10, jnp.float32)
LARGE = {
    "float32": (sines, single, jnp.ones(10_000)),
    "matrix in float32": (dense, single, WEIGHTS),
    "float64": (sines, lambda x: x, jnp.ones(10_000)),
    "bfloat16 params in float32": (sines, single, jnp.ones(10_000, jnp.bfloat16)),
    "bfloat16 params": (dense, lambda x: x, WEIGHTS.astype(jnp.bfloat16)),
}


@pytest.mark.parametrize("name", quick(LARGE, "matrix in float32", "float64", "bfloat16 params in float32"))
def test_a_gradient_wrong_by_a_twentieth_in_a_large_leaf_is_found(name):
    make, precision, at = LARGE[name]
    for factor, ok in ((1.0, True), (1.05, False), (0.95, False)):
        check = check_gradient(make(precision, factor), at)
        assert check.ok == ok, f"{factor}\n{check}"


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("size", [3, 10_000])
def test_right_gradients_that_are_computed_in_half_precision_pass(dtype, size):
    check = check_gradient(sines(lambda x: x.astype(dtype)), jnp.linspace(0, 1, size))
    assert check.ok, f"\n{check}"


def test_one_wrong_entry_among_thousands_is_found():
    mistake = jnp.zeros(5000).at[1234].set(0.1)

    @jax.custom_vjp
    def f(x):
        return jnp.mean(x**2)

    f.defvjp(lambda x: (f(x), x), lambda x, g: (2 * x / x.size * g * (1 + mistake.astype(x.dtype)),))
    assert not check_gradient(f, jnp.linspace(1, 2, 5000)).ok


def test_a_gradient_of_nan_beside_a_finite_loss_is_wrong():
    check = check_gradient(lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0)), jnp.array([1.0, -1.0]))
    assert not check.ok and math.isnan(check.leaves[0].gradient)


def test_checking_a_gradient_leaves_the_precision_as_it_was():
    check_gradient(lambda x: x**2, 1.0)
    assert not jax.config.jax_enable_x64 and jnp.asarray(1.5).dtype == jnp.float32


# chain_rule_trace


def test_the_walk_through_the_lesson_goes_one_six_six_twelve():
    trace = chain_rule_trace(lambda x: (2 * x + 1) ** 2, 1.0)
    assert trace.value == 9.0 and trace.gradient == 12.0
    assert [float(row.adjoint) for row in reversed(trace.rows)] == [1.0, 6.0, 6.0, 12.0]
    local = [[d for d in row.derivative if d is not None] for row in trace.rows]
    assert local == [[], [2.0], [1.0], [6.0]]
    assert [float(row.value) for row in trace.rows] == [1.0, 2.0, 3.0, 9.0]


UNARY = {
    "sin": jnp.sin,
    "tanh": jnp.tanh,
    "square": square,
    "negative": jnp.negative,
    "gauss": lambda x: jnp.exp(-(x**2)),
}
BINARY = {"add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "ratio": lambda x, y: x / (1 + y**2)}
EXPRESSIONS = st.recursive(
    st.sampled_from(["x", "y"]),
    lambda inner: (
        st.tuples(st.sampled_from(sorted(UNARY)), inner) | st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
    ),
    max_leaves=6,
)


def value_of(expression, x, y):
    if isinstance(expression, str):
        return {"x": x, "y": y}[expression]
    name, *inner = expression
    return (UNARY | BINARY)[name](*(value_of(part, x, y) for part in inner))


def sum_over_paths(trace, name):
    """The derivative in the input `name`: over all paths to the result, the product of the local derivatives."""
    edges = trace.graph().edges
    result = trace.rows[-1].output
    along = lambda node: (
        1.0 if node == result else sum(slope * along(target) for source, target, slope in edges if source == node)
    )
    return along(name)


@settings(max_examples=25, deadline=None)
@given(EXPRESSIONS, st.floats(-2, 2, width=32), st.floats(-2, 2, width=32))
def test_the_products_along_the_paths_add_up_to_the_gradient(expression, x, y):
    f = lambda x, y: value_of(expression, x, y) + 0.5 * x - y
    trace, exact = chain_rule_trace(f, x, y), jax.grad(f, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(trace.gradient, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([sum_over_paths(trace, n) for n in "xy"], exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trace.value, f(x, y), rtol=1e-5, atol=1e-5)


def power_by_while(x):
    return jax.lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * x, c[1] + 1), (x, 0))[0]


@jax.custom_jvp
def with_own_jvp(x):
    return jnp.sin(x)


with_own_jvp.defjvp(lambda primals, tangents: (with_own_jvp(*primals), jnp.cos(primals[0]) * tangents[0]))


CALLS = {
    "scan": (lambda x: jax.lax.scan(lambda c, _: (c * x, None), x, None, length=3)[0], "scan", 4 * 1.5**3),
    "cond": (lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), "cond", math.cos(1.5)),
    "while": (power_by_while, "while", 4 * 1.5**3),
    "while in cond": (lambda x: jax.lax.cond(x > 0, power_by_while, jnp.cos, x), "cond", 4 * 1.5**3),
    "custom_jvp": (with_own_jvp, "with_own_jvp", math.cos(1.5)),
    "custom_vjp": (scaled(3.0), "f", 9.0),
    "relu": (jax.nn.relu, "relu", 1.0),
}


@pytest.mark.parametrize("name", quick(CALLS, "scan", "while in cond", "custom_jvp", "custom_vjp"))
def test_control_flow_and_own_rules_are_one_row(name):
    f, operation, slope = CALLS[name]
    trace = chain_rule_trace(lambda x: 2 * f(x), 1.5)
    assert [row.operation for row in trace.rows].count(operation) == 1
    np.testing.assert_allclose(trace.gradient, 2 * slope, rtol=1e-5)
    if name != "custom_vjp":  # whose rule is wrong on purpose, and is what is followed
        np.testing.assert_allclose(trace.value, 2 * f(1.5), rtol=1e-6)


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))], ids=["jit", "remat", "twice"]
)
def test_what_jit_and_checkpoint_wrap_is_walked_through(wrap):
    f = lambda x: (2 * x + 1) ** 2
    plain, wrapped = chain_rule_trace(f, 1.0), chain_rule_trace(wrap(f), 1.0)
    assert [row.operation for row in plain.rows] == [row.operation for row in wrapped.rows]
    assert wrapped.gradient == 12.0


@pytest.mark.full
def test_the_backward_walk_through_a_network_ends_in_its_gradient():
    loss, params, batch = mlp()
    trace, exact = chain_rule_trace(lambda params: loss(params, batch), params), jax.grad(loss)(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), trace.gradient, exact)
    for row in trace.rows:
        for value, adjoint in zip(*map(jax.tree.leaves, (row.value, row.adjoint)), strict=False):
            assert value.shape == adjoint.shape
    assert "(64×16) |" in str(trace) and "relu(" in str(trace)


def test_the_graph_joins_what_uses_a_value_to_what_makes_it():
    graph = chain_rule_trace(lambda x, y: x * y + x, 2.0, 3.0).graph()
    assert list(graph.nodes) == ["x", "y", "v1", "v2"]
    assert graph.edges == [("x", "v1", 3.0), ("y", "v1", 2.0), ("v1", "v2", 1.0), ("x", "v2", 1.0)]


def test_a_value_used_twice_gets_the_sum_of_its_adjoints():
    assert chain_rule_trace(lambda x: x * x, 3.0).gradient == 6.0


def test_names_of_operations_keep_off_those_of_inputs():
    trace = chain_rule_trace(lambda v1, v2: v1 * v2 + v1, 2.0, 3.0)
    names = [name for row in trace.rows for name in row.outputs]
    assert len(set(names)) == len(names) == 4 and trace.gradient == (4.0, 2.0)


def test_the_walk_goes_through_complex_numbers_to_a_real_result():
    f = lambda x: jnp.real(jnp.exp(2j * x) * (1 + x))
    trace = chain_rule_trace(f, 0.7)
    np.testing.assert_allclose(trace.gradient, jax.grad(f)(0.7), rtol=1e-6)
    assert "j" in str(trace)


def test_what_does_not_reach_the_result_has_an_adjoint_of_zero():
    trace = chain_rule_trace(lambda x, y: (jnp.sin(y), x**2)[1], 3.0, 1.0)
    assert trace.gradient == (6.0, 0.0)
    assert {row.operation: float(row.adjoint) for row in trace.rows}["sin"] == 0.0


# bad input

ONE = {"step_sizes": [0.1]}


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x)


BAD = {
    "integer x": (lambda: finite_difference(square, 3, **ONE), "x=3: its dtype is int32, which has no derivative"),
    "complex x": (lambda: finite_difference(square, 3j, **ONE), "x=3j: its dtype is complex64"),
    "x of text": (lambda: finite_difference(square, "3", **ONE), "x='3': not a number or an array. Pass floats"),
    "x not one number": (lambda: finite_difference(jnp.sum, jnp.ones(2), **ONE), "not one number. Pass one float"),
    "NaN x": (lambda: finite_difference(square, math.nan, **ONE), "x=nan: not finite. Pass finite numbers"),
    "zero step": (
        lambda: finite_difference(square, 3.0, [0.1, 0.0]),
        "step_sizes=0.0: must be .* above 0. Pass",
    ),
    "negative step": (
        lambda: finite_difference(square, 3.0, [-0.1]),
        "step_sizes=-0.1: must be .* above 0",
    ),
    "infinite step": (
        lambda: finite_difference(square, 3.0, [math.inf]),
        "step_sizes=inf: must be a finite number",
    ),
    "no steps": (lambda: finite_difference(square, 3.0, []), r"step_sizes=\[\]: not a sequence of step sizes. Pass"),
    "one step": (lambda: finite_difference(square, 3.0, 0.1), "step_sizes=0.1: not a sequence of step sizes. Pass"),
    "step of text": (lambda: finite_difference(square, 3.0, ["a"]), "step_sizes='a': not a number. Pass a finite"),
    "method": (lambda: finite_difference(square, 3.0, [0.1], "centrl"), r"method='centrl'.*Did you mean 'central'\?"),
    "dtype": (lambda: finite_difference(square, 3.0, [0.1], dtype="float16"), "dtype='float16'.*Did you mean 'float"),
    "step out of the domain": (
        lambda: finite_difference(jnp.log, 0.5, [1.0], "central"),
        "step_sizes=1.0: the function",
    ),
    "vector function": (
        lambda: finite_difference(lambda t: t * jnp.ones(2), 3.0, **ONE),
        r"f=\(2,\): it does not return",
    ),
    "integer function": (lambda: finite_difference(jnp.int32, 3.0, **ONE), "f='int32': it does not return a float"),
    "complex function": (lambda: finite_difference(lambda t: t * 1j, 3.0, **ONE), "f='complex128': it does not return"),
    "no function value": (
        lambda: finite_difference(jnp.log, -3.0, **ONE),
        "f=nan: its value is not finite here. Choose",
    ),
    "numpy function": (
        lambda: finite_difference(np.sin, 3.0, **ONE),
        "f='sin': JAX cannot differentiate it.*jax.numpy",
    ),
    "callback": (lambda: finite_difference(callback, 3.0, **ONE), "f='callback': JAX cannot differentiate it"),
    "infinite slope": (lambda: finite_difference(jnp.sqrt, 0.0, **ONE), "f='sqrt': its derivative is not finite here"),
    "partial at integers": (lambda: partial_derivative(lesson, 0, (1, 2.0)), r"at\[0\]=1: its dtype is int32"),
    "partial by unknown name": (
        lambda: partial_derivative(lesson, "cc", (1.0, 2.0)),
        r"argnum='cc'.*Did you mean 'c'\?",
    ),
    "partial out of range": (lambda: partial_derivative(lesson, 2, (1.0, 2.0)), "argnum=2: there are 2 inputs. Pass"),
    "partial of a fraction": (
        lambda: partial_derivative(lesson, 0.5, (1.0, 2.0)),
        "argnum=0.5: neither a position nor",
    ),
    "partial at a number": (lambda: partial_derivative(lesson, 0, 1.0), "at=1.0: neither a tuple nor a mapping"),
    "partial of a vector": (lambda: partial_derivative(lesson, 0, (jnp.ones(2), 1.0)), r"f=\(2,\): it does not return"),
    "sensitivity name": (lambda: sensitivity(lesson, c=1.0, e=2.0), "inputs='e': no such name"),
    "sensitivity integer": (lambda: sensitivity(lesson, c=1.0, d=2), "d=2: its dtype is int32"),
    "integer params": (lambda: check_gradient(jnp.sum, {"a": 3}), r"params\['a'\]=3: its dtype is int32"),
    "no params": (lambda: check_gradient(lambda p: 1.0, {}), "params={}: it has no leaves"),
    "NaN params": (lambda: check_gradient(square, math.nan), "params=nan: not finite"),
    "vector loss": (
        lambda: check_gradient(square, jnp.ones(2)),
        r"loss=\(2,\): it does not return a scalar. Reduce it",
    ),
    "complex loss": (lambda: check_gradient(lambda x: x * 1j, 1.0), "loss='complex64': it does not return a float"),
    "NaN loss": (lambda: check_gradient(jnp.log, -1.0), "loss=nan: its value is not finite here"),
    "constant loss": (lambda: check_gradient(lambda x: jnp.float32(1.0), 1.0), "it does not depend on the params. Use"),
    "callback loss": (lambda: check_gradient(callback, 1.0), "loss='callback': JAX cannot differentiate it"),
    "no loss": (lambda: check_gradient(3, 1.0), "loss=3: not callable"),
    "limit": (lambda: check_gradient(square, 1.0, limit=0), "limit=0: must be at least 1"),
    "directions": (lambda: check_gradient(square, 1.0, directions=1.5), "directions=1.5: not an integer"),
    "trace of integers": (lambda: chain_rule_trace(square, 3), "t=3: its dtype is int32.*Make it float"),
    "trace of a vector": (lambda: chain_rule_trace(square, jnp.ones(2)), r"f=\(2,\): it does not return a scalar"),
    "trace of a constant": (
        lambda: chain_rule_trace(lambda x: jnp.float32(1.0), 1.0),
        "it does not depend on its inputs",
    ),
    "trace of a callback": (lambda: chain_rule_trace(callback, 1.0), "f='callback': JAX cannot differentiate it"),
    "trace with a branch": (lambda: chain_rule_trace(lambda x: x if x > 0 else -x, 1.0), "JAX cannot differentiate it"),
    "trace of NaN": (lambda: chain_rule_trace(jnp.log, -1.0), "f=nan: its value is not finite here"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_its_remedy(name):
    assert_refused(*BAD[name])
