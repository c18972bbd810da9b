"""The rate at which the loss first rises against closed forms, and warm-ups that start there."""

import jax.numpy as jnp
import numpy as np
import optax
from shared import assert_refused

from gdkit import optimizers, problems, sgd
from gdkit.problems import Problem
from gdkit.stability import catapult_rate


def bowl(curvature):
    """½ λ w², on which every step multiplies w by 1 − ηλ."""
    return Problem(lambda w: 0.5 * curvature * w**2, init=jnp.float32(1.0))


def test_the_loss_of_a_parabola_rises_above_two_over_its_curvature():
    for curvature in (0.5, 4.0, 60.0):
        chosen = {"problem.curvature": curvature}
        rate = catapult_rate(bowl, sgd, low=1e-3, high=1e3, rtol=1e-3, hyperparameters=chosen)
        np.testing.assert_allclose(rate, 2 / curvature, rtol=2e-3)


def test_the_first_step_of_adam_rises_when_it_jumps_across():
    rate = catapult_rate(problems.parabola(), optax.adam, low=1e-2, high=1e2, steps=1, rtol=1e-3)
    np.testing.assert_allclose(rate, 2 * 3.0, rtol=2e-3)  # from 3 below the minimum by η


def test_a_warmup_starts_at_its_share_and_reaches_the_peak():
    for start in (0.0, 0.25, 1.0):
        share = optimizers.schedule("warmup_linear", 100, warmup=0.2, start=start)
        found = [float(share(count)) for count in (0, 10, 20, 60)]
        np.testing.assert_allclose(found, [start, (1 + start) / 2, 1.0, 0.5], rtol=1e-6)
    assert_refused(lambda: optimizers.schedule("warmup", 10, start=-0.1), "start=-0.1")


def test_rates_that_tell_nothing_are_refused():
    options = {"hyperparameters": {"problem.curvature": 4.0}}
    assert_refused(lambda: catapult_rate(bowl, sgd, low=1.0, high=2.0, **options), "low=1.0: the loss rises there")
    assert_refused(lambda: catapult_rate(bowl, sgd, low=0.1, high=0.2, **options), "high=0.2: the loss does not rise")
    assert_refused(lambda: catapult_rate(bowl, sgd, low=0.2, high=0.1, **options), "high=0.1: not above low=0.2")
    assert_refused(lambda: catapult_rate(bowl, sgd, low=0.1, high=1.0, lanes=2, **options), "lanes=2")
