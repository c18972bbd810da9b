"""A result for other tools; the functions are methods of `SweepResult`."""
