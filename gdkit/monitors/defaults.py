"""The monitors of every run, by the name that chooses them."""

from gdkit.monitors.losses import loss_ends, loss_statistics
from gdkit.monitors.updates import changes, norms, reversals
from gdkit.types import Monitor

DEFAULT = (loss_statistics(), reversals(), norms())
BUILT_IN = {"all": DEFAULT, "ends": (loss_ends(),)}  # by the argument `statistics` of a sweep


def built_in(statistics: str, *, has_gradient: bool = True) -> tuple[Monitor, ...]:
    """The monitors of a name of `BUILT_IN`, of runs whose steps report their gradient or do not."""
    watched = BUILT_IN[statistics]
    return watched if has_gradient else tuple(changes() if monitor is norms() else monitor for monitor in watched)
