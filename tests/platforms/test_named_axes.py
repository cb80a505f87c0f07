"""Batch norm over a named axis of ``vmap``: mean and variance of all that is mapped.

Over the devices of a ``shard_map`` it is in test_sharding.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn

SHAPE = (3, 2, 4, 5, 3)
"""Three parts of a batch, of two images each, which have four channels."""


def normalized(x, w, b, axis_name=None, derivatives=None):
    return jaxcnn.batch_norm(
        x,
        None,
        None,
        w,
        b,
        training=True,
        axis_name=axis_name,
        derivatives=derivatives,
    )[0]


def in_parts(x, w, b):
    part = partial(normalized, axis_name="parts")
    return jax.vmap(part, (0, None, None), axis_name="parts")(x, w, b)


def as_a_whole(x, w, b):
    return normalized(x.reshape(-1, *SHAPE[2:]), w, b).reshape(SHAPE)


def gradients(function):
    """Of a nonlinear loss, by x, w and b."""
    return jax.grad(lambda *operands: jnp.sum(jnp.sin(function(*operands))), (0, 1, 2))


MODES = {
    "grad": lambda f: lambda operands, _: gradients(f)(*operands),
    "jvp": lambda f: partial(jax.jvp, f),
    "jvp of grad": lambda f: partial(jax.jvp, gradients(f)),
    "grad of grad": lambda f: (
        lambda operands, directions: jax.grad(
            lambda *operands: sum(map(jnp.vdot, gradients(f)(*operands), directions)),
            (0, 1, 2),
        )(*operands)
    ),
}


def drawn(rng):
    return tuple(rng.standard_normal(shape) for shape in (SHAPE, SHAPE[2:3], SHAPE[2:3]))


def close(ours, theirs):
    # Float64, a hundred terms of order 1, divided by deviations of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_in_mapped_parts_is_one_batch(rng, mode):
    operands, directions = drawn(rng), drawn(rng)
    ours, wanted = (
        jax.jit(MODES[mode](f))(operands, directions) for f in (in_parts, as_a_whole)
    )
    close(ours, wanted)


def test_every_part_has_its_own_gradient(rng):
    """Under ``vmap`` of a gradient, ∂/∂X of a part's loss reaches all parts' means."""
    operands = drawn(rng)

    def of_each_part(derivatives):
        one = partial(normalized, axis_name="parts", derivatives=derivatives)
        mapped = jax.vmap(gradients(one), (0, None, None), axis_name="parts")
        return jax.jit(mapped)(*operands)

    dx, dw, db = of_each_part("custom")
    close((dx, dw, db), of_each_part("autodiff"))
    whole = jax.jit(gradients(as_a_whole))(*operands)
    close((dx, np.sum(dw, 0), np.sum(db, 0)), whole)
