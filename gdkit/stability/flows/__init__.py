"""Central flow and gradient flow: training without its oscillation."""
