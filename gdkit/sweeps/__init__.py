"""Sweeps: lanes side by side, from axes to a result."""
