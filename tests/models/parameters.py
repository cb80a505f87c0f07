"""Parameters for tests: a model's own first ones take seconds to compile."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.layout import channels_last
from jaxcnn.models import STATISTICS


def drawn(model, rng, dtype=np.float64):
    """By NumPy, of about the size that a model starts with, biases and shifts too."""

    def leaf(path, like):
        if path[-1].key == "running_var":
            return jnp.asarray(rng.uniform(0.5, 2, like.shape), dtype)
        outputs = 0 if like.ndim == 4 and not channels_last(model.layout) else -1
        scale = (like.size / like.shape[outputs]) ** -0.5 if like.ndim > 1 else 0.5
        return jnp.asarray(scale * rng.standard_normal(like.shape), dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


def drawn_at_once(model):
    """The model, but that its first parameters are the pieces of one random vector.

    As its own they depend on the key, have about the same size, and biases are zero.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def init(key):
        leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
        numbers = jax.random.normal(key, (sum(like.size for _, like in leaves),))
        ends = np.cumsum([like.size for _, like in leaves])[:-1]
        pieces = jnp.split(numbers, ends)
        return tree.unflatten(map(first_value, leaves, pieces))

    return model._replace(init=init)


def first_value(leaf, numbers):
    """Weights are scaled; scales and variances are one, biases and means zero."""
    path, like = leaf
    if len(like.shape) > 1:
        scale = (2 * like.shape[-1] / like.size) ** 0.5
        return (scale * numbers).reshape(like.shape).astype(like.dtype)
    name = path[-1].key
    is_one = name == "w" or (name in STATISTICS and name.endswith("var"))
    return jnp.full(like.shape, is_one, like.dtype)
