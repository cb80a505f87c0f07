"""What ``experiments.compare_gradients`` is made of."""
