"""The smallest settings at which each study takes all of its branches."""

FEW = {"count": 2}
NETWORK = {"widths": [2], "share": 0.02}
# Nearly all of the time is tracing and compiling, which sizes and steps do not change: what counts is programs.
SETTINGS = {
    "adaptive_edge_of_stability": {"network": NETWORK, "learning_rates": [3e-3], "steps": 6, "every": 2, "keys": 2},
    "batch_sharpness": {
        "network": {"widths": [2]}, "batch_sizes": [8, 8], "learning_rates": [0.2, 0.3], "steps": 6, "every": 2,
        "batches": 2, "seeds": 2,
    },
    "batch_size": {
        "one_step": {"batch_sizes": [16], "seeds": 4}, "width": 2, "rows": 64, "seeds": 2,
        "sgd": {"batch_sizes": [8, 16], "count": 3, "linear_to": 16, "level_from": 8},
        "adam": {"batch_sizes": [8, 16], "count": 3},
    },
    "catapult": {"width": 128, "rows": 4, "sweep": {"from": 0.5, "count": 10, "steps": 60}},
    "central_flow": {
        "widths": [2], "rows": 4, "degrees": [3], "learning_rates": [0.2], "starts": 1, "near": 0.01, "approach": 10,
        "steps": 20, "transient": 10, "k": 1, "substeps": 1,
    },
    "chaos": {
        "learning_rates": {"count": 20}, "steps": 1200,
        "doublings": {"count": 3, "learning_rates": 8, "steps": 300},
    },
    "deep_cfr": {
        "tabular_iterations": 10, "hidden": 2, "iterations": 3, "period": 2, "rows": 4, "sgd": FEW, "adam": FEW,
        "seeds": 2,
    },
    "edge_of_stability": {
        "network": NETWORK, "learning_rates": [0.3], "heavy_ball": {"learning_rates": [0.3]}, "steps": 6, "every": 2,
        "keys": 2,
    },
    "fractal_boundary": {
        "width": 2, "steps": 20, "last_losses": 5, "zoom": {"frames": 2, "factor": 4, "cells": 64}, "seeds": 1,
    },
    "gradient_flow": {
        "network": NETWORK, "intervals": {"count": 8}, "flow_steps": 4, "descent_steps": [4, 64, 128], "keys": 1,
    },
    "hypergradient_landscape": {
        "share": 0.02, "width": 2, "steps": 100, "grid": {"count": 24}, "sharpness": {"count": 6, "every": 20},
        "tune": {"rounds": 2}, "keys": 2,
    },
    "learning_rate_sensitivity": {
        "mlp": {"widths": [2], "batch_size": 4},
        "transformer": {"width": 2, "heads": 1, "depth": 1, "batch_size": 4},
        "optimizers": ["sgd", "adam"], "count": 2, "warmup": 0.3, "steps": 10, "seeds": 2,
    },
    "learning_rate_transfer": {
        "widths": [2, 4], "batch_size": 4, "steps": 4, "seeds": 2, "adam": {"count": 3}, "sgd": {"count": 3},
        "check": {"steps": 2, "seeds": 2},
    },
    "longer_runs": {
        "problems": ["quadratic", "network"], "steps": 20, "evaluations": 10, "seeds": 3, "repeats": 1,
        "truth_seeds": 3, "quadratic": {"count": 9}, "network": {"count": 5},
    },
    "lr_range_test": {
        "problems": ["quadratic"], "optimizers": ["sgd"], "seeds": 2, "finder": {"steps": 40},
        "sweep": {"count": 5, "steps": 20}, "noisy": {"curves": 5},
    },
    "noise_scale": {
        "width": 4, "target": 2.2, "batch_sizes": [16, 64], "rows": 512, "steps": 8, "evaluations": 8,
        "learning_rates": {"from": 0.3, "to": 1.0, "count": 2}, "seeds": 2,
    },
    "norms": {
        "network": {"widths": [3], "rows": 6}, "norms": ["linf"], "learning_rates": {"linf": 0.5}, "steps": 4,
        "every": 2, "starts": 1, "seeds": 1,
    },
    "optimizer_race": {
        "kinds": ["quadratics"], "learning_rates": {"count": 5}, "seeds": 1, "steps": 300, "conditions": [3.0, 30.0],
    },
    "parabola": {"sweep": {"count": 40, "steps": 50}},
    "phase_diagram": {
        "dimension": 2, "momentum": {"count": 3}, "learning_rate": {"count": 5}, "steps": 20,
        "exponents": {"burn_in": 10, "steps": 20},
    },
    "policy_gradient": {
        "bandit": {"contexts": 2, "arms": 2, "samples": 1000, "learning_rate": FEW, "steps": 4, "seeds": 2},
        "cartpole": {"hidden": 2, "episodes": 2, "horizon": 10, "sgd": FEW, "adam": FEW, "steps": 4, "seeds": 2},
    },
    "q_learning": {
        "lake": {"hidden": 2, "periods": [1, 5], "learning_rate": FEW, "steps": 10, "seeds": 2},
        "baird": {"learning_rate": FEW, "steps": 40, "burn_in": 20},
    },
    "quadratic_regimes": {
        "eigenvalues": [1.0, 4.0], "adam": {"steps": 10}, "sweep": {"count": 6, "steps": 20},
        "exponents": {"burn_in": 10, "steps": 20},
    },
    "schedule_bounds": {
        "convex": {"dimension": 2, "rows": 4, "steps": 10, "peaks": 2}, "network": {"widths": [2]},
        "learning_rates": {"count": 3}, "steps": 10, "every": 5, "seeds": 2,
    },
    "schedules": {
        "network": {"widths": [2], "batch_size": 4}, "learning_rates": {"from": 0.05, "to": 300.0, "count": 4},
        "steps": 10, "seeds": 2, "warmup_run": {"steps": 10, "every": 5},
    },
    "spectra": {
        "width": 2, "rows": 40, "losses": ["squared_error"], "steps": 40, "checkpoints": 3, "traces": 2, "products": 6,
        "probes": 2, "depth": 4, "seeds": 1,
    },
    "warmup": {
        "widths": [2], "share": 0.02, "warmup": 4, "steps": 10, "every": 2, "warmups": [1, 4], "seeds": 2,
        "rates": {"sgd": {"count": 3}, "adam": {"count": 3}, "gi_adam": {"count": 3}},
    },
}  # fmt: skip
