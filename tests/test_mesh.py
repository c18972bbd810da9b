"""One program for all devices of a mesh: they divide the points of a block, or a lane, and change no result.

The devices are eight parts of this CPU, which have to be set up before JAX starts: so in a process of its own.
"""

import os
import subprocess
import sys

import pytest
from shared import quick

from gdkit import Plan
from gdkit.errors import InputTypeError, InputValueError

PROGRAM = """
import sys, tempfile
import jax, jax.numpy as jnp, numpy as np, optax
from gdkit import Plan, Problem, open as open_run, sgd, sweep
from gdkit.monitors import patience

assert len(jax.local_devices()) == 8

def quartic():
    sample = lambda key, t, data: jax.random.normal(jax.random.fold_in(key, t), (3,))
    loss = lambda x, batch: jnp.sum((x - 0.1 * batch) ** 4)
    init = lambda key: jax.random.normal(key, (3,))
    return Problem(loss, init, sample=sample, data=jnp.zeros(3), validation=jnp.zeros(3))

PROBLEM = quartic()

def same(a, b):
    assert set(a.lanes.data_vars) == set(b.lanes.data_vars)
    for name in a.lanes.data_vars:
        np.testing.assert_array_equal(a.lanes[name].values, b.lanes[name].values, err_msg=name)

def run(points, plan, steps=40, **options):
    axes = {"learning_rate": np.geomspace(1e-3, 1.5, points)}  # those of the last devices diverge
    options |= {"seeds": 2, "evaluate_every": 10, "monitors": (patience(checks=20),)}
    return sweep(PROBLEM, sgd, axes, steps=steps, plan=plan, **options)
"""

CLAIMS = {
    "the bits are those of one device": """
mesh, one = run(16, Plan(mesh=True)), Plan(devices=1, width=2, depth=2)  # the lanes of one of the eight
assert (mesh.plan["devices"], mesh.plan["workers"], mesh.plan["width"]) == (8, 1, 16), mesh.plan
assert 0 < (mesh.lanes["end_step"] < 40).sum() < 32
same(mesh, run(16, one))
""",
    "points that are no multiple of the devices": """
one = run(13, Plan(devices=1, width=2, depth=2))
padded = run(13, Plan(mesh=True))  # 16 places for 13 points
assert padded.plan["width"] == 16
same(padded, one)
same(run(13, Plan(mesh=True, width=10)), one)  # of which five devices have two each
""",
    "the running lanes are divided anew": """
import functools
from gdkit.sweeps.execution.block import SegmentSettings
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.programs.groups import build_job
from gdkit.sweeps.programs.layout import ON_CPU
from gdkit.sweeps.request import check_request
from gdkit.sweeps.resume.origin import attach_origin
from gdkit.sweeps.sweep import run_request

def run_in(layout, steps=80):
    jobs = []
    def build(*arguments, **options):
        jobs.append(build_job(*arguments, layout=layout, **options))
        return jobs[-1]
    settings = DEFAULT_SETTINGS._replace(build_job=build, segments=SegmentSettings(compaction_gain=0.0))
    axes = {"learning_rate": np.geomspace(1e-3, 1e3, 64)}  # the upper ones diverge
    options = {"seeds": 2, "evaluate_every": 10, "monitors": (patience(checks=20),)}
    request = check_request(PROBLEM, sgd, axes, steps=steps, plan=Plan(mesh=True, segment=16), **options)
    go = functools.partial(run_request, settings=settings)
    return attach_origin(*go(request, None, None), go), {key[1:] for job in jobs for key in job.narrower or {}}

whole, none = run_in(ON_CPU)
parts, widths = run_in(ON_CPU._replace(compacts=True))
assert none == set()
assert widths and all(points in (8, 16, 32) for _, points in widths), widths
extended = run_in(ON_CPU._replace(compacts=True), 40)[0].extend(80)
for name in whole.lanes.data_vars:
    for other in (parts, extended):
        np.testing.assert_allclose(other.lanes[name], whole.lanes[name], rtol=2e-4, atol=1e-6, err_msg=name)
""",
    "a loss can divide the arrays of each lane": """
from jax.sharding import NamedSharding, PartitionSpec as P
from gdkit.sweeps.programs.groups import build_job, trace_groups
from gdkit.sweeps.request import check_request

over = jax.sharding.Mesh(np.array(jax.devices()), ("model",))
x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)

def network(divides):
    put = lambda x, *spec: jax.lax.with_sharding_constraint(x, NamedSharding(over, P(*spec))) if divides else x
    place = lambda params: params | {"up": put(params["up"], None, "model"), "down": put(params["down"], "model", None)}
    shape = lambda key, *shape: jax.random.normal(key, shape) / 4
    init = lambda key: place({"up": shape(key, 4, 16), "down": shape(key, 16, 2), "shift": jnp.zeros(())})
    def loss(params, batch):
        params = place(params)
        hidden = jnp.tanh(batch[0] @ params["up"] + params["shift"])
        return jnp.mean((hidden @ params["down"] - batch[1]) ** 2)
    return Problem(loss, init, data=(x, x[:, :2] ** 2), validation=(x[:8], x[:8, 1:3]))

axes = {"learning_rate": [0.003, 0.03, 0.1]}
options = {"seeds": 2, "steps": 30, "evaluate_every": 5, "keep_states": "best"}
whole, parts = (sweep(network(divides), optax.adam, axes, **options) for divides in (False, True))
assert [parts.plan[name] for name in ("width", "depth", "workers")] == [1, 1, 1], parts.plan
for name in whole.lanes.data_vars:
    np.testing.assert_allclose(parts.lanes[name], whole.lanes[name], rtol=2e-3, atol=1e-5, err_msg=name)
for lane in range(6):
    ends = (result.state(lane, at="best").params for result in (whole, parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *ends)
request = check_request(network(True), optax.adam, axes, steps=30)
(group,) = trace_groups(request)
carry = build_job(request, group, jax.devices(), group.choose_shape(request)).programs[0].carry
ups = [x for x in jax.tree.leaves(carry.lanes) if x.shape == (1, 1, 4, 16)]  # the params, both moments, the update
assert [x.sharding.shard_shape(x.shape) for x in ups] == 4 * [(1, 1, 4, 2)], ups
""",
    "a stored run is extended": """
with tempfile.TemporaryDirectory() as folder:
    run(16, Plan(mesh=True), steps=25, store=folder + "/run")
    stored = open_run(folder + "/run", problem=PROBLEM, optimizer=sgd, monitors=(patience(checks=20),))
    longer = stored.extend(40)
same(longer, run(16, Plan(mesh=True)))
""",
}


@pytest.mark.parametrize("claim", quick(list(CLAIMS), "the bits are those of one device"))
def test_devices_of_a_mesh_advance_one_block(claim):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + CLAIMS[claim] + "print('done')"],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr[-2000:]


@pytest.mark.parametrize("mesh", [1, "lanes", None])
def test_a_mesh_is_asked_for_by_true(mesh):
    with pytest.raises(InputTypeError, match=r"plan.mesh.*devices=N"):
        Plan(mesh=mesh)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_one_worker_drives_a_mesh(workers):
    with pytest.raises(InputValueError, match=rf"plan.workers={workers}: one worker drives a mesh"):
        Plan(mesh=True, workers=workers)
