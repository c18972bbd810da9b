"""What a sweep takes as it grows to 10^9 lanes: constants measured here, and totals that follow from them."""
