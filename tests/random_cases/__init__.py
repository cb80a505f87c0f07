"""Random calls of every operation, and of lax's."""
