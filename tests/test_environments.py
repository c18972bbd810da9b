"""Environments against closed forms, and against independent formulations of the same physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.problems import environments, policies
from experiments.problems.environments import CartPole

STATE = np.array([0.3, -0.7, 0.15, 1.1])


@pytest.fixture
def bandit():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4))  # logits, rewards


def test_closed_form_of_the_gradient_of_the_bandit_is_that_of_its_value(bandit):
    logits, rewards = bandit
    found = jax.grad(environments.bandit_value)(jnp.asarray(logits), jnp.asarray(rewards))
    np.testing.assert_allclose(environments.bandit_gradient(logits, rewards), found, atol=1e-6)


def test_closed_form_of_the_variance_of_the_bandit_is_that_of_all_outcomes(bandit):
    logits, rewards = bandit
    policy, noise, baseline = environments.bandit_policy(logits), 0.5, np.array([0.2, -0.4, 1.0])
    samples, weights = [], []
    for (context, arm), probability in np.ndenumerate(policy):
        for sign in (-1, 1):  # noise of two values has the variance of the normal
            gradient = np.zeros_like(policy)
            gradient[context] = np.eye(4)[arm] - policy[context]
            samples.append((rewards[context, arm] + sign * noise - baseline[context]) * gradient)
            weights.append(probability / len(policy) / 2)
    samples, weights = np.array(samples), np.array(weights)[:, None, None]
    variance = np.sum(weights * samples**2) - np.sum(np.sum(weights * samples, axis=0) ** 2)
    assert environments.bandit_variance(logits, rewards, noise, baseline) == pytest.approx(variance)


@pytest.mark.parametrize("force", [-10.0, 0.0, 10.0])
def test_accelerations_solve_the_equations_of_motion(force):
    c, (_, _, angle, spin) = CartPole(), STATE
    lever = c.pole * c.half_length
    mass = [[c.cart + c.pole, lever * np.cos(angle)], [lever * np.cos(angle), 4 / 3 * lever * c.half_length]]
    right = [force + lever * spin**2 * np.sin(angle), lever * c.gravity * np.sin(angle)]
    found = environments.cartpole_acceleration(jnp.asarray(STATE), force, c)
    np.testing.assert_allclose(found, np.linalg.solve(mass, right), rtol=1e-5)


def test_a_step_is_eulers_and_pushes_mirror_each_other():
    step = environments.cartpole_step
    after = step(jnp.asarray(STATE), jnp.bool_(True), CartPole())
    np.testing.assert_allclose(after[::2], STATE[::2] + 0.02 * STATE[1::2], rtol=1e-6)
    np.testing.assert_allclose(step(jnp.asarray(-STATE), jnp.bool_(False), CartPole()), -after, rtol=1e-6)


@pytest.mark.parametrize("state, fails", [([2.3, 0, 0.2, 0], False), ([2.5, 0, 0, 0], True), ([0, 0, -0.22, 0], True)])
def test_an_episode_fails_off_the_track_or_beyond_twelve_degrees(state, fails):
    assert bool(environments.cartpole_fails(jnp.array(state), CartPole())) == fails


def test_an_episode_counts_the_states_before_it_fails():
    state, steps = jnp.zeros(4), 0
    step = jax.jit(lambda state: environments.cartpole_step(state, jnp.bool_(True), CartPole()))
    while not environments.cartpole_fails(state, CartPole()):
        state, steps = step(state), steps + 1
    always = lambda state: jnp.float32(jnp.inf)
    states, right, alive = environments.cartpole_episode(always, jnp.zeros(4), jnp.full(20, 0.5), CartPole())
    assert right.all() and float(alive.sum()) == steps
    np.testing.assert_allclose(states[steps:], jnp.broadcast_to(state, states[steps:].shape), rtol=1e-5)


def test_rewards_of_the_bandit_are_even_and_every_context_has_all_of_them():
    rewards = policies.mean_rewards(5, 4)
    np.testing.assert_allclose(np.sort(rewards, axis=1), np.tile([1, 4 / 3, 5 / 3, 2], (5, 1)), rtol=1e-6)
    assert len(set(rewards.argmax(axis=1))) == 4


@pytest.mark.parametrize("discount, value", [(1.0, 14 / 17), (0.99, 0.5420)])
def test_value_of_the_frozen_lake_is_the_published_one(discount, value):
    q = environments.optimal_q(environments.lake_transitions(), discount)
    assert q[0].max() == pytest.approx(value, abs=1e-4)


def test_optimal_q_is_the_fixed_point_and_zero_where_the_episode_has_ended():
    steps = environments.lake_transitions()
    q = environments.optimal_q(steps, 0.9)
    np.testing.assert_allclose(environments.bellman(q, steps, 0.9), q[steps.state, steps.action], atol=1e-11)
    assert not q[[5, 7, 11, 12, 15]].any()


def test_a_corridor_is_solved_by_hand():
    corridor = environments.lake_transitions(("SG",))
    # to the right: to the goal with 1/3, else, by slips up or down, to stay; so q = (1 + 2 γ q) / 3
    assert environments.optimal_q(corridor, 0.6)[0, 2] == pytest.approx(1 / (3 - 2 * 0.6))


def test_bairds_matrix_is_that_of_the_expected_step_state_by_state():
    game, weights = environments.baird(0.9), np.arange(8.0)
    step = np.zeros(8)
    for features in game.features:
        step += (0.9 * game.features[6] @ weights - features @ weights) * features / 7
    np.testing.assert_allclose(-game.matrix @ weights, step)
    values = game.features @ game.start
    np.testing.assert_allclose(values, [3, 3, 3, 3, 3, 3, 12])


def test_bairds_counterexample_grows_at_every_learning_rate_but_not_with_targets_held():
    game = environments.baird()
    assert all(game.growth(rate) > 0 for rate in np.geomspace(1e-4, 100, 50))
    assert game.growth(0.1, fixed_targets=True) == pytest.approx(0, abs=1e-12)
