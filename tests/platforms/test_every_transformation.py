"""The table of docs/supported.md: every operation under every transformation, cell by cell.

Two columns of it, ``shard_map`` and explicit sharding, are in test_sharding, whose
operations these are. What an operation gives by itself is proved elsewhere.
"""

import functools
import re
from pathlib import Path

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn
from tests.platforms import test_sharding
from tests.platforms.test_sharding import B, C, H, mesh, squares

OPERATIONS = {
    **test_sharding.OPERATIONS,
    # Its windows overlap: unpooling would give a pixel the gradient of both.
    "adaptive_max_pool2d": lambda x: jaxcnn.adaptive_max_pool2d(x, 3),
}
LINEAR = (
    "dense",
    "conv2d",
    "conv2d with mirrors",
    "conv_transpose2d",
    "depthwise_conv2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "global_avg_pool",
    "unfold",
    "fold",
)


def close(ours, theirs):
    # Float32: some hundred terms of order 1, squared, added in another order; with second
    # derivatives divided by a deviation. By winograd with ten times the rounding.
    ours, theirs = jax.device_get((ours, theirs))
    largest = max(1.0, *(abs(each).max() for each in jax.tree.leaves(theirs)))
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=6e-5 * float(largest))


def drawn(rng, *leading):
    return rng.standard_normal((*leading, B, C, H, H)).astype("float32")


# What several transformations are compared with is compiled once for all of them.
value = functools.cache(jax.jit)


@functools.cache
def gradient(f):
    """Of its sum of squares, compiled."""
    return jax.jit(jax.grad(squares(f)))


@functools.cache
def pulled_back(f):
    """A cotangent, by reverse mode, compiled."""
    return jax.jit(lambda x, cotangent: jax.vjp(f, x)[1](cotangent))


@functools.cache
def second(f):
    """The gradient of its gradient's product with v, compiled."""
    slope = jax.grad(squares(f))
    return jax.jit(jax.grad(lambda x, v: jnp.vdot(slope(x), v)))


def jit(f, rng):
    x = drawn(rng)
    close(value(f)(x), f(x))


def vmap(f, rng):
    x = drawn(rng, 3)
    close(jax.jit(jax.vmap(f))(x), np.stack([value(f)(each) for each in x]))


def grad(f, rng):
    x = drawn(rng)
    with jaxcnn.derivatives("autodiff"):
        wanted = gradient(f)(x)
    close(gradient(f)(x), wanted)


def grad_of_grad(f, rng):
    x, v = drawn(rng, 2)
    with jaxcnn.derivatives("autodiff"):
        wanted = second(f)(x, v)
    close(second(f)(x, v), wanted)


def jvp(f, rng):
    """Forward mode, without the rules, is the transpose of reverse mode, with them."""
    x, dx = drawn(rng, 2)
    with jaxcnn.derivatives("autodiff"):
        y, dy = jax.jit(lambda x, dx: jax.jvp(f, (x,), (dx,)))(x, dx)
    cotangent = np.cos(y)
    (pulled,) = pulled_back(f)(x, cotangent)
    scale = np.linalg.norm(pulled) * np.linalg.norm(dx)
    close(np.vdot(cotangent, dy) / scale, np.vdot(pulled, dx) / scale)


def of_first_row(f, x):
    """The sum of squares as a function of an image's first row, and that row."""
    return lambda row: squares(f)(jnp.asarray(x).at[0, 0, 0].set(row)), x[0, 0, 0]


def hessian(f, rng):
    """Row by row it is the gradient of one entry of the gradient."""
    x = drawn(rng)
    of_row, row = of_first_row(f, x)
    with jaxcnn.derivatives("autodiff"):
        computed = jax.jit(jax.hessian(of_row))(row)
    ones = np.zeros((H, *x.shape), "float32")
    ones[range(H), 0, 0, 0, range(H)] = 1
    close(computed, np.stack([second(f)(x, v)[0, 0, 0] for v in ones]))


def checkpoint(f, rng):
    x = drawn(rng)
    checkpointed = jax.jit(jax.grad(squares(jax.checkpoint(f))))(x)
    close(checkpointed, gradient(f)(x))


def scan(f, rng):
    x = drawn(rng, 2)

    def total(x):
        return jax.lax.scan(lambda sum_, each: (sum_ + squares(f)(each), None), 0.0, x)[0]

    close(jax.jit(jax.grad(total))(x), np.stack([gradient(f)(each) for each in x]))


def automatic_sharding(f, rng):
    x = drawn(rng)
    sharded = jax.device_put(x, NamedSharding(mesh(AxisType.Auto), P("data", "model")))
    close(gradient(f)(sharded), gradient(f)(x))


def export(f, rng):
    x = drawn(rng)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    exported = jax.export.export(gradient(f), platforms=platforms)(x)
    assert exported.platforms == platforms
    close(jax.export.deserialize(exported.serialize()).call(x), gradient(f)(x))


def linear_transpose(f, rng):
    x = drawn(rng)
    cotangent = np.cos(value(f)(x))
    with jaxcnn.derivatives("autodiff"):
        transposed = jax.jit(jax.linear_transpose(f, x))(cotangent)
    close(transposed, pulled_back(f)(x, cotangent))


TRANSFORMATIONS = {
    each.__name__: each
    for each in (
        jit,
        vmap,
        grad,
        grad_of_grad,
        jvp,
        hessian,
        checkpoint,
        scan,
        automatic_sharding,
        export,
        linear_transpose,
    )
}
CELLS = [
    (operation, transformation)
    for operation in OPERATIONS
    for transformation in TRANSFORMATIONS
    if transformation != "linear_transpose" or operation in LINEAR
]


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the table is of what users have, float32 for which there are engines."""


@pytest.mark.parametrize(("operation", "transformation"), CELLS)
def test_a_cell_is_true(operation, transformation, rng):
    TRANSFORMATIONS[transformation](OPERATIONS[operation], rng)


def test_what_is_compiled_is_compiled_anew_for_autodiff(rng):
    """… or the cells that compare with it would compare the rules with themselves."""
    x, dx = drawn(rng, 2)
    compiled = value(jaxcnn.relu)
    compiled(x)

    def moved(x, dx):
        return jax.jvp(compiled, (x,), (dx,))[1]

    assert "relu_gradient" in str(jax.make_jaxpr(moved)(x, dx))
    with jaxcnn.derivatives("autodiff"):
        assert "relu_gradient" not in str(jax.make_jaxpr(moved)(x, dx))
        close(moved(x, dx), np.where(x > 0, dx, 0))


@pytest.mark.parametrize(
    "operation",
    [
        operation
        if operation in ("conv2d", "max_pool2d", "unfold", "batch_norm", "gelu")
        else pytest.param(operation, marks=pytest.mark.slow)
        for operation in OPERATIONS
    ],
)
def test_reverse_mode_twice_gives_the_hessian_too(operation, rng):
    of_row, row = of_first_row(OPERATIONS[operation], drawn(rng))
    with jaxcnn.derivatives("autodiff"):
        wanted = jax.jit(jax.hessian(of_row))(row)
    close(jax.jit(jax.jacrev(jax.jacrev(of_row)))(row), wanted)


def test_the_table_lists_these_operations():
    page = (Path(__file__).parents[2] / "docs" / "supported.md").read_text()
    _, _, section = page.partition("\n## Transformations\n")
    table, _, _ = section.partition('"Autodiff"')
    listed = set(re.findall(r"`(\w+)`", table.partition("| --- |")[2]))
    assert listed == {name.removesuffix(" with mirrors") for name in OPERATIONS}
