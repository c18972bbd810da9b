"""Policy gradients: gradient ascent on an expected return, estimated from samples.

On a contextual bandit the gradient, the variance of its estimate with and without a baseline, and the best value have
closed forms. On a cart with a pole only the upper limit of the return is known. Too large a learning rate does not make
the loss explode, since the gradient of a softmax is bounded: the policy commits to one action, and then samples no
other to learn from (Chung et al., Beyond variance reduction: understanding the true impact of baselines on policy
optimization, 2021). Adam, which they do not treat, bounds its steps; nothing of this kind is claimed for it.
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
from experiments.analysis.sampled_gradients import BASELINE, NO_BASELINE, GradientEstimate, estimate_gradients
from experiments.common.best_rates import choose_rate
from experiments.common.claims import Claim
from experiments.common.drawing import draw_level, draw_seeds, place_legend_below
from experiments.common.settings import complete_settings, geometric_grid
from experiments.common.tables import format_table
from experiments.problems import environments, policies
from gdkit import SweepResult, plots
from gdkit.errors import bad_value

DEFAULTS: dict[str, Any] = {
    "key": 0,  # of all random numbers
    "bandit": {
        "contexts": 5,
        "arms": 4,
        "noise": 0.5,  # standard deviation of a reward
        "pulls": 16,  # per step
        "baseline_rate": 0.1,
        "samples": 100000,  # of the gradient
        "learning_rate": {"from": 0.1, "to": 1000.0, "count": 13},
        "steps": 2000,
        "seeds": 8,
    },
    "cartpole": {
        "hidden": 16,
        "episodes": 8,  # per step
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
    """Result of the study."""

    settings: dict[str, Any]
    estimates: dict[str, GradientEstimate]  # without a baseline, and with the true value as one
    bandit: SweepResult  # (problem.baseline_rate, learning_rate)
    cartpole: SweepResult  # each optimizer with its own learning rates
    one_way: float  # return of the policy that always pushes to the right

    def values(self, baseline: str) -> np.ndarray:
        """Exact values of the bandit's final policies, (learning_rate, seed)."""
        rate = 0.0 if baseline == NO_BASELINE else self.settings["bandit"]["baseline_rate"]
        data = self.bandit.along("learning_rate", at={"problem.baseline_rate": rate}).data
        return data["validation_value"].transpose("learning_rate", "seed").values

    def returns(self, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates, and mean returns (learning_rate, seed) of the final policies."""
        data = self.cartpole.select(optimizer=optimizer).data
        return data["learning_rate"].values, -data["validation_loss"].transpose("learning_rate", "seed").values

    def __str__(self) -> str:
        estimates = list(self.estimates.values())
        parts = [format_table({
            "gradient of the bandit": ("", self.estimates),
            "error / s.e.": (".2f", [e.error for e in estimates]),
            "variance": (".4f", [e.variance for e in estimates]),
            "closed form": (".4f", [e.predicted_variance for e in estimates]),
        })]  # fmt: skip
        for name in OPTIMIZERS:
            rates, returns = self.returns(name)
            seeds = [" ".join(f"{x:5.1f}" for x in row) for row in returns]
            columns = {f"cart with a pole, {name}": (".2e", rates), "return of each seed": ("", seeds)}
            parts.append(format_table(columns))
        return "\n\n".join(parts)


def run(settings: Mapping[str, Any]) -> PolicyGradient:
    """Samples of the bandit's gradient, then sweeps of the learning rate on the bandit and on the cart with a pole."""
    settings = complete_settings(settings, DEFAULTS, signed=("key",))
    arms, cart = settings["bandit"], settings["cartpole"]
    if arms["arms"] < 2:
        raise bad_value("settings.bandit.arms", arms["arms"], "leaves no choice", "Use 2 or more")
    game = functools.partial(policies.bandit, **{name: arms[name] for name in ("contexts", "arms", "noise", "pulls")})
    axes = {
        "problem.baseline_rate": [0.0, arms["baseline_rate"]],
        "learning_rate": geometric_grid(arms["learning_rate"]),
    }
    options: dict[str, Any] = {"key": settings["key"], "statistics": "ends", "curve_points": 0}
    bandit = gdkit.sweep(game, OPTIMIZERS["sgd"], axes, seeds=arms["seeds"], steps=arms["steps"], **options)
    optimizers = {
        name: (optimizer, {"learning_rate": geometric_grid(cart[name])}) for name, optimizer in OPTIMIZERS.items()
    }
    pole = policies.cartpole(**{name: cart[name] for name in ("hidden", "episodes", "horizon", "baseline_rate")})
    cartpole = gdkit.sweep(pole, None, {"optimizer": optimizers}, seeds=cart["seeds"], steps=cart["steps"],
                           **options)  # fmt: skip
    to_the_right: Any = lambda state: jnp.inf
    push = functools.partial(environments.cartpole_episode, to_the_right, constants=pole.validation.constants)
    _, _, alive = jax.jit(jax.vmap(push))(pole.validation.start, pole.validation.uniform)
    return PolicyGradient(settings, estimate_gradients(arms), bandit, cartpole, float(jnp.mean(jnp.sum(alive, axis=1))))


def claims(result: PolicyGradient) -> list[Claim]:
    """Closed forms of the bandit, and the returns on the cart with a pole."""
    plain, reduced = (result.estimates[name] for name in (NO_BASELINE, BASELINE))
    best = policies.bandit(*(result.settings["bandit"][n] for n in ("contexts", "arms"))).optimum
    longest = result.settings["cartpole"]["horizon"]
    predicted = reduced.predicted_variance / plain.predicted_variance
    held_out = lambda values: float(-choose_rate(-values)[1].mean())
    loose = 6 / result.settings["bandit"]["samples"] ** 0.5  # a few standard errors of a variance
    returns = result.returns("sgd")[1]
    return [
        *(Claim.theory(f"largest error of the mean sampled gradient, {name}, in standard errors", WILLIAMS, 0.0, 4.5,
          e.error) for name, e in result.estimates.items()),
        Claim.theory("variance of a sampled gradient without a baseline", VARIANCE, plain.predicted_variance,
              loose * plain.predicted_variance, plain.variance),
        Claim.theory("share of that variance that remains with the true value as a baseline", VARIANCE, predicted,
              loose * predicted, reduced.variance / plain.variance),
        Claim.theory("value of the bandit's policy at the learning rate that half of the seeds choose, over the others",
              "mean of the best arms", best, 0.01 * best, held_out(result.values(BASELINE))),
        *(Claim.theory(f"return on the cart with a pole at the learning rate that half of {name}'s seeds choose, over "
                "the others", "the longest episode", longest, 0.01 * longest, held_out(result.returns(name)[1]))
          for name in OPTIMIZERS),
        Claim.published("return at the largest quarter of sgd's learning rates, median over their runs, over that of a "
              "policy that always takes one action", "Chung et al. 2021", 1.0, 0.1,
              float(np.median(returns[-max(len(returns) // 4, 1) :])) / result.one_way),
    ]  # fmt: skip


def plot(result: PolicyGradient) -> dict[str, Figure]:
    """Return against the learning rate: on the bandit with and without a baseline, on the cart by optimizer."""
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates, arms, cart = result.bandit.axes["learning_rate"], result.settings["bandit"], result.settings["cartpole"]
    for number, name in enumerate(result.estimates):
        draw_seeds(left, rates, result.values(name), number, f"{name}, mean of {arms['seeds']} seeds")
    for number, name in enumerate(result.cartpole.optimizers):
        draw_seeds(right, *result.returns(name), number, f"{name}, mean of {cart['seeds']} seeds")
    draw_level(left, float(np.max(policies.mean_rewards(2, 2))), "optimum", above=True)
    draw_level(right, cart["horizon"], "longest episode", above=True)
    draw_level(right, result.one_way, "always pushing one way", above=False)
    left.set(title="contextual bandit, sgd", ylabel="expected reward of the final policy")
    right.set(title="cart with a pole", ylabel="steps until the pole falls")
    for ax in (left, right):
        ax.margins(y=0.08)
        ax.set(xscale="log", xlabel="learning rate")
        place_legend_below(ax)
    return {"policy_gradient": plots.label_panels(figure)}
