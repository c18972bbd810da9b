"""What every study uses: claims, settings, optimizers to compare, the best learning rate of a grid, drawing."""
