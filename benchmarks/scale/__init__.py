"""Overhead of sweeps up to 10^9 lanes: measured constants, and the totals that follow from them."""
