"""What every optimizer of optax is promised, as a product: optimizer × problem × property.

A pair of optimizer and problem compiles one program, the step of a block of lanes that differ in the learning rate
(and the block's start); every property is read off it. Which pairs cannot keep a promise, and why, stands in
`REFUSED`, `SURVIVES_ANY_RATE` and `optimizers.UNSUPPORTED`, and tests hold those lists to the truth.

`make test` runs a few pairs of each kind; the others are marked `full`.
"""

import dataclasses
import functools
import inspect
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gdkit
from gdkit import binding, descent, optimizers, problems
from gdkit.errors import InputTypeError, InputValueError
from gdkit.monitors import EndKind, Limits

STEPS = 6
RATES = (0.01, 0.03, 0.1)  # one a lane
KEY = jax.random.key(0)

# What else an optimizer must be given, and what it calls its learning rate. At its full rank galore takes whole steps
# along directions in which the gradient is nothing but rounding, so no two programs agree.
FIXED = {"noisy_sgd": {"key": 0}, "galore": {"rank": 1}}
RATE_NAMES = {"polyak_sgd": "max_learning_rate"}

# Pairs that optax itself cannot run, with the error and its reason.
NO_AXIS = "sm3 keeps one accumulator per axis, and a 0-d leaf has none"
REFUSED = {("sm3", "scalar"): (IndexError, NO_AXIS), ("sm3", "pytree"): (IndexError, NO_AXIS)}

# Optimizers that a learning rate of 1e30 does not drive out of bounds, and so no lane of theirs diverges by it.
SURVIVES_ANY_RATE = {
    "cocob": "its learning rate scales the gradients, and it divides them by their largest",
    "fromage": "it divides by √(1 + η²)",
    "lbfgs": "its line search shrinks the step until the loss falls",
    "momo": "its learning rate is only the largest that its step may take",
    "momo_adam": "its learning rate is only the largest that its step may take",
    "polyak_sgd": "its learning rate is only the largest that Polyak's step may take",
}
GIVES_UP = {("lbfgs", "mlp"): "1e30 is farther than the line search comes back in its 20 steps"}
WITHHOLDS = {  # a counter chooses one of their terms, so that an update of 0 at an infinite loss counts as skipped
    ("adan", "vector"),
    ("schedule_free_adamw", "scalar"),
    ("schedule_free_sgd", "scalar"),
}
UNDECIDED = {("lbfgs", "pytree"): "whether the line search comes back in time depends on how XLA is told to round"}

# Looser than TOLERANCE, of the params after the last step.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
LOOSE = {
    "radam": ({"rtol": 1e-2, "atol": 1e-6}, "its rectification is a difference of nearly equal numbers"),
}


# The four problems: scalar, 2-D, pytree, MLP. All are given their start, so that no random numbers are compiled.


def scalar():
    # no parabola: on it the conditions of the line search of lbfgs hold with equality, and a rounding decides
    return problems.Problem(lambda x: jnp.sqrt(1 + jnp.square(x - 3)), np.float32(1))


def vector():
    return problems.quadratic([1.0, 4.0], start=[1.0, -2.0])


def pytree():
    def loss(params):
        (matrix, vector), number = params["linear"], params["number"]
        return 0.1 * (jnp.sum(jnp.square(matrix @ vector - 1)) + jnp.square(number + jnp.sum(vector)))

    matrix = np.array([[1.0, -0.5, 0.25], [0.5, 0.75, -1.0]], np.float32)
    return problems.Problem(loss, {"linear": (matrix, np.array([0.5, -1.0, 2.0], np.float32)), "number": np.float32(1)})


def mlp():
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    made = problems.mlp((x, np.arange(16) % 2), widths=(4,), activation="tanh", split=(0.5, 0.5))
    return dataclasses.replace(made, init=jax.tree.map(np.asarray, made.init(KEY)))


PROBLEMS = {make.__name__: make for make in (scalar, vector, pytree, mlp)}


class Case(NamedTuple):
    """A problem, and its loss with the data put in."""

    problem: problems.Problem
    loss: Any  # params -> scalar
    value_and_grad: Any  # jitted


@functools.cache
def case(name):
    problem = PROBLEMS[name]()
    loss = problem.loss if problem.data is None else lambda params: problem.loss(params, problem.data)
    return Case(problem, loss, jax.jit(jax.value_and_grad(loss)))


# The pair: gdkit's lanes, compiled once, and the same by hand


class Pair:
    """An optimizer on a problem."""

    def __init__(self, name, problem):
        chex.clear_trace_counter()  # it counts by the source of a function
        self.id, self.name, self.case = (name, problem), name, case(problem)
        self.factory = functools.partial(optimizers.by_name(name), **FIXED.get(name, {}))
        self.rate_name = RATE_NAMES.get(name, "learning_rate")
        self.start = _jit_once(self._start)
        self.advance = _jit_once(self._advance)
        self.update_by_hand = jax.jit(self._update_by_hand)

    def _start(self, points, arrays):
        one = lambda point: descent.start_lane(self.case.problem, self.factory, (), point, KEY, arrays)
        return jax.vmap(one)(_stack(points))

    def _advance(self, lanes, points, t, arrays):
        step = descent.observed_step(self.case.problem, self.factory, ())
        limits = Limits(*(jnp.float32(limit) for limit in Limits()))
        one = lambda lane, point: step(lane, descent.StepInputs(point, t, KEY, arrays.data), limits, t == STEPS)[0]
        return jax.vmap(one)(lanes, _stack(points))

    def lanes(self, rates):
        """The lanes before the first step and after each, for as many learning rates as the program is wide."""
        points = tuple(binding.bind(self.case.problem, self.factory, {self.rate_name: rate})[2] for rate in rates)
        arrays = binding.get_arrays(self.case.problem)
        lanes = [self.start(points, arrays)]
        for t in range(STEPS + 1):
            lanes.append(self.advance(lanes[-1], points, jnp.int32(t), arrays))
        return lanes

    def end(self, rates):
        """The lanes after the last step."""
        return self.lanes(rates)[-1]

    def by_hand(self, rate, steps=STEPS):
        """Params and state of optax after a plain loop."""
        params = jax.tree.map(jnp.asarray, self.case.problem.init)
        state = self.factory(**{self.rate_name: rate}).init(params)
        for _ in range(steps):
            value, grads = self.case.value_and_grad(params)
            updates, state = self.update_by_hand(rate, grads, state, params, value)
            params = optax.apply_updates(params, updates)
        return params, state

    def _update_by_hand(self, rate, grads, state, params, value):
        optimizer = self.factory(**{self.rate_name: rate})
        extra = {"value": value, "grad": grads, "value_fn": self.case.loss}
        takes_extra = isinstance(optimizer, optax.GradientTransformationExtraArgs)
        return optimizer.update(grads, state, params, **(extra if takes_extra else {}))


def _jit_once(f):
    """`f` compiled; a second trace of it raises."""
    return jax.jit(chex.assert_max_traces(f, n=1))


def _stack(points):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)


def lane(lanes, index):
    on_host = lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)
    return jax.tree.map(lambda leaf: on_host(leaf)[index], lanes)


# Pairs that `make test` runs. On the MLP these are of optimizers whose states differ most: factored or not, of one
# moment or several, with norms or signs.
MIXED = ("adafactor", "adam", "lion", "muon", "novograd", "rprop")
EVERY_TIME = {"scalar": ("sgd",), "vector": ("adam",), "pytree": ("sgd", "lbfgs"), "mlp": MIXED}


def _marks(name, problem):
    marks = [] if name in EVERY_TIME[problem] else [pytest.mark.full]
    if name == "optimistic_adam":  # it works and says so at every call
        marks.append(pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning"))
    return marks


NAMES = sorted(set(optimizers.names()) - set(optimizers.UNSUPPORTED))
PRODUCT = [
    pytest.param((name, problem), id=f"{name}-{problem}", marks=_marks(name, problem))
    for name in NAMES
    for problem in PROBLEMS
    if (name, problem) not in REFUSED
]


@pytest.fixture(scope="module", params=PRODUCT)
def pair(request):
    return Pair(*request.param)


# The promises


def test_gdkit_equals_a_plain_loop_with_optax(pair):
    tolerance, _ = LOOSE.get(pair.name, (TOLERANCE, None))
    end = pair.end(RATES)
    for index, rate in enumerate(RATES):
        params, _ = pair.by_hand(rate)
        chex.assert_trees_all_close(lane(end, index).state.params, params, **tolerance)


def test_lanes_side_by_side_equal_each_alone_in_its_block(pair):
    end = pair.end(RATES)
    for index, rate in enumerate(RATES):
        alone = pair.end([rate] * len(RATES))
        for place in range(len(RATES)):
            chex.assert_trees_all_equal(lane(alone, place), lane(end, index))


KINDS = {
    "a Python float": float,
    "a NumPy scalar": np.float64,
    "a NumPy array": lambda rate: np.asarray(rate, np.float32),
    "a JAX array": jnp.float32,
    "a weakly typed JAX array": lambda rate: jnp.asarray(rate),
}


def test_one_trace_serves_every_learning_rate_of_every_kind(pair):
    expected = pair.end(RATES)
    for kind in KINDS.values():
        chex.assert_trees_all_equal(pair.end([kind(rate) for rate in RATES]), expected)
    for low in (1e-4, 1e-3, 1e-2):
        pair.end([low, 2 * low, 3 * low])  # a second trace raises


def test_dtypes_and_structure_are_kept(pair):
    start, *later = pair.lanes(RATES)
    for lanes in later:
        chex.assert_trees_all_equal_shapes_and_dtypes(lanes, start)
    params, state = pair.by_hand(RATES[0], steps=1)
    chex.assert_trees_all_equal_shapes_and_dtypes(lane(start, 0).state.params, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(lane(start, 0).state.opt_state, state)


@pytest.mark.parametrize("rate", [1e30, np.nan])
def test_a_diverged_lane_leaves_its_neighbours_bit_for_bit_as_they_were(pair, rate):
    calm, wild = pair.end(RATES), pair.end([RATES[0], rate, RATES[2]])
    for index in (0, 2):
        chex.assert_trees_all_equal(lane(wild, index), lane(calm, index))
    end_kind = int(wild.record.end_kind[1])
    if np.isfinite(rate) and pair.id in UNDECIDED:
        return
    if np.isfinite(rate) and (pair.id in WITHHOLDS or (pair.name in SURVIVES_ANY_RATE and pair.id not in GIVES_UP)):
        assert end_kind == EndKind.STEPS
    else:
        assert end_kind in (EndKind.NONFINITE, EndKind.EXCEEDED)
        assert wild.record.end_step[1] < STEPS


def test_a_state_that_changes_its_dtype_at_the_first_step_is_cast_once():
    init = lambda params: (jnp.zeros((), jnp.bfloat16), 0.5)
    update = lambda grads, state, params=None: (-0.1 * grads, (jnp.float32(0.25) + state[0], state[1] * jnp.float32(2)))
    optimizer, problem = optax.GradientTransformation(init, update), scalar()
    run = gdkit.descend(problem, optimizer, 2)
    start = descent.initial_state(problem, optimizer, {}, KEY, binding.get_arrays(problem))
    chex.assert_trees_all_equal_shapes_and_dtypes(start.opt_state, run.opt_state)
    assert [leaf.weak_type for leaf in start.opt_state] == [False, False]
    assert run.opt_state == (0.5, 2.0)


# The lists are true


def test_every_factory_of_optax_with_a_learning_rate_is_in_the_product():
    wrappers = {"schedule_free"}  # of another optimizer
    found = set()
    for module in (optax, optax.contrib):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and not name.startswith(("_", "scale_by_")):  # those are parts of optimizers
                found |= {name} & {name for p in inspect.signature(value).parameters if p.endswith("learning_rate")}
    assert found - wrappers - set(optimizers.UNSUPPORTED) <= set(NAMES)


@pytest.mark.parametrize("name, problem", REFUSED)
def test_a_refused_pair_fails_in_optax_too_and_for_the_reason_given(name, problem):
    error, _ = REFUSED[name, problem]
    params = case(problem).problem.init
    assert any(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(params))
    optimizer = optimizers.by_name(name)(0.1)
    with pytest.raises(error):
        optimizer.update(params, optimizer.init(params), params)
    with pytest.raises(error):
        Pair(name, problem).lanes(RATES)


@pytest.mark.parametrize("name", optimizers.UNSUPPORTED)
def test_an_unsupported_optimizer_is_refused_by_name_with_the_reason(name):
    with pytest.raises(InputTypeError, match=optimizers.UNSUPPORTED[name]):
        optimizers.by_name(name)


def test_sophia_does_want_the_loss_as_obj_fn():
    with pytest.raises(ValueError, match="obj_fn must be provided"):
        gdkit.descend(vector(), optax.contrib.sophia, 2, hyperparameters={"learning_rate": 0.1})


@pytest.mark.filterwarnings('ignore:"seed" is deprecated:DeprecationWarning')  # it passes seed on itself
def test_dpsgd_does_want_one_gradient_an_example():
    factory = functools.partial(optax.contrib.dpsgd, l2_norm_clip=1.0, noise_multiplier=0.0, seed=0)
    params = jnp.array([1.0, -2.0])
    optimizer = factory(0.1)
    gradients = jnp.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])  # one a row
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.1 / 3, -0.1 / 3], rtol=1e-6)  # the mean of what is left after clipping to 1
    with pytest.raises(InputValueError, match=r"optimizer=.*the shape \(\), and its params have \(2,\).*per-example"):
        gdkit.descend(vector(), factory, 2, hyperparameters={"learning_rate": 0.1})


CHANGES = {"(1,)": lambda x: x[:1], "(1, 2)": lambda x: x[None], "None": lambda x: None}


@pytest.mark.parametrize("shape", CHANGES)
def test_updates_of_other_shapes_than_the_params_are_refused(shape):
    optimizer = optax.stateless(lambda grads, params: jax.tree.map(CHANGES[shape], grads))
    with pytest.raises(InputValueError, match=re.escape(f"an update has the shape {shape}, and its params have (2,)")):
        gdkit.descend(vector(), optimizer, 2)


@pytest.mark.full
def test_galore_at_full_rank_does_take_whole_steps_along_rounding():
    column, row = (np.random.default_rng(0).normal(size=n).astype(np.float32) for n in (4, 3))
    gradient = jnp.asarray(np.outer(column, row))  # of rank 1
    optimizer = optax.contrib.galore(1.0)
    update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    along = np.outer(column, column) / (column @ column)
    assert np.linalg.norm(update - along @ update) > 0.01 * np.linalg.norm(update)


# The same promises of the public functions that stand on the lanes


def test_descend_traces_once_for_learning_rates_of_every_kind():
    traces = []

    def loss(x):
        traces.append(x)
        return jnp.sum(jnp.square(x))

    problem = gdkit.Problem(loss, np.ones(2, np.float32))
    run = lambda rate: gdkit.descend(problem, optax.adam, 5, hyperparameters={"learning_rate": rate})
    first = run(0.1)
    traced = len(traces)
    for kind in KINDS.values():
        chex.assert_trees_all_equal(run(kind(0.1)).loss, first.loss)
    run(0.2), run(3.0)
    assert len(traces) == traced + len(KINDS) + 2  # one trace per call, which checks the loss


@pytest.mark.full
def test_minibatches_of_descend_equal_a_plain_loop_over_the_same_samples():
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    init, apply = np.zeros(3, np.float32), lambda w, x: x @ w
    problem = problems.supervised(init, apply, "squared_error", (x, x[:, 0] - x[:, 2]), batch_size=4, split=(0.5, 0.5))
    run = gdkit.descend(problem, optax.adam, STEPS, hyperparameters={"learning_rate": 0.1}, key=7)

    _, sample_key = jax.random.split(jax.random.key(7))
    sample, value_and_grad = jax.jit(problem.sample), jax.jit(jax.value_and_grad(problem.loss))
    optimizer, params, losses = optax.adam(0.1), jnp.asarray(init), []
    state = optimizer.init(params)
    for t in range(STEPS):
        value, grads = value_and_grad(params, sample(sample_key, t, problem.data))
        losses.append(value)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(run.loss[:-1], losses, rtol=1e-5)
    np.testing.assert_allclose(run.params, params, rtol=1e-5)
