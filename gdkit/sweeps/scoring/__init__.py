"""From the values of lanes to scores of points, and their order."""
