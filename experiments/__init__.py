"""Studies: each module has run(settings) -> result, plot(result) and claims(result), and a config of the same name.

Where theory is exact
  parabola, quadratic_regimes, phase_diagram: gradient descent and other optimizers on quadratics
  chaos: beyond the first instability, on a quartic
  catapult: linear networks at learning rates above 2/λ₀

Edge of stability
  edge_of_stability, adaptive_edge_of_stability, norms: gradient descent, Adam, steepest descent in other norms
  batch_sharpness: SGD
  gradient_flow, central_flow: continuous limits, and where runs leave them
  spectra: the whole spectrum of the Hessian

The best learning rate
  learning_rate_sensitivity, optimizer_race: by optimizer
  learning_rate_transfer, longer_runs: for wider networks and longer runs
  batch_size, noise_scale: by batch size
  lr_range_test, hypergradient_landscape: finders, and slopes of the final loss
  fractal_boundary: the border of those that train

Schedules
  warmup, schedules, schedule_bounds

Reinforcement learning
  q_learning, policy_gradient, deep_cfr

Beside them: `problems` that studies train, `analysis` of one subject each, and what all studies use, `common`.
"""
