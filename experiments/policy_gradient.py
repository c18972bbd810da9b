"""Policy gradients: gradient ascent on an expected return of which only samples are known.

On a contextual bandit all of it has a closed form: the gradient, the variance of its estimate with a baseline and
without, and the best value. On a cart with a pole only the cap of the return is known. Too large a learning rate does
not make the loss explode, since the gradient of a softmax is bounded: the policy commits itself to one action, and
then sees no other to learn from (Chung et al., Beyond variance reduction: understanding the true impact of baselines
on policy optimization, 2021).
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import gdkit
from experiments.analysis.sampled_gradients import NONE, RUNNING, Estimate, estimates
from experiments.common.claims import Claim
from experiments.common.drawing import legend_below, level, seeds
from experiments.common.printing import table
from experiments.common.settings import complete, spaced
from experiments.problems import environments, policies
from gdkit import SweepResult
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "bandit": {
        "contexts": 5,
        "arms": 4,
        "noise": 0.5,  # standard deviation of a reward
        "pulls": 16,  # a step
        "baseline_rate": 0.1,
        "samples": 100000,  # of the gradient
        "learning_rate": {"from": 0.1, "to": 1000.0, "count": 13},
        "steps": 2000,
        "seeds": 8,
    },
    "cartpole": {
        "hidden": 16,
        "episodes": 8,  # a step
        "horizon": 500,  # steps of the longest episode
        "baseline_rate": 0.1,
        "sgd": {"from": 1e-5, "to": 1e-2, "count": 13},  # learning rates
        "adam": {"from": 3e-4, "to": 1.0, "count": 13},
        "steps": 800,
        "seeds": 4,
    },
}
OPTIMIZERS = {"sgd": gdkit.ascent(gdkit.sgd), "adam": gdkit.ascent(optax.adam)}
WILLIAMS = "Williams 1992: E[(R − b) ∇ log π] is the gradient of E[R]"
VARIANCE = "E[((r − b)² + σ²) ‖∇ log π‖²] − ‖∇J‖²"


class PolicyGradient(NamedTuple):
    """What the study found."""

    settings: dict[str, Any]
    estimates: dict[str, Estimate]  # without a baseline, and with that of the true value
    bandit: SweepResult  # (problem.baseline_rate, learning_rate)
    cartpole: SweepResult  # each optimizer with learning rates of its own
    one_way: float  # the return of pushing to the right only

    def values(self, baseline: str) -> np.ndarray:
        """Exact values of the bandit's last policies, (learning_rate, seed)."""
        rate = 0.0 if baseline == NONE else self.settings["bandit"]["baseline_rate"]
        found = self.bandit.along("learning_rate", at={"problem.baseline_rate": rate}).data
        return found["validation_value"].transpose("learning_rate", "seed").values

    def returns(self, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates, and the mean returns (learning_rate, seed) of the last policies."""
        found = self.cartpole.select(optimizer=optimizer).data
        return found["learning_rate"].values, -found["validation_loss"].transpose("learning_rate", "seed").values

    def __str__(self) -> str:
        found = list(self.estimates.values())
        said = [table({
            "gradient of the bandit": ("", self.estimates),
            "error / s.e.": (".2f", [e.error for e in found]),
            "variance": (".4f", [e.variance for e in found]),
            "closed form": (".4f", [e.foretold for e in found]),
        })]  # fmt: skip
        for name in OPTIMIZERS:
            rates, returns = self.returns(name)
            each = [" ".join(f"{x:5.1f}" for x in row) for row in returns]
            said.append(table({f"cart with a pole, {name}": (".2e", rates), "return of each seed": ("", each)}))
        return "\n\n".join(said)


def run(settings: Mapping[str, Any]) -> PolicyGradient:
    """Samples of the bandit's gradient; then learning rates of the bandit, and of the cart with a pole."""
    chosen = complete(settings, DEFAULTS)
    arms, cart = chosen["bandit"], chosen["cartpole"]
    if arms["arms"] < 2:
        raise bad_value("settings.bandit.arms", arms["arms"], "nothing to choose from", "Use 2 or more")
    game = functools.partial(policies.bandit, **{name: arms[name] for name in ("contexts", "arms", "noise", "pulls")})
    axes = {"problem.baseline_rate": [0.0, arms["baseline_rate"]], "learning_rate": spaced(arms["learning_rate"])}
    learned = gdkit.sweep(game, OPTIMIZERS["sgd"], axes, seeds=arms["seeds"], steps=arms["steps"])
    own = {name: (factory, {"learning_rate": spaced(cart[name])}) for name, factory in OPTIMIZERS.items()}
    pole = policies.cartpole(**{name: cart[name] for name in ("hidden", "episodes", "horizon", "baseline_rate")})
    balanced = gdkit.sweep(pole, None, {"optimizer": own}, seeds=cart["seeds"], steps=cart["steps"])
    to_the_right: Any = lambda state: jnp.inf
    push = functools.partial(environments.cartpole_episode, to_the_right, constants=pole.validation.constants)
    _, _, alive = jax.vmap(push)(pole.validation.start, pole.validation.uniform)
    return PolicyGradient(chosen, estimates(arms), learned, balanced, float(jnp.mean(jnp.sum(alive, axis=1))))


def claims(result: PolicyGradient) -> list[Claim]:
    """Closed forms of the bandit, and what the cart with a pole can reach."""
    plain, steady = (result.estimates[name] for name in (NONE, RUNNING))
    best = policies.bandit(*(result.settings["bandit"][n] for n in ("contexts", "arms"))).optimum
    cap = result.settings["cartpole"]["horizon"]
    foretold = steady.foretold / plain.foretold
    loose = 6 / result.settings["bandit"]["samples"] ** 0.5  # of a variance, some standard errors
    return [
        *(Claim(f"largest error of the mean sampled gradient, {name}, in standard errors", WILLIAMS, 0.0, 4.5, e.error)
          for name, e in result.estimates.items()),
        Claim("variance of a sampled gradient without a baseline", VARIANCE, plain.foretold, loose * plain.foretold,
              plain.variance),
        Claim("share of that variance which the true value as a baseline leaves", VARIANCE, foretold, loose * foretold,
              steady.variance / plain.variance),
        Claim("value of the bandit's policy at the best learning rate, mean over seeds", "mean of the best arms",
              best, 0.01 * best, float(result.values(RUNNING).mean(axis=1).max())),
        *(Claim(f"return on the cart with a pole at {name}'s best learning rate, mean over seeds",
                "the longest episode", cap, 0.05 * cap, float(result.returns(name)[1].mean(axis=1).max()))
          for name in OPTIMIZERS),
        *(Claim(f"return at {name}'s largest learning rate, median over seeds, as a share of the longest episode",
                "committed to one action: Chung et al. 2021", result.one_way / cap, 0.1,
                float(np.median(result.returns(name)[1][-1])) / cap) for name in OPTIMIZERS),
    ]  # fmt: skip


def plot(result: PolicyGradient) -> dict[str, Figure]:
    """Return against the learning rate: of the bandit with a baseline and without, of the pole by optimizer."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates, arms, cart = result.bandit.axes["learning_rate"], result.settings["bandit"], result.settings["cartpole"]
    for number, name in enumerate(result.estimates):
        seeds(left, rates, result.values(name), number, f"{name}, mean of {arms['seeds']} seeds")
    for number, name in enumerate(result.cartpole.optimizers):
        seeds(right, *result.returns(name), number, f"{name}, mean of {cart['seeds']} seeds")
    level(left, float(np.max(policies.rewards_of(2, 2))), "best possible", above=True)
    level(right, cart["horizon"], "longest episode", above=True)
    level(right, result.one_way, "pushing one way only", above=False)
    left.set(title="contextual bandit, sgd", ylabel="expected reward of the last policy")
    right.set(title="cart with a pole", ylabel="steps until the pole falls")
    for ax in (left, right):
        ax.margins(y=0.08)
        ax.set(xscale="log", xlabel="learning rate")
        legend_below(ax)
    return {"policy_gradient": figure}
