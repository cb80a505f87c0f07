"""Parameters for tests: a model's own first ones take seconds to draw."""

import jax
import jax.numpy as jnp

from jaxcnn.layout import channels_last


def drawn(model, rng):
    """In float64, of about the size that a model starts with, biases and shifts too."""

    def leaf(path, like):
        if path[-1].key == "running_var":
            return jnp.asarray(rng.uniform(0.5, 2, like.shape))
        outputs = 0 if like.ndim == 4 and not channels_last(model.layout) else -1
        scale = (like.size / like.shape[outputs]) ** -0.5 if like.ndim > 1 else 0.5
        return jnp.asarray(scale * rng.standard_normal(like.shape))

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, shapes)
