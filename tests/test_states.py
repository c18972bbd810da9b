"""States of lanes: the trained params, aux and optimizer state, from memory, a run directory, or a block run again."""

import dataclasses
import functools
import pickle
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import problems
from gdkit.app.cli import main
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request
from tests.shared import quick

STEPS = 12
RATES = [0.01, 0.1, 0.3]


class Layer(NamedTuple):
    weight: Any
    bias: Any


def init(key):
    weight = jax.random.normal(key, (3,))
    params = {"first": Layer(weight, jnp.bfloat16(0.5)), "rest": [jnp.ones(2), (jnp.float32(-1.0), None)]}
    return params, {"key": key, "count": jnp.int32(0)}


def loss(params, batch, aux):
    key, _ = jax.random.split(aux["key"])
    terms = jax.tree.map(lambda x: jnp.sum((x.astype(jnp.float32) - 2.0) ** 2), params)
    return sum(jax.tree.leaves(terms)) + 0.1 * jnp.mean(batch), {"key": key, "count": aux["count"] + 1}


def warmed_up_adamw(learning_rate):
    share = optax.warmup_cosine_decay_schedule(0.0, 1.0, 3, STEPS)
    return optax.adamw(lambda count: learning_rate * share(count), weight_decay=0.1)


PROBLEM = gdkit.Problem(loss, init, data=jnp.ones(3), has_aux=True)
OPTIMIZERS = {"sgd": gdkit.sgd, "adam": optax.adam, "adamw": warmed_up_adamw}
SWEEP = {"axes": {"learning_rate": RATES}, "seeds": 3, "steps": STEPS, "plan": gdkit.Plan(width=2, depth=2)}
LANES = (0, 5, 8)
sweep = functools.partial(gdkit.sweep, PROBLEM, **SWEEP)


@pytest.fixture(scope="module", params=quick(OPTIMIZERS, "sgd", "adam"))
def optimizer(request):
    return OPTIMIZERS[request.param]


@pytest.fixture(scope="module")
def result(optimizer):
    return sweep(optimizer)


@pytest.fixture(scope="module")
def adam():
    return sweep(optax.adam)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states") / "run"
    sweep(optax.adam, store=folder)
    return folder


def numbers(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def assert_same(a, b):
    """The same leaves in the same order, bit for bit and of the same dtypes."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(numbers(x), numbers(y))


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(numbers(x).astype(float), numbers(y).astype(float), rtol=1e-2, atol=1e-3)


def key_of(lane):
    return jax.random.fold_in(jax.random.key(0), lane % 3)


@pytest.mark.parametrize("lane", quick(LANES, 0, 8))
def test_states_are_those_of_descend_and_of_a_plain_loop(result, optimizer, lane):
    rate = RATES[lane // 3]
    run = gdkit.descend(PROBLEM, optimizer, STEPS, hyperparameters={"learning_rate": rate}, key=key_of(lane))
    state = result.state(lane)
    assert_close(state, gdkit.State(run.params, run.aux, run.opt_state))
    params, aux = init(jax.random.split(key_of(lane))[0])
    built = optax.sgd(rate) if optimizer is gdkit.sgd else optimizer(rate)
    opt_state = built.init(params)
    for _ in range(STEPS):
        grad, aux = jax.grad(loss, has_aux=True)(params, jnp.ones(3), aux)
        update, opt_state = built.update(grad, opt_state, params)
        params = optax.apply_updates(params, update)
    assert_close(state[:2], (params, aux))


@pytest.mark.parametrize("lane", LANES)
def test_states_have_the_same_bits_however_they_come(adam, folder, lane):
    state = adam.state(lane)
    opened = gdkit.open(folder, problem=PROBLEM, optimizer=optax.adam)
    extended = sweep(optax.adam, steps=5).extend(STEPS)
    without = dataclasses.replace(opened.origin, load=lambda: opened.origin.sweep._replace(states=None))
    for other in (opened.state(lane), extended.state(lane), without.state(lane)):
        assert_same(other, state)
        assert jax.tree.structure(other) == jax.tree.structure(state)
    assert_same(adam.along("learning_rate").state(lane), state)


def test_best_and_recommendation_have_the_states_of_their_seeds(adam):
    best, found = adam.best(), adam.recommend()
    first = RATES.index(best.hyperparameters["learning_rate"]) * 3
    for seed in range(3):
        assert_same(best.state(seed), adam.state(first + seed))
        assert_same(found.state(seed=seed), adam.state(found.lanes[seed]))
    for wrong in (3, -1, True):
        with pytest.raises(gdkit.GdkitError, match="no such seed"):
            best.state(wrong)
    pickle.loads(pickle.dumps((best, found)))


def test_without_the_problem_states_are_plain_containers(adam, folder):
    state, opened = adam.best().state(1), gdkit.open(folder).best().state(1)
    params, aux = state.params, state.aux
    assert_same(opened.aux, aux)
    first = opened.params["first"]
    assert_same((first["weight"], first["bias"]), tuple(params["first"]))
    assert_same(opened.params["rest"], params["rest"])
    assert jax.tree.structure(opened.params["rest"]) == jax.tree.structure(params["rest"])
    assert list(opened.opt_state[0]) == ["count", "mu", "nu"]
    assert opened.opt_state[0]["mu"]["first"]["bias"].dtype == jnp.bfloat16


@pytest.mark.parametrize("keep_states", ["auto", "last", None])
def test_keep_states_decides_what_a_directory_stores(keep_states, tmp_path):
    kept = gdkit.sweep(problems.parabola(), gdkit.sgd, {"learning_rate": [0.1, 0.2]}, steps=3, store=tmp_path / "run",
                       keep_states=keep_states)  # fmt: skip
    opened = gdkit.open(tmp_path / "run")
    assert any((tmp_path / "run" / "lanes").rglob("*.npz")) == (keep_states is not None)
    if keep_states is not None:
        assert_same(opened.state(1), kept.state(1))
        return
    for one in (kept, opened, gdkit.open(tmp_path / "run", problem=problems.parabola(), optimizer=gdkit.sgd)):
        with pytest.raises(gdkit.GdkitError, match=r'keep_states=None: the sweep keeps no states. .*"auto" or "last"'):
            one.state(1)
    with pytest.raises(gdkit.GdkitError, match="kept none"):
        kept.extend(5)


def test_a_diverged_lane_has_the_state_in_which_it_was_frozen():
    result = gdkit.sweep(problems.parabola(), gdkit.sgd, {"learning_rate": [0.2, 1.5, 3.0]}, steps=100)
    for lane in (1, 2):
        ended, rate = int(result.lanes["end_step"][lane]), float(result.lanes["learning_rate"][lane])
        run = gdkit.descend(problems.parabola(), gdkit.sgd, ended, hyperparameters={"learning_rate": rate})
        np.testing.assert_allclose(result.state(lane).params, run.params, rtol=1e-4)


@pytest.mark.parametrize("keep_states", ["first", 3, "best"])
def test_other_kinds_of_states_are_refused(keep_states):
    with pytest.raises(gdkit.GdkitError, match="keep_states="):
        sweep(optax.adam, keep_states=keep_states)


def test_lanes_without_states_are_refused_with_the_remedy(adam, tmp_path):
    adam.save(tmp_path / "results.nc")
    with pytest.raises(gdkit.GdkitError, match=r"a file of results and a sweep of a function have none.*run directory"):
        gdkit.open(tmp_path / "results.nc").state(0)
    for lane in (9, -1, True, 1.0):
        with pytest.raises(gdkit.GdkitError, match="no such lane"):
            adam.state(lane)


# States at the best evaluation

X = np.asarray(np.random.default_rng(0).normal(size=(30, 4)), np.float32)
Y = np.asarray(X @ np.ones(4) + 2 * np.random.default_rng(1).normal(size=30), np.float32)
HELD_OUT = (X[8:], Y[8:])
NOISY = {"axes": {"learning_rate": [0.003, 0.03, 0.2, 3.0]}, "seeds": 2, "steps": 60, "evaluate_every": 10}


def squares(w, batch):
    return jnp.mean((batch[0] @ w["w"] - batch[1]) ** 2)


def noisy(**options):
    return gdkit.Problem(
        squares,
        {"w": jnp.zeros(4)},
        data=(X[:8], Y[:8]),
        sample=problems.minibatches(4),
        validation=HELD_OUT,
        **options,
    )


LOSS = noisy()
FIT = noisy(evaluate=lambda w, data, aux: {"fit": -squares(w, data)}, maximize=["fit"])
CASES = {"loss": (LOSS, optax.adam), "fit": (FIT, optax.adam), "loss of sgd": (LOSS, gdkit.sgd)}
keep_best = functools.partial(gdkit.sweep, keep_states="best", **NOISY)


@pytest.fixture(scope="module")
def kept():
    return functools.cache(lambda name: keep_best(*CASES[name]))


@pytest.mark.full
@pytest.mark.parametrize("case", quick(CASES, "loss"))
def test_states_at_the_best_evaluation_are_those_of_a_run_of_so_many_steps(case, kept):
    (problem, optimizer), result = CASES[case], kept(case)
    free = gdkit.sweep(problem, optimizer, **NOISY)
    for name in free.lanes.data_vars:
        np.testing.assert_array_equal(free.lanes[name], result.lanes[name], err_msg=str(name))
    losses = result.lanes["validation_loss" if problem is LOSS else "validation_fit"].values * (
        1 - 2 * (problem is FIT)
    )
    assert len(set(result.lanes["best_evaluation"].values.tolist())) > 2
    for lane in range(8):
        step, state = int(result.lanes["best_evaluation"][lane]), result.state(lane, at="best")
        np.testing.assert_allclose(squares(state.params, HELD_OUT), np.nanmin(losses[lane]), rtol=1e-4)
        if lane % 4 == 0:
            assert_same(free.state(lane, at="best"), state)
    rate, key = float(result.lanes["learning_rate"][lane]), jax.random.fold_in(jax.random.key(0), lane % 2)
    run = gdkit.descend(problem, optimizer, step, hyperparameters={"learning_rate": rate}, key=key)
    np.testing.assert_allclose(state.params["w"], run.params["w"], rtol=1e-3, atol=1e-5)
    best = result.best(at="best")
    for seed, lane in enumerate(best.lane_numbers):
        step = int(best.lanes["evaluation_step"][seed])
        np.testing.assert_allclose(
            abs(squares(best.state(seed).params, HELD_OUT)), abs(best.lanes[best.by][seed]), rtol=1e-4
        )
        assert_same(best.state(seed), result.states(lane, step))
        assert_same(best.state(seed), free.best(at="best").state(seed))
    assert_same(result.recommend(at="best").state(), result.states(result.recommend(at="best").lanes[0], step))


@pytest.mark.full
def test_best_states_are_kept_in_directories_and_by_extended_sweeps(kept, tmp_path):
    wanted, problem, known = kept("loss"), LOSS, {"problem": LOSS, "optimizer": optax.adam}
    keep_best(problem, optax.adam, store=tmp_path / "run", plan=gdkit.Plan(width=2, depth=1, segment=7))
    opened, plain = gdkit.open(tmp_path / "run", **known), gdkit.open(tmp_path / "run")
    extended = [keep_best(problem, optax.adam, **{**NOISY, "steps": n}).extend(60) for n in (20, 25)]
    for lane in (0, 3, 6):
        for other in (opened, plain, *extended):
            assert_same(other.state(lane, at="best"), wanted.state(lane, at="best"))
            assert_same(other.state(lane), wanted.state(lane))
    other = 10 if wanted.lanes["best_evaluation"][6] != 10 else 20
    with pytest.raises(
        gdkit.GdkitError, match=f"does not store its state at step {other}. Pass problem= and optimizer="
    ):
        plain.states(6, other)
    assert_same(opened.states(6, other), wanted.states(6, other))
    with pytest.raises(gdkit.GdkitError, match="keep_states"):
        gdkit.sweep(problem, optax.adam, **NOISY, store=tmp_path / "run", plan=gdkit.Plan(width=2, depth=1, segment=7))


def test_best_states_need_evaluations_of_validation_data():
    settings = {"data": (X, Y), "sample": problems.minibatches(4)}
    trained = gdkit.Problem(squares, {"w": jnp.zeros(4)}, metrics={"size": lambda w, data: jnp.sum(w["w"])}, **settings)
    for problem, options, expected in (
        (
            LOSS,
            {"evaluate_every": None},
            "keep_states='best': nothing is evaluated along the run. Pass evaluate_every=",
        ),
        (trained, {}, "keep_states='best': there are no validation data to judge states by"),
        (noisy(evaluate=lambda w, d, aux: {"nan": jnp.nan}), {}, "no evaluation of validation_nan is finite"),
    ):
        with pytest.raises(gdkit.GdkitError, match=expected):
            keep_best(problem, optax.adam, **{**NOISY, "steps": 20, **options}).state(0, at="best")
    with pytest.raises(gdkit.GdkitError, match="at='best': final_loss was not evaluated along the run"):
        gdkit.sweep(problems.parabola(), gdkit.sgd, {"learning_rate": [0.1]}, steps=3).state(0, at="best")


# Halved, extended and sharded sweeps


@pytest.mark.full
@pytest.mark.parametrize("optimizer", quick([gdkit.sgd, optax.adam, optax.adagrad], optax.adam))
def test_a_halved_sweep_has_the_state_of_each_lane_at_the_end_of_its_last_round(optimizer):
    rates = np.geomspace(1e-3, 10, 9)
    halved = gdkit.successive_halving(problems.parabola(), optimizer, {"learning_rate": rates}, steps=90)
    ends = halved.lanes["end_step"].values
    assert {10, 30, 90} <= set(ends.tolist())
    for end in (10, 30, 90):
        lane = int(np.flatnonzero(ends == end)[0])
        run = gdkit.descend(problems.parabola(), optimizer, end, hyperparameters={"learning_rate": rates[lane]})
        np.testing.assert_allclose(halved.state(lane).params, run.params, rtol=1e-4)


def test_states_of_an_extended_axis_are_found_in_the_directories_of_its_parts(tmp_path):
    run = functools.partial(gdkit.sweep, problems.parabola(), gdkit.sgd, {"learning_rate": [1e-3, 1e-2]}, seeds=1,
                            steps=6, until_bracketed=True)  # fmt: skip
    wanted = run()
    first, again = run(store=tmp_path / "run"), run(store=tmp_path / "run")
    known = {"problem": problems.parabola(), "optimizer": gdkit.sgd}
    opened, plain = gdkit.open(tmp_path / "run", **known), gdkit.open(tmp_path / "run")
    for lane, rate in enumerate(wanted.axes["learning_rate"]):
        for other in (first, again, opened, plain):
            assert_same(other.state(lane), wanted.state(lane))
        if wanted.lanes["end_step"][lane] == 6:
            np.testing.assert_allclose(plain.state(lane).params, 3 - 3 * (1 - 2 * rate) ** 6, rtol=1e-4)
    assert_same(plain.recommend().state(), wanted.recommend().state())


def test_states_of_shards_are_found_in_their_common_directory(tmp_path):
    axes = {"learning_rate": [0.1, 0.2, 0.3, 0.4]}
    request = check_request(problems.parabola(), gdkit.sgd, axes, steps=5, plan=gdkit.Plan(width=1))
    wanted = gdkit.sweep(problems.parabola(), gdkit.sgd, axes, steps=5, plan=gdkit.Plan(width=1))
    for shard in range(3):
        run_request(request, directory=RunDirectory(tmp_path / "run", shard=(shard, 3)))
    opened = gdkit.open(tmp_path / "run")
    for lane in range(4):
        assert_same(opened.state(lane), wanted.state(lane))


# Starting from a state, params or a file


@pytest.mark.parametrize("optimizer", quick([gdkit.sgd, optax.adam, optax.nadam], gdkit.sgd, optax.adam))
def test_descend_continues_from_a_state_as_if_it_had_not_stopped(optimizer):
    go = functools.partial(gdkit.descend, problems.parabola(), optimizer, hyperparameters={"learning_rate": 0.1})
    whole, first = go(12), go(5)
    assert_same(go(7, start=first.state).state, whole.state)
    if optimizer is gdkit.sgd:
        assert_same(go(7, start=first.params).params, whole.params)


@pytest.mark.filterwarnings("ignore::gdkit.GdkitWarning")  # all seeds are the same
@pytest.mark.parametrize("kind", quick(["state", "params", "plain containers"], "state"))
def test_all_lanes_of_a_sweep_start_where_they_are_told(adam, folder, kind):
    state = {"state": adam.state(4), "params": adam.state(4).params, "plain containers": gdkit.open(folder).state(4)}[
        kind
    ]
    found = sweep(optax.adam, start=state)
    for lane in (0, 4, 8):
        rate = {"learning_rate": RATES[lane // 3]}
        given = adam.state(4) if kind != "params" else state
        run = gdkit.descend(PROBLEM, optax.adam, STEPS, hyperparameters=rate, key=key_of(lane), start=given)
        assert_close(found.state(lane), run.state)


@pytest.mark.full
def test_injected_hyperparameters_are_those_of_each_lane():
    inject = lambda learning_rate: optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)
    axes = {"learning_rate": [0.1, 0.2, 0.4]}
    first = gdkit.sweep(problems.parabola(), inject, axes, steps=3)
    second = gdkit.sweep(problems.parabola(), inject, axes, steps=3, start=first.state(0))
    for lane, rate in enumerate(axes["learning_rate"]):
        error = -3.0 * (1 - 2 * 0.1) ** 3 * (1 - 2 * rate) ** 3
        np.testing.assert_allclose(second.state(lane).params, 3.0 + error, rtol=1e-4)
        np.testing.assert_allclose(second.state(lane).opt_state.hyperparams["learning_rate"], rate)


@pytest.mark.filterwarnings("ignore::gdkit.GdkitWarning")
def test_the_start_belongs_to_the_identity_of_a_run(tmp_path):
    run = functools.partial(gdkit.sweep, problems.parabola(), gdkit.sgd, {"learning_rate": [0.1, 0.2]})
    run(steps=3, store=tmp_path / "run", start=jnp.float32(5.0))
    with pytest.raises(gdkit.GdkitError, match="start"):
        run(steps=3, store=tmp_path / "run", start=jnp.float32(6.0))
    known = {"problem": problems.parabola(), "optimizer": gdkit.sgd}
    with pytest.raises(gdkit.GdkitError, match="the sweep started from something else"):
        gdkit.open(tmp_path / "run", **known)
    extended = gdkit.open(tmp_path / "run", **known, start=jnp.float32(5.0)).extend(6)
    assert_same(extended.state(1), run(steps=6, start=jnp.float32(5.0)).state(1))
    np.testing.assert_allclose(extended.state(1).params, 3.0 + 2.0 * 0.6**6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::gdkit.GdkitWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"rest": p["rest"]}, r"start.params=\['rest.*\]: the run has a leaf first/weight, which it lacks"),
        (lambda p: p | {"more": jnp.ones(1)}, r"start.params\[more\]=.*the run has no such leaf"),
        (lambda p: p | {"first": Layer(jnp.ones(4), p["first"].bias)}, r"\[first/weight\]='shape \(4,\)': .*\(3,\)"),
        (lambda p: p | {"first": Layer(np.ones(3), p["first"].bias)}, r"\[first/weight\]='dtype float64'.*float32"),
        (lambda p: p | {"first": Layer("w", p["first"].bias)}, r"\[first/weight\]='w': it is not an array"),
    ],
)
def test_another_structure_shape_or_dtype_is_refused_by_the_path_of_its_leaf(adam, change, message):
    start = change(adam.state(0).params)
    with pytest.raises(gdkit.GdkitError, match=message):
        sweep(optax.adam, start=start)
    with pytest.raises(gdkit.GdkitError, match=message):
        gdkit.descend(PROBLEM, optax.adam, 3, hyperparameters={"learning_rate": 0.1}, start=start)


# Files


@pytest.mark.filterwarnings("ignore::gdkit.GdkitWarning")
@pytest.mark.parametrize("lane", quick(LANES, LANES[0]))
def test_an_exported_file_has_the_params_and_starts_a_sweep(adam, lane, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path, state = tmp_path / "params.safetensors", adam.state(lane)
    adam.export(lane, path)
    params = safetensors.load_file(path)
    assert sorted(params) == ["aux/count", "aux/key", "first/bias", "first/weight", "rest/0", "rest/1/0"]
    assert_same(params["first/bias"], state.params["first"].bias)
    assert_same(params["rest/0"], state.params["rest"][0])
    one = {**SWEEP, "axes": {"learning_rate": [0.1]}, "seeds": 1}
    begun = gdkit.sweep(PROBLEM, optax.adam, **one, start=path)
    same = gdkit.sweep(PROBLEM, optax.adam, **one, start=state._replace(opt_state=None))
    assert_same(begun.state(0), same.state(0))


@pytest.mark.filterwarnings("ignore::gdkit.GdkitWarning")
@pytest.mark.parametrize("value", [1.0, 5.0, -2.0])
def test_a_sweep_starts_from_an_npz_file_of_params(value, tmp_path):
    np.savez(tmp_path / "params.npz", params=np.float32(value))
    run = functools.partial(gdkit.sweep, problems.parabola(), gdkit.sgd, {"learning_rate": [0.1, 0.2]}, steps=3)
    assert_same(run(start=tmp_path / "params.npz").state(1), run(start=jnp.float32(value)).state(1))


def test_an_orbax_checkpoint_has_the_whole_state(adam, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
    adam.export(5, tmp_path / "checkpoint")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        found = checkpointer.restore(tmp_path / "checkpoint")
    assert found["metadata"]["learning_rate"] == 0.1 and found["metadata"]["seed"] == 2
    state = adam.state(5)
    for mine, other in ((state.params["first"].bias, found["params"]["first"]["bias"]),
                        (state.aux["count"], found["aux"]["count"]),
                        (state.opt_state[0].mu["rest"][0], found["opt_state"][0]["mu"]["rest"][0])):  # fmt: skip
        assert_same(mine, other)
    with pytest.raises(gdkit.GdkitError, match="it exists"):
        adam.export(5, tmp_path / "checkpoint")
    one = {**SWEEP, "axes": {"learning_rate": [0.1]}, "seeds": 1}
    begun, same = (gdkit.sweep(PROBLEM, optax.adam, **one, start=at) for at in (tmp_path / "checkpoint", state))
    assert_same(begun.state(0), same.state(0))
    shutil.rmtree(tmp_path / "checkpoint" / "params")
    with pytest.raises(gdkit.GdkitError, match="not a whole Orbax checkpoint"):
        gdkit.sweep(PROBLEM, optax.adam, **one, start=tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npz", None, "there is no such file"),
        ("none", None, "there is no such folder"),
        ("params.pickle", b"1", "neither a .safetensors nor an .npz file"),
        ("cut.npz", b"PK\x03\x04", "not a whole .npz file"),
        ("cut.safetensors", b"\x10", "not a whole .safetensors file"),
    ],
)
def test_files_that_cannot_be_read_are_refused(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(gdkit.GdkitError, match=message):
        gdkit.sweep(problems.parabola(), gdkit.sgd, {"learning_rate": [0.1]}, steps=3, start=tmp_path / name)
    with pytest.raises(gdkit.GdkitError, match=r"start=.*: a path, not params\. Read it first"):
        gdkit.descend(problems.parabola(), gdkit.sgd(0.1), 3, start=str(tmp_path / name))


def test_the_command_line_exports_the_recommended_the_best_or_a_numbered_run(tmp_path, capsys):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    axes = {"learning_rate": [0.01, 0.1, 0.2, 1.5]}
    result = gdkit.sweep(problems.parabola(), gdkit.sgd, axes, steps=20, store=tmp_path / "run")
    wanted = {(): result.recommend().state(), ("--best",): result.best().state(), ("--lane", "0"): result.state(0)}
    for words, state in wanted.items():
        file = tmp_path / "params.safetensors"
        assert main(["export", str(tmp_path / "run"), "-o", str(file), *words]) == 0
        assert_same(safetensors.load_file(file)["params"], state.params)
    for words in (["--lane", "9"], ["--best", "--seed", "3"], ["--lane", "0", "--best"]):
        assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "x.safetensors"), *words]) == 2
    assert "no such seed" in capsys.readouterr().err


ROWS = np.arange(12.0, dtype=np.float32).reshape(6, 2) / 12
SAMPLED = {
    "one row": (ROWS, lambda key, t, data: data[t % 6]),
    "random rows": (
        {"x": ROWS},
        lambda key, t, data: data["x"][jax.random.randint(jax.random.fold_in(key, t), (3,), 0, 6)],
    ),
    "windows": ((ROWS, None), lambda key, t, data: data[0][(t + jnp.arange(2)) % 6]),
}


@pytest.mark.full
@pytest.mark.parametrize("case", quick(SAMPLED, "random rows"))
def test_states_are_read_from_a_directory_where_sample_indexes_numpy_data(case, tmp_path):
    data, sample = SAMPLED[case]
    error = lambda w, batch: jnp.mean((w - batch.reshape(-1, 2).mean(axis=0)) ** 2)
    problem = gdkit.Problem(error, jnp.ones(2), data=data, sample=sample)
    gdkit.sweep(problem, gdkit.sgd, {"learning_rate": [0.1]}, steps=3, store=tmp_path / "run", start=jnp.zeros(2))
    opened = gdkit.open(tmp_path / "run", problem=problem, optimizer=gdkit.sgd, start=jnp.zeros(2))
    key = jax.random.fold_in(jax.random.key(0), 0)
    run = gdkit.descend(problem, gdkit.sgd(0.1), 3, key=key, start=jnp.zeros(2))
    np.testing.assert_allclose(opened.state(0).params, run.params, rtol=1e-6)
