"""Strides: loops of static length inside segments, which accelerators take and which change no result."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import run_sweep

from gdkit import Plan, Problem, problems, sgd
from gdkit.monitors import patience
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Shape
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.programs.layout import ON_ACCELERATOR, ON_CPU, choose_layout
from gdkit.sweeps.request import check_request

PLAIN = ON_CPU._replace(stride=8)  # without what changes the order of sums
IN_PAIRS = ON_ACCELERATOR._replace(unroll=2)
RATES = {"learning_rate": [0.01, 0.1, 1.2]}  # the last diverges within a stride


def run_in(layout, problem, optimizer, axes, **options):
    settings = DEFAULT_SETTINGS._replace(build_job=functools.partial(build_job, layout=layout))
    return run_sweep(problem, optimizer, axes, settings=settings, **options)


def assert_same(a, b, **tolerance):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name, values in a.lanes.data_vars.items():
        np.testing.assert_allclose(b.lanes[name], values, **({"rtol": 0} | tolerance), err_msg=str(name))


@pytest.fixture(scope="module")
def iris():
    return problems.logistic_regression("iris", batch_size=16)


NETWORK = {"steps": 43, "seeds": 2, "monitors": (patience(checks=8),)}


def test_strides_change_no_bit_and_the_layout_of_accelerators_no_result(iris):
    plan = Plan(width=3, depth=2, segment=13)  # no segment, and no run, is a whole number of strides
    run = lambda layout: run_in(layout, iris, optax.adam, RATES, plan=plan, **NETWORK)
    single = run(ON_CPU)
    assert_same(single, run(PLAIN))
    # sums in another order, and batches that are sampled ahead
    assert_same(single, run(ON_ACCELERATOR), rtol=1e-4, atol=1e-6)
    assert_same(single, run(IN_PAIRS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_params_may_be_one_array_of_any_shape(shape):
    problem = Problem(lambda x: jnp.mean((x - 1) ** 2), jnp.zeros(shape))
    run = lambda layout: run_in(layout, problem, sgd, RATES, steps=20, plan=Plan(width=3, unroll=1))
    assert_same(run(ON_CPU), run(ON_ACCELERATOR), rtol=1e-5, atol=1e-6)


@pytest.mark.full
def test_strides_of_a_swept_problem_can_be_extended():
    axes = RATES | {"problem.center": [-1.0, 3.0]}
    run = functools.partial(run_in, problem=problems.parabola, optimizer=sgd, axes=axes, plan=Plan(width=6, unroll=1))
    single = run(ON_CPU, steps=61)
    assert_same(single, run(PLAIN, steps=61))
    assert_same(single, run(PLAIN, steps=37).extend(61))


@pytest.mark.full
def test_batches_that_depend_on_a_swept_value_are_not_sampled_ahead():
    def noisy(scale):
        sample = lambda key, t, data: scale * jax.random.normal(jax.random.fold_in(key, t), (4,))
        return Problem(lambda x, batch: jnp.mean((x - batch) ** 2), jnp.ones(()), data=jnp.zeros(1), sample=sample)

    axes = RATES | {"problem.scale": [0.1, 1.0]}
    run = lambda layout: run_in(layout, noisy, sgd, axes, steps=20, curve_points=0, plan=Plan(width=6, unroll=1))
    assert_same(run(ON_CPU), run(ON_ACCELERATOR), rtol=1e-5, atol=1e-6)


def test_the_inner_loop_has_a_known_length(iris):
    request = check_request(iris, optax.adam, RATES, **NETWORK)
    (group,) = trace_groups(request)

    def lengths(layout):
        job = build_job(request, group, jax.devices()[:1], Shape(3, 2), layout=layout)
        return re.findall(r'known_trip_count":\{"n":"(\d+)"', job.programs[0].advance.as_text())

    assert "8" in lengths(ON_ACCELERATOR)
    assert "8" not in lengths(ON_CPU)


def test_no_program_on_a_cpu_calls_ynnpack(iris):
    """Of jaxlib 0.10.2 some of its sums and transposed products end the process by a segmentation fault."""
    request = check_request(iris, optax.adam, RATES, **NETWORK)
    (group,) = trace_groups(request)
    (program,) = build_job(request, group, jax.devices()[:1], Shape(3, 2)).programs
    for part in (program.start, program.advance, program.finish):
        assert "ynn" not in part.as_text()
    assert "dot" in program.advance.as_text()


def test_accelerators_take_strides_and_a_cpu_single_steps():
    assert choose_layout("cpu", Shape(8, 1, unroll=4, chunk=2)) == ON_CPU._replace(chunk=2)
    assert choose_layout("cpu", Shape(8, 1), peels=True) == ON_CPU._replace(peels=True)
    assert choose_layout("cpu", Shape(8, 1, unroll=0), peels=True) == ON_CPU._replace(unroll=0)
    assert choose_layout("gpu", Shape(8, 1)) == choose_layout("tpu", Shape(8, 1)) == ON_ACCELERATOR
    assert choose_layout("gpu", Shape(8, 1, 0)) == ON_CPU._replace(unroll=0)  # a call per step has no loop
