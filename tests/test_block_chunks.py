"""Chunks: a call advances the points of a block one chunk after the other, as blocks of that width would be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_same_bits, quick, run_sweep, walk

import gdkit
from gdkit import Plan, Problem, problems, sgd, sweep
from gdkit.errors import InputValueError
from gdkit.monitors import patience
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS
from gdkit.sweeps.plan.shapes import Shape, choose_shape, compute_block_limits
from gdkit.sweeps.programs.groups import LossFacts
from gdkit.sweeps.programs.timing import DEFAULT_PLANNER, halve

RATES = {"learning_rate": np.geomspace(0.01, 3.0, 22)}  # the upper ones diverge; 22 is no multiple of a chunk
WHOLE, CHUNKED = Plan(width=4, depth=2), Plan(width=12, chunk=4, depth=2)


def noisy():
    """Noisy gradients of x²."""
    sample = lambda key, t, data: jax.random.normal(jax.random.fold_in(key, t), (2,))
    loss = lambda x, batch: jnp.sum((x - 0.1 * batch) ** 2)
    init = lambda key: jax.random.normal(key, (2,))
    return Problem(loss, init, data=jnp.zeros(2), sample=sample, validation=jnp.zeros(2))


def batches(seed, t):
    return np.random.default_rng([seed, t]).normal(size=2).astype(np.float32)


CASES = {
    "scalar": (problems.parabola(), sgd, {"seeds": 1}),
    "batches": (noisy(), optax.adam, {}),
    "ends, no curve": (noisy(), sgd, {"statistics": "ends", "curve_points": 0}),
    "no loop": (noisy(), sgd, {"unroll": 0}),
    "segments": (noisy(), sgd, {"segment": 7}),
    "evaluations": (
        noisy(),
        sgd,
        {"evaluate_every": 10, "keep_states": "best", "monitors": (patience("validation_loss", checks=2),)},
    ),
    "target": (noisy(), sgd, {"target": 0.1}),
    "learner": (walk(), None, {}),
    "host batches": (
        Problem(lambda x, batch: jnp.sum((x - batch) ** 2), jnp.ones(2), batches=batches),
        sgd,
        {"depth": 1},
    ),
}


def run(case, plan, **own):
    problem, optimizer, options = CASES[case]
    options = options | own
    fields = {name: options.pop(name) for name in ("unroll", "segment", "depth") if name in options}
    plan = Plan(**{"width": plan.width, "chunk": plan.chunk, "depth": plan.depth} | fields)
    return sweep(problem, optimizer, RATES, **{"steps": 30, "seeds": 3, "plan": plan} | options)


@pytest.mark.parametrize("case", CASES)
def test_runs_in_chunks_have_the_bits_of_those_in_blocks_of_that_width(case):
    whole, chunked = run(case, WHOLE), run(case, CHUNKED)
    assert chunked.plan["chunk"] == 4 and whole.plan["chunk"] == 0
    assert set(whole.lanes.variables) == set(chunked.lanes.variables)
    for name, expected in whole.lanes.variables.items():  # statistics that are computed at the end, to rounding
        rtol = 0 if name in ("end_step", "end_kind", "final_loss", "min_loss", "curve_loss") else 1e-6
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(chunked.lanes[name].values, expected.values, rtol=rtol, err_msg=str(name))
        else:
            np.testing.assert_array_equal(chunked.lanes[name].values, expected.values, err_msg=str(name))
    for lane in (0, 13, 21):
        jax.tree.map(np.testing.assert_array_equal, *(tree_of(result.state(lane)) for result in (whole, chunked)))


def tree_of(state):
    is_key = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, state)


@pytest.mark.parametrize("case", quick(["scalar", "evaluations", "learner"], "evaluations"))
def test_a_run_directory_of_chunks_is_opened_extended_and_replayed(case, tmp_path):
    problem, optimizer, options = CASES[case]
    longer = run(case, CHUNKED, steps=40)
    run(case, CHUNKED, store=tmp_path / "run")
    own = {"monitors": options["monitors"]} if "monitors" in options else {}
    opened = gdkit.open(tmp_path / "run", problem=problem, optimizer=optimizer, **own)
    assert opened.plan["chunk"] == 4
    assert opened.replay(3).same
    assert_same_bits(longer, opened.extend(40))
    refined = opened.refine("learning_rate")
    assert refined.plan["chunk"] == 4 and refined.lanes.sizes["lane"] > opened.lanes.sizes["lane"]


def test_many_small_lanes_are_chunked_and_others_not():
    small, large = (compute_block_limits(np.zeros(n), "cpu") for n in (1, 1000))
    chunked = choose_shape(131_072, 1, small, Plan(), 2)
    assert chunked == Shape(32 * 416, 1, 1, 416)
    assert choose_shape(131_072, 1, small, Plan(), 128).chunk == 0  # each worker has one block
    assert choose_shape(2000, 1, small, Plan(), 2).chunk == 0
    assert choose_shape(131_072, 1, large, Plan(), 2).chunk == 0  # a block takes long enough
    assert choose_shape(131_072, 1, compute_block_limits(np.zeros(1), "gpu"), Plan(), 2).chunk == 0


@pytest.mark.parametrize("points", [131, 10_000, 20_000, 65_537, 1_000_000])
@pytest.mark.parametrize("seeds", [1, 5, 1000])
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_chunks_pad_little_and_fill_all_workers(points, workers, seeds):
    shape = choose_shape(points, seeds, compute_block_limits(np.zeros(1), "cpu"), Plan(), workers)
    blocks = -(-points // shape.width) * -(-seeds // shape.depth)
    assert shape.width % (shape.chunk or 1) == 0
    assert shape.lanes_at_once <= 1.1 * 480
    assert not shape.chunk or shape.lanes_at_once >= 200
    rounds = -(-blocks // workers)
    assert rounds * workers * shape.lanes <= 1.15 * points * seeds + 1600 * workers


def test_a_plan_gives_width_and_chunk():
    limits = compute_block_limits(np.zeros(1), "cpu")
    shape = lambda points, **fields: choose_shape(points, 1, limits, Plan(**fields), 2)
    assert shape(100, width=20, chunk=5) == Shape(20, 1, 1, 5)
    assert shape(12, width=20, chunk=5) == Shape(15, 1, 1, 5)  # no more chunks than are needed
    assert shape(3, width=20, chunk=5) == Shape(3, 1, 1, 0)
    assert shape(1000, chunk=10).chunk == 10
    assert halve(Shape(20, 1, 1, 5)) == Shape(12, 1, 1, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 10, "chunk": 4}, r"plan\.width=10: .*multiple of chunk=4"),
        ({"chunk": 0}, r"plan\.chunk=0"),
        ({"chunk": 4, "mesh": True}, r"plan\.chunk=4: .*mesh"),
    ],
)
def test_plans_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(InputValueError, match=message):
        Plan(**fields)


def test_programs_without_a_loop_have_no_chunks():
    """XLA has its fast convolutions only outside of loops, and chunks are a loop."""
    facts = LossFacts(
        np.zeros(9),
        runs_step_by_step=True,
        is_impure=False,
        logs=(),
        has_gradient=True,
        is_stochastic=True,
        is_small=True,
    )
    assert facts.limits.max_lanes == facts.limits.chunks == 1
    assert choose_shape(100, 1, facts.limits, Plan(), 2, unroll=0) == Shape(1, 1, 0)


def test_the_planner_keeps_a_given_chunk():
    settings = DEFAULT_PLANNER._replace(share=1e9, time_lane_step=lambda job, workers: 1 / job.shape.width)
    hooks = DEFAULT_SETTINGS._replace(planner=settings)
    result = run_sweep(problems.parabola(), sgd, {"learning_rate": np.linspace(0.01, 0.9, 1000)}, settings=hooks,
                       steps=10, plan=Plan(chunk=4))  # fmt: skip
    assert (result.plan["chunk"], result.plan["chosen"]) == (4, "given")
