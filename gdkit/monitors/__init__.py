"""Monitors: streaming statistics of a run, folded into its carry, in memory that does not grow with the steps.

Windowed statistics are sums over dyadic windows (each octave of steps has four), so that they do not depend on the
length of the run. "Late" is the last two windows, an eighth to a third of the steps so far; "earlier" the two before.
The constructors of monitors are cached, so that equal monitors are one object and a program compiles once.
"""

from gdkit.monitors.curves import curve, curve_steps, log_curves
from gdkit.monitors.defaults import BUILT_IN, DEFAULT, built_in
from gdkit.monitors.losses import loss_ends, loss_statistics, time_to
from gdkit.monitors.record import EndKind, Limits, Record, apply_stops, end_record, fold, read, roll, start_record
from gdkit.monitors.stopping import patience
from gdkit.monitors.updates import changes, norms, reversals
from gdkit.monitors.windows import empty_windows, merge_windows, next_window, push_value, shift_windows, starts_window
from gdkit.types import Monitor

__all__ = [
    "BUILT_IN", "DEFAULT", "EndKind", "Limits", "Monitor", "Record", "apply_stops", "built_in", "changes", "curve",
    "curve_steps", "empty_windows", "end_record", "fold", "log_curves", "loss_ends", "loss_statistics", "merge_windows",
    "next_window", "norms", "patience", "push_value", "read", "reversals", "roll", "shift_windows", "start_record",
    "starts_window", "time_to",
]  # fmt: skip
