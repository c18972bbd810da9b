"""The bound of convex theory holds on convex losses, has its closed forms, and falls as theory says."""

import numpy as np
import pytest
from shared import assert_refused

from gdkit import optimizers, schedules
from gdkit.schedules import best_rate, bound

STEPS = 200
COOLDOWN = np.minimum(1, (STEPS - np.arange(STEPS)) / (0.2 * STEPS))  # WSD without warm-up
SHAPES = {
    "constant": np.ones(STEPS),
    "linear": 1 - np.arange(STEPS) / STEPS,
    "cosine": optimizers.schedule("cosine", STEPS),
    "cooldown": COOLDOWN,
    "rising": np.arange(1.0, STEPS + 1) / STEPS,
    "with pauses": np.where(np.arange(STEPS) % 7 == 3, 0.0, 1.0),
    "random": np.random.default_rng(0).uniform(0.05, 1.0, STEPS),
}


def theorem(rates, norms, distance):
    """The sums of Theorem 10 of Defazio et al. 2023, term by term."""
    steps, squares = len(rates), np.asarray(rates) ** 2 * np.asarray(norms) ** 2
    value = (distance**2 + squares.sum()) / (2 * np.sum(rates))
    for k in range(steps - 1):
        value += rates[k] / (2 * np.sum(rates[k + 1 :])) * squares[k:].sum() / np.sum(rates[k:])
    return value


def subgradient_losses(rates, start, gradient, value):
    """f(xₜ) at the point of every step's gradient."""
    x, losses = np.array(start, float), []
    for rate in rates:
        losses.append(value(x))
        x = x - rate * gradient(x)
    return np.array(losses)


LOSSES = {  # start, a subgradient, the loss (its minimum is 0), the largest norm of a gradient
    "|x|": ([1.0], lambda x: np.where(x >= 0, 1.0, -1.0), lambda x: np.abs(x).sum(), 1.0),
    "3 max |x|": ([1.0, -0.7, 0.4], lambda x: 3 * np.sign(x) * (np.arange(3) == np.abs(x).argmax()),
                  lambda x: 3 * np.abs(x).max(), 3.0),
    "Huber": ([2.0, 1.0], lambda x: x / max(1, np.linalg.norm(x)),
              lambda x: (lambda r: r - 0.5 if r > 1 else r**2 / 2)(np.linalg.norm(x)), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_iterate_of_a_convex_loss_is_below_the_bound_at_every_step(shape, loss):
    start, gradient, value, most = LOSSES[loss]
    distance = float(np.linalg.norm(start))
    schedule = SHAPES[shape]
    shares = np.array([float(schedule(t)) for t in range(STEPS)]) if callable(schedule) else schedule
    best = best_rate(schedule, STEPS, distance=distance, gradient=most)
    for factor in (0.1, 1.0, 10.0):
        peak = factor * best.learning_rate
        losses = subgradient_losses(peak * shares, start, gradient, value)
        limit = bound(schedule, STEPS, peak=peak, distance=distance, gradient=most)
        assert (losses <= limit * (1 + 1e-6)).all()
    assert best.bound == pytest.approx(bound(schedule, STEPS, peak=best.learning_rate, distance=distance,
                                             gradient=most)[-1])  # fmt: skip


def test_one_step_of_the_absolute_value_attains_the_bound():
    best = best_rate(np.ones(1), 1, distance=2.0, gradient=3.0)
    assert best.learning_rate == pytest.approx(2 / 3) and best.bound == pytest.approx(3 * 2.0)  # f(x₁) = G·D


@pytest.mark.parametrize("shape", ["cosine", "cooldown", "random"])
def test_the_bound_is_the_theorem_written_out(shape):
    norms = np.random.default_rng(1).uniform(0.5, 2.0, STEPS)
    schedule = SHAPES[shape]
    shares = np.array([float(schedule(t)) for t in range(STEPS)]) if callable(schedule) else schedule
    found = bound(schedule, STEPS, peak=0.3, distance=1.7, gradient=norms)
    for t in (1, 2, 50, STEPS):
        assert found[t - 1] == pytest.approx(theorem(0.3 * shares[:t], norms[:t], 1.7), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_a_constant_rate_has_its_closed_form(steps):
    harmonic = np.sum(1 / np.arange(1, steps))  # up to T − 1
    best = best_rate(np.ones(steps), steps, distance=2.0, gradient=3.0)
    assert best.learning_rate == pytest.approx(2 / 3 / np.sqrt(steps * (1 + harmonic)))
    assert best.bound == pytest.approx(2 * 3 * np.sqrt((1 + harmonic) / steps))


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_best_rate_and_bound_fall_like_one_over_the_root_of_steps(shape):
    rates = [best_rate(optimizers.schedule(shape, steps), steps) for steps in (500, 8000)]
    for short, long in zip(*rates, strict=True):
        assert np.log(short / long) / np.log(16) == pytest.approx(0.5, abs=0.01)
    long = best_rate(optimizers.schedule("linear", 8000), 8000)
    assert long.bound == pytest.approx(2 / np.sqrt(8000), rel=0.01)  # A → 1/T, B → 1


def test_the_bound_drops_in_a_cooldown_and_a_cooldown_beats_a_constant_rate():
    rate = best_rate(COOLDOWN, STEPS)
    limit = bound(COOLDOWN, STEPS, peak=rate.learning_rate)
    constant = bound(np.ones(STEPS), STEPS, peak=rate.learning_rate)
    before = int(0.8 * STEPS)
    np.testing.assert_allclose(limit[:before], constant[:before])
    assert limit[before] - limit[-1] > 3 * (constant[before] - constant[-1])
    assert rate.bound < best_rate(np.ones(STEPS), STEPS).bound
    assert rate.learning_rate < best_rate(SHAPES["linear"], STEPS).learning_rate  # a longer cooldown allows more


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bound(np.ones(3), 4), "not one share per step"),
        (lambda: bound(lambda count: -1.0, 4), "not finite and at least 0"),
        (lambda: bound(np.array([0.0, 1.0]), 2), "do not move"),
        (lambda: bound(np.ones(2), 2, peak=0.0), "peak=0.0"),
        (lambda: best_rate(np.ones(2), 2, distance=-1.0), "distance=-1.0"),
        (lambda: best_rate(np.ones(2), 2, gradient=np.ones(3)), "one per step"),
        (lambda: schedules.best_rate(np.ones(2), 0), "steps=0"),
    ],
)
def test_bad_input_is_named(call, message):
    assert_refused(call, message)
