"""A training run: its options, its folder, and what is in it."""
