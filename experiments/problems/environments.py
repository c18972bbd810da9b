"""Environments for reinforcement learning as pure functions of one state or episode, with their closed forms."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit.types import Array

# --- a contextual bandit: contexts are uniform, the arm is drawn from a softmax policy, its reward is normal


def bandit_value(logits: Array, rewards: Array) -> Array:
    """Expected reward of the softmax policy `logits`, with mean `rewards`, both (contexts, arms).

    >>> float(bandit_value(jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]])))
    0.5
    """
    return jnp.mean(jnp.sum(jax.nn.softmax(logits) * rewards, axis=1))


def bandit_gradient(logits: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """The policy gradient, (contexts, arms): π(a|c) (r(c, a) − V(c)) / contexts (Sutton and Barto 2018, 13.8)."""
    policy = bandit_policy(logits)
    return policy * (rewards - _mean_over_arms(policy, rewards)) / len(rewards)


def bandit_variance(logits: np.ndarray, rewards: np.ndarray, noise: float, baseline: np.ndarray) -> float:
    """Variance, summed over params, of REINFORCE's gradient of one sample, with a baseline (contexts,).

    A sample of context c and arm a is (r − b) ∇ log π(a|c), and ‖∇ log π(a|c)‖² = 1 − 2 π(a|c) + Σ π(·|c)².
    """
    policy = bandit_policy(logits)
    score = 1 - 2 * policy + np.sum(policy**2, axis=1, keepdims=True)
    second = _mean_over_arms(policy, ((rewards - baseline[:, None]) ** 2 + noise**2) * score).mean()
    return float(second - np.sum(bandit_gradient(logits, rewards) ** 2))


def bandit_policy(logits: np.ndarray) -> np.ndarray:
    """Probability of each arm, (contexts, arms)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _mean_over_arms(policy: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.sum(policy * values, axis=1, keepdims=True)


# --- a pole on a cart (Barto, Sutton and Anderson, Neuronlike adaptive elements, 1983)


class CartPole(NamedTuple):
    """Constants of the cart and the pole, in SI units and radians."""

    gravity: float = 9.8
    cart: float = 1.0  # kg
    pole: float = 0.1  # kg
    half_length: float = 0.5  # m
    force: float = 10.0  # N, to the left or to the right
    interval: float = 0.02  # s, of Euler's method
    far: float = 2.4  # m, the end of the track
    tilted: float = 12 * np.pi / 180  # the pole counts as fallen above this angle


def cartpole_acceleration(state: Array, force: Array, constants: CartPole) -> tuple[Array, Array]:
    """Accelerations of the cart and of the pole's angle; `state` (4,): position, velocity, angle, angular velocity."""
    _, _, angle, spin = state
    mass, sine, cosine = constants.cart + constants.pole, jnp.sin(angle), jnp.cos(angle)
    lever = constants.pole * constants.half_length
    push = (force + lever * spin**2 * sine) / mass
    inertia = constants.half_length * (4 / 3 - constants.pole * cosine**2 / mass)
    angular = (constants.gravity * sine - cosine * push) / inertia
    return push - lever * angular * cosine / mass, angular


def cartpole_step(state: Array, right: Array, constants: CartPole) -> Array:
    """The state (4,) after one interval with a push to the right or to the left."""
    _, speed, _, spin = state
    force = jnp.where(right, constants.force, -constants.force)
    acceleration, angular = cartpole_acceleration(state, force, constants)
    return state + constants.interval * jnp.stack([speed, acceleration, spin, angular])


def cartpole_fails(state: Array, constants: CartPole) -> Array:
    """Whether the pole has fallen or the cart has left the track."""
    return (jnp.abs(state[0]) > constants.far) | (jnp.abs(state[2]) > constants.tilted)


def cartpole_episode(
    logit: Callable[[Array], Array], start: Array, uniform: Array, constants: CartPole
) -> tuple[Array, Array, Array]:
    """One episode of a policy that pushes to the right with probability sigmoid(logit(state)).

    Args:
      logit: of a state, (4,) -> ().
      start: the first state, (4,).
      uniform: (horizon,) in [0, 1); the push goes right where it is below the probability.
      constants: of the cart and the pole.

    Returns:
      For each step, the state (horizon, 4), whether the push goes right (horizon,), and 1.0 until the episode has
      failed, then 0.0 (horizon,), whose sum is the return.
    """

    def step(carry: tuple[Array, Array], u: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        state, alive = carry
        right = u < jax.nn.sigmoid(logit(state))
        after = jnp.where(alive, cartpole_step(state, right, constants), state)
        return (after, alive & ~cartpole_fails(after, constants)), (state, right, alive.astype(state.dtype))

    return jax.lax.scan(step, (start, jnp.bool_(True)), uniform)[1]


# --- a frozen lake: a grid to cross, where a step slips to either side as often as it goes ahead

LAKE = ("SFFF", "FHFH", "FFFH", "HFFG")  # start, frozen, hole, goal: Gymnasium's FrozenLake-v1


class Transitions(NamedTuple):
    """Every state and action with its three equally likely outcomes."""

    state: Array  # (rows,) int
    action: Array  # (rows,) int: left, down, right, up
    after: Array  # (rows, 3) int
    reward: Array  # (rows, 3), 1 on reaching the goal
    continues: Array  # (rows, 3), 0 where the episode ends


def lake_transitions(lake: Sequence[str] = LAKE) -> Transitions:
    """All transitions from cells that do not end the episode; a step off the grid stays where it is."""
    moves, cells, size = ((0, -1), (1, 0), (0, 1), (-1, 0)), "".join(lake), len(lake[0])

    def outcome(state: int, direction: int) -> int:
        down, right = moves[direction % 4]
        row = min(max(state // size + down, 0), len(lake) - 1)
        return row * size + min(max(state % size + right, 0), size - 1)

    pairs = [(state, action) for state in range(len(cells)) for action in range(4) if cells[state] in "SF"]
    after = np.array([[outcome(state, action + slip) for slip in (-1, 0, 1)] for state, action in pairs])
    reached, (state, action) = np.array(list(cells))[after], np.array(pairs).T
    ends = np.isin(reached, ["H", "G"])
    columns: tuple[Any, ...] = (state, action, after, (reached == "G").astype(np.float32), (~ends).astype(np.float32))
    return Transitions(*columns)


def bellman(q: Any, steps: Transitions, discount: float) -> Any:
    """Expected r + γ max Q(s', ·) of every state and action, (rows,); `q` (states, 4) is a NumPy or JAX array."""
    return (steps.reward + discount * steps.continues * q.max(axis=1)[steps.after]).mean(axis=1)


def optimal_q(steps: Transitions, discount: float, *, tolerance: float = 1e-12) -> np.ndarray:
    """Q* (states, 4) by value iteration; 0 in states where the episode has ended."""
    q, change = np.zeros((int(steps.after.max()) + 1, 4)), np.inf
    while change > tolerance:
        new = np.zeros_like(q)
        new[steps.state, steps.action] = bellman(q, steps, discount)
        q, change = new, np.abs(new - q).max()
    return q


# --- Baird's counterexample (Residual algorithms: reinforcement learning with function approximation, 1995), as in
# --- Sutton and Barto, Reinforcement learning, 2018, example 11.1


class Baird(NamedTuple):
    """Seven equally likely states without rewards; the evaluated policy always moves to the last one."""

    features: np.ndarray  # (7, 8)
    start: np.ndarray  # (8,), the initial weights
    discount: float

    @property
    def matrix(self) -> np.ndarray:
        """A of the expected semi-gradient step w ← (I − ηA) w, (8, 8)."""
        return self.features.T @ (self.features - self.discount * self.features[-1:]) / len(self.features)

    def growth(self, learning_rate: float, *, fixed_targets: bool = False) -> float:
        """Log-growth of the weights per step: log spectral radius of I − ηA, or of I − ηXᵀX/7 with fixed targets."""
        matrix = self.features.T @ self.features / len(self.features) if fixed_targets else self.matrix
        return float(np.log(np.abs(np.linalg.eigvals(np.eye(8) - learning_rate * matrix)).max()))


def baird(discount: float = 0.99) -> Baird:
    """The counterexample; the first six values are 2 wᵢ + w₈, the last is w₇ + 2 w₈."""
    features = np.hstack([2.0 * np.eye(7), np.ones((7, 1))])
    features[6, 6:] = 1, 2
    return Baird(features, np.array([1.0] * 6 + [10.0, 1.0]), discount)
