"""Sampled policy gradients are those of the closed form, and ascending them learns; at tiny settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import policy_gradient
from experiments.problems import environments, policies
from gdkit.errors import InputTypeError, InputValueError

TINY = {
    "bandit": {
        "contexts": 2,
        "arms": 3,
        "samples": 20000,
        "learning_rate": {"from": 2.0, "to": 200.0, "count": 3},
        "steps": 400,
        "seeds": 2,
    },
    "cartpole": {
        "hidden": 8,
        "horizon": 60,
        "sgd": {"from": 3e-3, "to": 30.0, "count": 2},
        "adam": {"from": 3e-2, "to": 30.0, "count": 2},
        "steps": 150,
        "seeds": 3,
    },
}


@pytest.fixture(scope="module")
def tiny():
    return policy_gradient.run(TINY)


@pytest.mark.full
def test_every_claim_holds(tiny):
    for claim in policy_gradient.claims(tiny):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_can_fail(tiny):
    off = {
        name: e._replace(error=9.0, variance=e.variance * (2 + i)) for i, (name, e) in enumerate(tiny.estimates.items())
    }
    bandit = dataclasses.replace(
        tiny.bandit, lanes=tiny.bandit.lanes.assign(validation_value=tiny.bandit.lanes.validation_value / 2)
    )
    lanes = tiny.cartpole.lanes
    pole = dataclasses.replace(
        tiny.cartpole, lanes=lanes.assign(validation_loss=("lane", np.full(lanes.sizes["lane"], -30.0)))
    )
    wrong = policy_gradient.claims(tiny._replace(estimates=off, bandit=bandit, cartpole=pole))
    assert not any(claim.holds for claim in wrong)


def test_the_loss_is_the_mean_reward_and_its_gradient_that_of_the_log_probability_times_the_advantage():
    problem = policies.bandit(contexts=2, arms=3, pulls=4)
    logits, baseline = jnp.array([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0]]), jnp.array([1.0, 0.0])
    context, noise = np.array([0, 0, 0, 1]), np.array([0.5, 0.0, 0.0, -0.5])
    batch = policies.Pulls(problem.data, jnp.array(context), jnp.zeros((4, 3)), jnp.array(noise))
    (value, _), grad = jax.jit(jax.value_and_grad(problem.loss, has_aux=True))(logits, batch, baseline)
    reward, arm = 1.5 * np.ones(4) + noise, np.array([1, 1, 1, 0])
    reward[3] = policies.mean_rewards(2, 3)[1, 0] - 0.5
    expected = np.zeros((2, 3))
    for c, a, r in zip(context, arm, reward, strict=True):
        expected[c] += (r - baseline[c]) * (np.eye(3)[a] - environments.bandit_policy(np.asarray(logits))[c]) / 4
    assert float(value) == pytest.approx(reward.mean())
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_the_running_baseline_of_a_context_follows_its_rewards():
    problem = policies.bandit(contexts=2, arms=3, pulls=4, baseline_rate=0.5)
    batch = policies.Pulls(problem.data, jnp.array([0, 0, 0, 1]), jnp.zeros((4, 3)), jnp.zeros(4))
    logits, baseline = jnp.array([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0]]), jnp.array([1.0, 0.0])
    _, after = jax.jit(problem.loss)(logits, batch, baseline)
    # three pulls of reward 1.5 and one; a rate of 0.5 is for a context with its share, two of the four pulls
    np.testing.assert_allclose(after, [1 + 0.5 * 3 / 2 * 0.5, 0.5 * 1 / 2 * 1.5], rtol=1e-6)


def test_the_baseline_of_the_pole_is_the_mean_return_from_each_step_on():
    problem = policies.cartpole(hidden=4, episodes=3, horizon=40, baseline_rate=1.0)

    @jax.jit
    def first_loss(key, data):
        params, aux = problem.init(key)
        return problem.loss(params, problem.sample(key, 0, data), aux)

    value, after = first_loss(jax.random.key(0), problem.data)
    assert 8 < float(value) < 40
    assert float(after[0]) == pytest.approx(float(value))
    assert np.all(np.diff(after) <= 0) and np.all(np.diff(after) >= -1.001)


@pytest.mark.full
def test_printed_table_has_the_estimates_and_one_line_per_learning_rate(tiny):
    bandit, *poles = [[line.split(" | ") for line in part.splitlines()] for part in str(tiny).split("\n\n")]
    assert [row[0].strip() for row in bandit[2:]] == ["no baseline", "baseline"]
    for (head, _, *rows), name in zip(poles, ("sgd", "adam"), strict=True):
        assert head[0].strip() == f"cart with a pole, {name}"
        np.testing.assert_allclose([float(row[0]) for row in rows], tiny.returns(name)[0], rtol=5e-3)


@pytest.mark.full
def test_figure_shows_each_seed_its_mean_and_the_known_levels(tiny):
    (figure,) = policy_gradient.plot(tiny).values()
    for ax, rates, seeds, level in zip(figure.axes, (3, 2), (2, 3), (2, 60), strict=True):
        assert [len(line.get_xdata()) for line in ax.lines[:4]] == [seeds * rates, rates] * 2
        assert level in {line.get_ydata()[0] for line in ax.lines[4:]}
        assert ax.get_xlabel() == "learning rate" and ax.get_ylabel()


@pytest.mark.parametrize(
    "settings, error, said",
    [
        ({"bandits": {}}, InputValueError, "Did you mean 'bandit'"),
        ({"bandit": {"arms": 2.5}}, InputTypeError, "settings.bandit.arms=2.5: not an integer"),
        ({"bandit": {"arms": 1}}, InputValueError, "settings.bandit.arms=1: leaves no choice"),
        ({"cartpole": {"sgd": {"from": -1.0}}}, InputValueError, "settings.cartpole.sgd.from=-1.0"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        policy_gradient.run(settings)
