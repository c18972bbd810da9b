"""One program for all devices of a mesh: they divide the points of a block, and change no result.

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
