"""Programs are found by what they compute, and stored on disk on request."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from shared import quick

import gdkit
from gdkit.problems import Problem

COMPILED = Counter()
EVENT = "/jax/core/compile/backend_compile_duration"
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: COMPILED.update([event]))


def compiled(work):
    before = COMPILED[EVENT]
    result = work()
    return result, COMPILED[EVENT] - before


def sweep(problem, optimizer):
    return gdkit.sweep(problem, optimizer, {"learning_rate": [0.1, 0.2, 0.4]}, steps=7, curve_points=0)


def bowl(curvature=1.0, shift=None):
    shift = jnp.zeros(3) if shift is None else shift
    return Problem(lambda w: curvature * jnp.sum((w - shift) ** 2), jnp.array([1.0, 2.0, 3.0]))


FACTORIES = (
    lambda: lambda learning_rate: optax.sgd(learning_rate),
    lambda: lambda learning_rate: optax.sgd(learning_rate, momentum=0.5),
    lambda: lambda learning_rate: optax.chain(optax.clip(0.5), optax.sgd(learning_rate)),
)


@pytest.mark.parametrize("make", quick(FACTORIES, FACTORIES[2]))
def test_a_factory_and_a_loss_defined_anew_share_the_programs(make):
    first, programs = compiled(lambda: sweep(bowl(), make()))
    again, anew = compiled(lambda: sweep(bowl(), make()))
    assert programs >= 3 and anew <= programs - 3  # start, advance and finish
    for name in first.lanes.data_vars:
        np.testing.assert_array_equal(first.lanes[name], again.lanes[name])


@pytest.mark.parametrize("change", [{"curvature": 1.5}, {"shift": jnp.array([1.0, 0.0, 0.0])}, {"shift": jnp.ones(3)}])
def test_programs_that_differ_by_a_constant_are_not_shared(change):
    sweep(bowl(), gdkit.sgd)
    found = sweep(bowl(**change), gdkit.sgd).lanes["final_loss"].values
    curvature, shift = change.get("curvature", 1.0), np.asarray(change.get("shift", np.zeros(3)))
    start = np.array([1.0, 2.0, 3.0])
    shrunk = [(1 - 2 * curvature * rate) ** 14 * curvature * np.sum((start - shift) ** 2) for rate in (0.1, 0.2, 0.4)]
    np.testing.assert_allclose(found.ravel(), shrunk, rtol=1e-4, atol=1e-9)


def test_callbacks_of_equal_shape_are_not_shared():
    def problem(factor):
        host = lambda w: np.asarray(factor * w, np.float32)

        @jax.custom_jvp
        def scaled(w):
            return jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float32), w, vmap_method="expand_dims")

        scaled.defjvp(lambda w, dw: (scaled(*w), dw[0]))
        return Problem(lambda w: scaled(w) ** 2, jnp.float32(1.0))

    first, second = (sweep(problem(factor), gdkit.sgd).lanes["initial_loss"].values for factor in (1.0, 3.0))
    assert np.all(first == 1.0) and np.all(second == 9.0)


def test_compiled_programs_are_stored_on_disk_on_request(tmp_path):
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    try:
        assert gdkit.cache_programs(tmp_path / "programs") == tmp_path / "programs"
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        sweep(bowl(curvature=0.123), gdkit.sgd)
        assert any(file.name.startswith("jit_advance") for file in (tmp_path / "programs").glob("*-cache"))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
