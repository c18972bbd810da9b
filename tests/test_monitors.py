"""Streaming statistics equal those that NumPy computes from the whole history."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import quick

import gdkit
from gdkit import Problem, descend, monitors, optimizers, problems, sgd, sweep
from gdkit.trees import dot, norm
from gdkit.types import Monitor


def windows_by_hand(steps):
    """Starts of the dyadic windows among steps 0 .. steps."""
    starts = [0, 1, 2, 3]
    for octave in range(2, 31):
        starts += [2**octave + j * 2 ** (octave - 2) for j in range(4)]
    return [s for s in starts if s <= steps]


@pytest.mark.parametrize("steps", quick([3, 17, 64, 150], 3, 17, 150))
def test_late_and_earlier_means_are_those_of_the_last_dyadic_windows(steps):
    run = descend(problems.rosenbrock(), sgd, steps, hyperparameters={"learning_rate": 1e-3})
    losses, starts = np.asarray(run.loss), windows_by_hand(steps)
    late, earlier = losses[starts[-2] :], losses[starts[-4] : starts[-2]]
    s = run.statistics
    np.testing.assert_allclose(s["late_mean"], late.mean(), rtol=1e-5)
    np.testing.assert_allclose(s["late_spread"], late.std(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(s["earlier_mean"], earlier.mean(), rtol=1e-5)


def test_extremes_and_increases_equal_those_of_the_history(key):
    run = descend(problems.parabola(), sgd, 60, hyperparameters={"learning_rate": 1.01})
    losses, s = np.asarray(run.loss), run.statistics
    assert s["min_loss"] == losses.min() and s["min_step"] == losses.argmin()
    assert s["max_loss"] == losses.max() and s["max_step"] == losses.argmax()
    assert s["initial_loss"] == losses[0] and s["final_loss"] == losses[-1]
    np.testing.assert_allclose(s["increases"], np.mean(np.diff(losses) > 0), rtol=1e-6)


def test_norms_and_predicted_decrease_are_those_of_the_late_steps():
    steps = 100
    run = descend(problems.rosenbrock(), sgd, steps, hyperparameters={"learning_rate": 1e-3}, record_params=True)
    late = slice(windows_by_hand(steps - 1)[-2], steps)
    grads = np.asarray(run.grad_history)
    moves = -np.float32(1e-3) * grads[:-1]
    s = run.statistics
    np.testing.assert_allclose(s["grad_norm"], np.linalg.norm(grads[late], axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(s["update_norm"], np.linalg.norm(moves[late], axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(s["late_predicted"], -np.sum(grads[late] * moves[late]), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 64, 65, 1023, 4081, 4096, 65_537])
def test_dot_and_norm_equal_those_of_numpy_in_double_precision(size, key):
    a, b = (jax.random.normal(k, (size,)) for k in jax.random.split(key))
    trees = [{"w": x[: size // 2], "b": x[size // 2 :]} for x in (a, b)]
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    np.testing.assert_allclose(dot(*trees), a @ b, rtol=0, atol=3e-7 * np.linalg.norm(a) * np.linalg.norm(b))
    np.testing.assert_allclose(norm(trees[0]), np.linalg.norm(a), rtol=3e-7)
    np.testing.assert_allclose(norm(trees[0], jnp.sum), np.linalg.norm(a), rtol=3e-7)


@pytest.mark.parametrize("shape", [(784, 25), (77, 53), (3, 3, 8, 17), (3, 3, 3, 3), (2, 300), (4, 0), ()])
def test_sums_along_axes_equal_those_of_numpy(shape, key):
    a, b = (jax.random.normal(k, shape) for k in jax.random.split(key))
    size = np.linalg.norm(a) * np.linalg.norm(b)
    np.testing.assert_allclose(dot(a, b), np.vdot(*np.asarray([a, b], np.float64)), rtol=0, atol=3e-7 * size)


def test_dot_of_half_precision_is_summed_in_float32(key):
    a = jax.random.normal(key, (64, 65), jnp.bfloat16)
    square = dot(a, a)
    assert square.dtype == jnp.float32
    np.testing.assert_allclose(square, np.sum(np.asarray(a, np.float64) ** 2), rtol=1e-6)


def test_dot_conjugates_its_first_argument(key):
    a, b = (jax.random.normal(k, (3, 50), jnp.complex64) for k in jax.random.split(key))
    np.testing.assert_allclose(dot(a, b), np.vdot(a, b), rtol=1e-5)
    np.testing.assert_allclose(norm(a), np.linalg.norm(a), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_norm_of_entries_that_are_not_finite_is_not_finite(bad):
    assert not np.isfinite(norm({"w": jnp.ones(300).at[77].set(bad)}))


def test_predicted_decrease_tends_to_the_actual_one_as_the_learning_rate_falls():
    ratios = []
    for rate in (0.01, 0.003, 0.001):
        run = descend(problems.parabola(), sgd, 200, hyperparameters={"learning_rate": rate})
        losses = np.asarray(run.loss, np.float64)
        late = slice(windows_by_hand(199)[-2], None)
        ratios.append(float(run.statistics["late_predicted"]) / (losses[late][0] - losses[-1]))
    assert abs(ratios[2] - 1) < 0.01 and abs(ratios[2] - 1) < abs(ratios[1] - 1)


def test_statistics_of_plain_descent_from_its_gradients_equal_those_from_its_updates():
    problem, axes = problems.mlp("iris", widths=(), batch_size=16), {"learning_rate": [0, *np.geomspace(1e-3, 30, 9)]}
    lanes_of_both = [sweep(problem, factory, axes, steps=60).lanes for factory in (sgd, optax.sgd)]
    np.testing.assert_array_equal(*(lanes["final_loss"] for lanes in lanes_of_both))
    for name in ("reversal", "reversal_step", "grad_norm", "update_norm", "peak_update_norm", "late_predicted"):
        np.testing.assert_allclose(*(lanes[name] for lanes in lanes_of_both), rtol=2e-5, atol=1e-6, err_msg=name)


def test_only_updates_of_plain_descent_are_known_multiples_of_gradients():
    plain = sgd(0.5)
    assert isinstance(plain, optimizers.Plain) and plain.multiple == -0.5
    others = sgd(0.5, momentum=0.9), sgd(0.5, momentum=0.0), sgd(lambda count: 0.5), optax.adam(0.5), optax.sgd(0.5)
    for other in (*others, gdkit.ascent(plain)):
        assert not isinstance(other, optimizers.Plain)


@pytest.mark.parametrize(("rate", "sign"), [(0.3, 1.0), (0.7, -1.0)])
def test_reversal_is_the_sign_of_one_minus_rate_times_curvature(rate, sign):
    run = descend(problems.parabola(), sgd, 100, hyperparameters={"learning_rate": rate})
    np.testing.assert_allclose(run.statistics["reversal"], sign, rtol=1e-6)


def test_time_to_is_the_first_step_at_or_below_the_target():
    watched = [monitors.time_to(1.0)]
    run = descend(problems.parabola(), sgd, 30, hyperparameters={"learning_rate": 0.2}, monitors=watched)
    assert run.statistics["time_to_1"] == int(np.argmax(np.asarray(run.loss) <= 1.0))


def test_curve_holds_the_losses_at_its_steps_and_does_not_depend_on_the_length():
    short, long = (
        descend(problems.parabola(), sgd, n, hyperparameters={"learning_rate": 0.01}, monitors=[monitors.curve(20)])
        for n in (40, 90)
    )
    at = monitors.curve_steps(20)
    for run, steps in ((short, 40), (long, 90)):
        reached = at[at <= steps]
        np.testing.assert_array_equal(run.statistics["curve_loss"][: len(reached)], np.asarray(run.loss)[reached])
    both = at <= 40
    np.testing.assert_array_equal(short.statistics["curve_loss"][both], long.statistics["curve_loss"][both])


def test_curve_steps_increase_and_keep_their_promise_of_density():
    for points in (1, 10, 200, 1000):
        steps = monitors.curve_steps(points)
        assert (np.diff(steps) > 0).all()
        assert 0.5 * points <= np.sum(steps < 10_000) <= 2.5 * points + 10


def test_a_custom_monitor_sees_every_step_and_the_last_loss():
    def update(m, before, after, info, context):
        moved = jnp.abs(after.params - before.params)
        return {"calls": m["calls"] + 1, "path": m["path"] + moved, "last": info.loss}

    blank = {"calls": jnp.int32(0), "path": jnp.float32(0), "last": jnp.float32(0)}
    own = Monitor(lambda state: blank, update, lambda m: {f"own_{k}": v for k, v in m.items()})
    run = descend(problems.parabola(), sgd, 25, hyperparameters={"learning_rate": 0.1}, monitors=[own])
    assert run.statistics["own_calls"] == 26
    np.testing.assert_allclose(run.statistics["own_path"], run.params, rtol=1e-6)
    assert run.statistics["own_last"] == run.loss[-1]


def test_a_run_that_ends_freezes_its_statistics():
    problem = Problem(lambda x: jnp.where(x > 5.0, jnp.nan, -x), 0.0)
    run = descend(problem, sgd, 50, hyperparameters={"learning_rate": 1.0})
    assert run.statistics["end_kind"] == monitors.EndKind.NONFINITE
    assert run.statistics["end_step"] == 6
    assert run.statistics["min_loss"] == -5.0


def test_window_merge_is_that_of_all_values(key):
    values = jax.random.normal(key, (40,))
    windows = monitors.empty_windows(4, jnp.float32)
    for t, value in enumerate(values):
        if monitors.starts_window(jnp.int32(t)):
            windows = monitors.shift_windows(windows, value + 0.5)
        windows = monitors.push_value(windows, value, jnp.bool_(True))
    expected = np.asarray(values)[windows_by_hand(39)[-4] :]
    count, mean, m2 = monitors.merge_windows(windows)
    np.testing.assert_allclose([count, mean], [len(expected), expected.mean()], rtol=1e-5)
    np.testing.assert_allclose(m2, ((expected - expected.mean()) ** 2).sum(), rtol=1e-4)
