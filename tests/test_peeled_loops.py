"""Loops of short steps whose first and last step are separate: the same bits wherever a run is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_same_bits

from gdkit import Plan, Problem, descend, monitors, problems, sgd, sweep
from gdkit.monitors import EndKind
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.request import check_request, select_devices

OPTIMIZERS = {"sgd": sgd, "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9), "adam": optax.adam}
RATES = {"learning_rate": np.geomspace(1e-3, 3.0, 13)}
RATE = {"learning_rate": [0.1]}
ENDS = {"statistics": "ends", "plan": Plan(width=4)}


def validated():
    rows = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    loss = lambda x, batch: jnp.mean((x[None] - batch) ** 2)
    return Problem(loss, jnp.ones(2), data=rows, sample=problems.minibatches(3), validation=rows[:5])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("segment", [1, 2, 7, 64, 100])
def test_segments_change_no_bit(optimizer, segment):
    whole = sweep(problems.parabola(), optimizer, RATES, steps=150, **ENDS)
    cut = sweep(problems.parabola(), optimizer, RATES, steps=150, **ENDS | {"plan": Plan(width=4, segment=segment)})
    assert_same_bits(whole, cut)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 2, 64, 65, 129])
def test_an_extended_run_has_the_bits_of_a_longer_one(optimizer, steps):
    shorter = sweep(problems.rosenbrock(), optimizer, RATES, steps=steps, **ENDS)
    assert_same_bits(shorter.extend(150), sweep(problems.rosenbrock(), optimizer, RATES, steps=150, **ENDS))
    assert shorter.replay(3).same


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_evaluations_change_no_bit_of_the_training(optimizer):
    plain = sweep(validated(), optimizer, RATES, steps=130, **ENDS)
    evaluated = sweep(validated(), optimizer, RATES, steps=130, evaluate_every=3, **ENDS)
    for name in ("initial_loss", "final_loss", "min_loss", "end_step", "end_kind", "curve_loss"):
        np.testing.assert_array_equal(plain.lanes[name], evaluated.lanes[name])


@pytest.mark.parametrize("statistics", ["all", "ends"])
@pytest.mark.parametrize(
    ("steps", "target", "end_step"),
    [(1, None, 1), (20, None, 20), (20, 9.0, 0), (20, 1.0, 5), (5, 1.0, 5), (4, 1.0, 4)],
)
def test_runs_end_at_their_last_step_or_their_target(statistics, steps, target, end_step):
    """The loss of (x - 3)² from 0 is 9 · 0.64^t at a learning rate of 0.1."""
    found = sweep(problems.parabola(), sgd, RATE, steps=steps, target=target, statistics=statistics).lanes
    is_target = target is not None and 9 * 0.64**end_step <= target
    assert (found["end_step"][0], found["end_kind"][0]) == (end_step, EndKind.TARGET if is_target else EndKind.STEPS)
    np.testing.assert_allclose(found["final_loss"][0], 9 * 0.64**end_step, rtol=1e-4)


def test_a_stopping_rule_ends_a_run_where_it_ends_a_single_one():
    rules = {"monitors": [monitors.patience(checks=1, every=4, min_delta=1e-2)]}
    found = sweep(problems.parabola(), sgd, RATE, steps=40, statistics="ends", **rules).lanes
    single = descend(problems.parabola(), sgd, 40, hyperparameters={"learning_rate": 0.1}, **rules).statistics
    assert single["end_kind"] == found["end_kind"][0] == EndKind.STOPPED
    assert single["end_step"] == found["end_step"][0] < 40


@pytest.mark.parametrize("segment", [None, 1, 4, 7])
def test_a_skipped_start_leaves_the_initial_loss_of_a_run_that_ends_there(segment):
    """Rows of NaN at the first four steps, of which the optimizer skips two."""
    rows = np.ones((40, 1), np.float32)
    rows[:4] = np.nan
    loss, sample = lambda x, batch: jnp.sum((x - batch) ** 2), lambda key, t, data: data[t % 40]
    problem = Problem(loss, jnp.zeros(1), data=rows, sample=sample)
    skipping = lambda learning_rate: optax.apply_if_finite(optax.sgd(learning_rate), 2)
    found = sweep(problem, skipping, RATE, steps=40, statistics="ends", plan=Plan(segment=segment)).lanes
    assert found["end_kind"][0] == EndKind.NONFINITE and np.isnan(found["initial_loss"][0])


def test_only_short_steps_of_ends_have_loops_of_their_own():
    peels = lambda problem, statistics="ends", **options: (
        build(problem, sgd, statistics=statistics, **options).programs[0].layout.peels
    )
    assert peels(problems.parabola()) and not peels(problems.parabola(), "all")
    assert peels(problems.parabola(), monitors=[monitors.patience(checks=2)])
    assert not peels(problems.parabola(), monitors=[monitors.time_to(1.0)._replace(freeze=False)])
    assert not peels(problems.mlp("iris", widths=(3,)))
    rows = jnp.ones((1000, 2))
    assert not peels(Problem(lambda x, data: jnp.mean((data @ x[:, None]) ** 2), jnp.ones(2), data=rows))
    assert not peels(Problem(lambda x: jnp.sum(x**2) * rows[3, 1], jnp.ones(2)))
    looped = lambda x: jnp.sum(jax.lax.fori_loop(0, 100, lambda i, y: y * 0.99, x) ** 2)
    assert not peels(Problem(looped, jnp.ones(2)))


def test_loops_of_small_operations_are_kernels_and_those_of_products_are_not():
    """In a kernel of its own a loop calls no library for its products, which then take several times as long."""
    is_kernel = lambda *job: "xla_cpu_small_call" in build(*job).programs[0].advance.as_text()
    rates = np.geomspace(1e-3, 0.3, 131_072)
    assert is_kernel(problems.parabola(), sgd, rates) and is_kernel(problems.parabola(), optax.adam, rates)
    assert not is_kernel(problems.logistic_regression("breast_cancer"), sgd, rates[:64])


def build(problem, optimizer, rates=RATES["learning_rate"], **options):
    request = check_request(problem, optimizer, {"learning_rate": jnp.asarray(rates)}, steps=9, **options)
    (group,) = trace_groups(request)
    return build_job(request, group, select_devices(request.plan), group.choose_shape(request))
