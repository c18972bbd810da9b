"""The figure of `experiments.policy_gradient`."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from experiments import policies
from experiments.drawing import legend_below, level, seeds

if TYPE_CHECKING:
    from experiments.policy_gradient import PolicyGradient


def draw(result: "PolicyGradient") -> Figure:
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
    return figure
