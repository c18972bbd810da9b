"""Continuing a sweep: extend, replay, refine, reopen, merge."""
