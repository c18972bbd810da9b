"""What runs of one optimizer at many learning rates lose against the best, and how to treat them for it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gdkit import optimizers
from gdkit.types import OptimizerFactory

# of as much warm-up and clipping
TREATMENTS = {"plain": (0.0, 0.0), "warm-up": (1.0, 0.0), "clipping": (0.0, 1.0), "both": (1.0, 1.0)}


class Spread(NamedTuple):
    """Runs of one optimizer at every learning rate."""

    rates: np.ndarray  # (rates,)
    losses: np.ndarray  # (rates, seeds) on validation rows, infinite where it diverged
    start: np.ndarray  # (rates, seeds) loss of the first batch

    @property
    def sensitivity(self) -> float:
        """E over learning rates and seeds of min(loss, start), less the least mean loss."""
        return float(np.minimum(self.losses, self.start).mean() - self.losses.mean(axis=1).min())

    @property
    def best(self) -> float:
        """The learning rate of the least mean loss."""
        return float(self.rates[self.losses.mean(axis=1).argmin()])

    def above(self, rate: float) -> float:
        """The mean of min(loss, start) at learning rates above `rate`."""
        return float(np.minimum(self.losses, self.start)[self.rates > rate].mean())

    @property
    def each(self) -> list["Spread"]:
        """Each seed alone."""
        return [self.of([seed]) for seed in range(self.losses.shape[1])]

    @property
    def interval(self) -> np.ndarray:
        """95 % of it, by resampling the seeds, (2,)."""
        seeds = self.losses.shape[1]
        picks = np.random.default_rng(0).integers(seeds, size=(1000, seeds))
        return np.quantile([self.of(pick).sensitivity for pick in picks], [0.025, 0.975])

    def of(self, seeds: Any) -> "Spread":
        """The same of these seeds."""
        return Spread(self.rates, self.losses[:, seeds], self.start[:, seeds])


def saved(before: Spread, after: Spread, *, above_best: bool = False) -> np.ndarray:
    """How much less sensitive each seed is, (seeds,); or by how much less it loses above the best rate of `before`."""
    lost = lambda spread: spread.above(before.best) if above_best else spread.sensitivity
    return np.array([lost(one) - lost(other) for one, other in zip(before.each, after.each, strict=True)])


def treated(factory: OptimizerFactory, steps: int, warm: float, clip_norm: float) -> OptimizerFactory:
    """`factory` with cosine decay, and with as much of warm-up and clipping, 0 to 1, as its lanes say."""
    decay = optimizers.schedule("cosine", steps)

    def made(*, learning_rate: Any, warmup: Any, clipping: Any) -> Any:
        share = lambda count: decay(count) * jnp.minimum(1, (count + 1) / (jnp.asarray(warmup) * warm * steps))
        scheduled = optimizers.with_schedule(factory, share)
        return optimizers.with_clipping(scheduled, clip_norm / jnp.asarray(clipping))(learning_rate=learning_rate)

    return made
