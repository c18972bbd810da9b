"""Sensitivity of an optimizer to its learning rate, and two treatments that may reduce it: warm-up and clipping."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit import optimizers
from gdkit.types import OptimizerFactory

# Shares of the full warm-up and of the full clipping.
TREATMENTS = {"plain": (0.0, 0.0), "warm-up": (1.0, 0.0), "clipping": (0.0, 1.0), "both": (1.0, 1.0)}


class RateSensitivity(NamedTuple):
    """Losses of one optimizer at every learning rate."""

    rates: np.ndarray  # (rates,)
    losses: np.ndarray  # (rates, seeds) on validation rows, infinite where the run diverged
    start: np.ndarray  # (rates, seeds) loss of the first batch

    @property
    def sensitivity(self) -> float:
        """Mean over learning rates and seeds of min(loss, start), minus the smallest mean loss."""
        return float(np.minimum(self.losses, self.start).mean() - self.losses.mean(axis=1).min())

    @property
    def best(self) -> float:
        """The learning rate of the smallest mean loss."""
        return float(self.rates[self.losses.mean(axis=1).argmin()])

    def mean_loss_above(self, rate: float) -> float:
        """The mean of min(loss, start) at learning rates above `rate`."""
        return float(np.minimum(self.losses, self.start)[self.rates > rate].mean())

    @property
    def by_seed(self) -> list["RateSensitivity"]:
        """The same for each seed alone."""
        return [self.select_seeds([seed]) for seed in range(self.losses.shape[1])]

    @property
    def interval(self) -> np.ndarray:
        """95 % bootstrap interval of the sensitivity over seeds, (2,)."""
        seeds = self.losses.shape[1]
        picks = np.random.default_rng(0).integers(seeds, size=(1000, seeds))
        return np.quantile([self.select_seeds(pick).sensitivity for pick in picks], [0.025, 0.975])

    def select_seeds(self, seeds: Any) -> "RateSensitivity":
        """The same for these seeds."""
        return RateSensitivity(self.rates, self.losses[:, seeds], self.start[:, seeds])


def sensitivity_reduction(before: RateSensitivity, after: RateSensitivity, *, above_best: bool = False) -> np.ndarray:
    """Decrease of each seed's sensitivity, (seeds,), or of its mean loss above the best learning rate of `before`."""
    cost = lambda one: one.mean_loss_above(before.best) if above_best else one.sensitivity
    return np.array([cost(old) - cost(new) for old, new in zip(before.by_seed, after.by_seed, strict=True)])


def treat_optimizer(optimizer: OptimizerFactory, steps: int, warmup: float, clip_norm: float) -> OptimizerFactory:
    """`optimizer` with cosine decay, and with the shares of warm-up and clipping, 0 to 1, that a lane asks for."""
    decay = optimizers.schedule("cosine", steps)
    longest = warmup

    def treated_optimizer(*, learning_rate: Any, warmup: Any, clipping: Any) -> Any:
        share = lambda count: decay(count) * jnp.minimum(1, (count + 1) / (jnp.asarray(warmup) * longest * steps))
        scheduled = optimizers.with_schedule(optimizer, share)
        return optimizers.with_clipping(scheduled, clip_norm / jnp.asarray(clipping))(learning_rate=learning_rate)

    return treated_optimizer
