"""What the tests of several modules share."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdkit import GdkitError, Learner
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.request import check_request
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request


def dense_hessian(problem, params, batch=None):
    """The Hessian of the loss, written down whole, (n, n) float64; on all the problem's data if no batch is given."""
    vector, unravel = ravel_pytree(params)
    rest = [data for data in (problem.data if batch is None else batch,) if data is not None]
    hessian = jax.hessian(lambda vector, *rest: problem.loss(unravel(vector), *rest))
    return np.asarray(jax.jit(hessian)(vector, *rest), np.float64)


def walk():
    """A walk whose state holds a typed key."""

    def init(key, hyperparameters):
        return {"x": jnp.ones(()), "key": jax.random.fold_in(key, 1)}

    def step(state, hyperparameters, t, key, data):
        rate, (key, own) = hyperparameters["learning_rate"], jax.random.split(state["key"])
        x = state["x"] * (1 - 2 * rate) + 0.01 * jax.random.normal(own)
        return {"x": x, "key": key}, {"loss": x**2}

    return Learner(init, step)


def assert_refused(call, match):
    """That `call` raises an error of ours which says `match`, and which is one of Python's own kinds too."""
    with pytest.raises(GdkitError, match=match) as caught:
        call()
    assert isinstance(caught.value, ValueError | TypeError)


def run_sweep(
    problem, optimizer, axes, *, settings, store=None, executor=None, progress=None, stop=None, shard=(0, 1), **options
):
    """`gdkit.sweep` with other ExecutionSettings, and with an event that interrupts it."""
    request = check_request(problem, optimizer, axes, **options)
    directory = None if store is None else RunDirectory(store, shard=shard)
    result, resumable = run_request(request, progress, executor, directory=directory, stop=stop, settings=settings)
    return attach_origin(result, resumable, functools.partial(run_request, settings=settings))


def quick(members, *chosen):
    """Members of a parametrization; those that are not chosen run in `make test-full` alone."""
    values = lambda member: member if isinstance(member, tuple) else (member,)
    return [m if m in chosen else pytest.param(*values(m), marks=pytest.mark.full) for m in members]


class RecordingRunBlock:
    """A `run_block` that records the (thread, first point, lanes) of every block before it runs.

    `fail` is called first with the job and the block, and may raise.
    """

    def __init__(self, fail=None):
        self.fail, self.blocks = fail, []

    def __call__(self, job, block, **options):
        if self.fail:
            self.fail(job, block)
        self.blocks.append((threading.get_ident(), int(block.points[0]), job.lanes_per_block))
        return DEFAULT_SETTINGS.run_block(job, block, **options)


def fail_for_memory(*_):
    """What a device raises that has no memory left."""
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")


def assert_same_bits(a, b):
    """That two results have the same variables, dtypes and bits."""
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name in a.lanes.variables:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=str(name))
        assert a.lanes[name].dtype == b.lanes[name].dtype
