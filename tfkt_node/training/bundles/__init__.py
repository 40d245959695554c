"""What ships: weights, card, recipe and README."""
