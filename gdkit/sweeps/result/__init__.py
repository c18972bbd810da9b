"""The result of a sweep, the recommendation, and its export to Optuna and experiment trackers."""
