"""The run directory of a sweep: its manifest, and what workers write to it."""
