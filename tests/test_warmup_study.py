"""Ramps and curvatures are those of their definitions; the study of warm-up runs small, and its claims can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from shared import dense_hessian

from experiments import warmup as study
from gdkit.descent import split_key
from gdkit.errors import InputTypeError, InputValueError

GRID = {"from": 0.01, "to": 10.0, "count": 3}
TINY = {
    "widths": [3],
    "share": 0.02,
    "warmup": 6,
    "steps": 10,
    "every": 2,
    "rates": {"sgd": GRID, "adam": GRID, "gi_adam": GRID},
    "warmups": [1, 4],
    "seeds": 2,
    "key": 0,
}


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


@pytest.fixture(scope="module")
def starts():
    """The sharp start of each seed: params, gradient and dense Hessian."""
    problem = study.network((3,), 0.02, "relu", 1.0)
    keys = [split_key(jax.random.fold_in(jax.random.key(0), seed))[0] for seed in range(2)]
    params = [problem.init(key) for key in keys]
    gradient = jax.jit(lambda p: ravel_pytree(jax.grad(problem.loss)(p, problem.data))[0])
    return [(np.asarray(gradient(p)), dense_hessian(problem, p)) for p in params]


@pytest.mark.parametrize(
    ("warmup", "start", "rates"),
    [(1, 0.0, [0.4] * 5), (4, 0.0, [0.1, 0.2, 0.3, 0.4, 0.4]), (4, 0.1, [0.2, 0.3, 0.4, 0.4, 0.4])],
)
def test_a_ramp_grows_by_a_share_of_the_peak_per_step_from_its_start(warmup, start, rates):
    optimizer = study.ramp("sgd")(learning_rate=0.4, warmup=warmup, start=start)
    state, found = optimizer.init(jnp.float32(0)), []
    for _ in range(5):
        update, state = optimizer.update(jnp.float32(1.0), state)
        found.append(-float(update))
    np.testing.assert_allclose(found, rates, rtol=1e-6)


@pytest.mark.full
def test_the_sharpness_along_a_warmup_is_over_the_edge_at_its_step(result, starts):
    path, peak = result.paths["sharp"], study.DEFAULTS["peak"]["sharp"]
    np.testing.assert_allclose(path.share, [1 / 6, 3 / 6, 5 / 6, 1, 1, 1])
    for seed, (_, hessian) in enumerate(starts):
        sharpness = np.linalg.eigvalsh(hessian)[-1]
        np.testing.assert_allclose(path.ratio[seed, 0], sharpness * peak / 6 / 2, rtol=1e-3)
        np.testing.assert_allclose(path.curvature[seed, 0], sharpness * peak / 2, rtol=1e-3)


@pytest.mark.full
@pytest.mark.parametrize(("name", "moment"), [("adam", 1.0), ("gi_adam", 0.001)])  # of ν̂, the share that g² has in it
def test_preconditioned_sharpnesses_are_those_of_dense_hessians_over_38_by_the_rate(result, starts, name, moment):
    for seed, (g, hessian) in enumerate(starts):
        root = 1 / np.sqrt(0.1 * (np.abs(g) / moment**0.5 + 1e-8))
        largest = np.linalg.eigvalsh(root[:, None] * hessian * root)[-1]
        expected = largest * study.DEFAULTS["peak"]["adam"] / 6 / 38
        np.testing.assert_allclose(result.paths[name].ratio[seed, 0], expected, rtol=0.02)


@pytest.mark.full
def test_the_largest_rate_is_the_largest_that_trains(result):
    trained = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], bool)[:, None]  # (rates, warmups, seeds)
    found = result._replace(rates={"sgd": np.array([1.0, 2.0, 4.0])}, trained={"sgd": trained}).largest("sgd")
    np.testing.assert_array_equal(found, [[2.0, 4.0, 1.0]])
    assert len(str(result).splitlines()) == 15
    assert len(study.plot(result)["warmup"].axes) == 3


def made(result, **changes):
    """A result in which all claims hold, apart from `changes`."""
    share = np.minimum(1, np.arange(1, 22) / 16)
    calm = lambda high: study.WarmupRuns(np.arange(21), share, np.minimum(high * share, 1.0)[None])
    ramped = np.array([[1.0], [2.0]])
    rates = np.array([1.0, 2.0, 4.0, 8.0])
    up_to = lambda peaks: rates[:, None, None] <= np.array(peaks)[:, None]
    parts = {
        "paths": {"sharp": calm(9.0), "flat": calm(2.0), "adam": calm(9.0), "gi_adam": calm(9.0 * 0.001**0.5)},
        "natural": {"sharp": np.array([0.5]), "flat": np.array([2.0])},
        "rates": dict.fromkeys(study.OPTIMIZERS, rates),
        "trained": {"sgd": up_to([1.0, 4.0]), "adam": up_to([1.0, 2.0]), "gi_adam": up_to([2.0, 2.0])},
        "catapult": np.array([1.2]),
        "first_rise": np.array([1.2 * 2**0.5]),
        "trained_later": up_to([4.0])[:, 0],
    }
    return result._replace(**parts | {name: change(parts[name], ramped) for name, change in changes.items()})


@pytest.mark.full
@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, 0),
        ({"natural": lambda old, _: {name: 1 / one for name, one in old.items()}}, 2),
        ({"trained": lambda old, _: old | {"adam": old["adam"][:, ::-1]}}, 3),  # warm-up costs, GI-Adam gains nothing
        ({"trained": lambda old, _: old | {"gi_adam": old["adam"]}}, 1),
        ({"paths": lambda old, _: {n: p._replace(ratio=2 * p.ratio) for n, p in old.items()}}, 7),  # above the edge
        ({"catapult": lambda old, _: old * 0.5}, 2),
        ({"trained_later": lambda old, _: old & False}, 1),
    ],
)
def test_claims_fail_where_the_mechanism_does(result, changes, failing):
    assert sum(not claim.holds for claim in study.claims(made(result, **changes))) == failing


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"warmup_steps": 3}, InputValueError, "Did you mean 'warmups'"),
        ({"starts": {"sharp": {"activation": "rlu"}}}, InputValueError, "activation='rlu': no such name"),
        ({"seeds": 1.5}, InputTypeError, "settings.seeds=1.5: not an integer"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(TINY | settings)
