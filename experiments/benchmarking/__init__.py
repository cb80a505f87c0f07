"""What ``experiments.benchmark`` and its like are made of."""
