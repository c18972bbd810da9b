"""Problems that studies train: networks, games, environments, test functions."""
