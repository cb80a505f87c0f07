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
from tests.platforms.test_sharding import B, C, H, mesh, sines

OPERATIONS = {
    **test_sharding.OPERATIONS,
    # Its windows overlap: unpooling would give a pixel the gradient of both.
    "adaptive_max_pool2d": lambda x: jaxcnn.adaptive_max_pool2d(x, 3),
}


def close(ours, theirs):
    # Float32: some hundred terms of order 1, added in another order; with further
    # derivatives divided by a deviation, which can make terms ten times as large.
    ours, theirs = jax.device_get((ours, theirs))
    largest = max(1.0, *(abs(each).max() for each in jax.tree.leaves(theirs)))
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=6e-5 * float(largest))


def drawn(rng, *leading):
    return rng.standard_normal((*leading, B, C, H, H)).astype("float32")


# What several transformations are compared with is compiled once for all of them.
value = functools.cache(jax.jit)


@functools.cache
def gradient(f):
    """Of its sum of sines, compiled."""
    return jax.jit(jax.grad(sines(f)))


@functools.cache
def pulled_back(f):
    """A cotangent, by reverse mode, compiled."""
    return jax.jit(lambda x, cotangent: jax.vjp(f, x)[1](cotangent))


@functools.cache
def tangent(f):
    """Of a direction, by forward mode, compiled."""
    return jax.jit(lambda x, dx: jax.jvp(f, (x,), (dx,))[1])


def along(v, function):
    """The derivative of a scalar function along v, by reverse mode."""
    return lambda x: jnp.vdot(jax.grad(function)(x), v)


@functools.cache
def second(f):
    """The gradient of its gradient's product with v, compiled."""
    return jax.jit(lambda x, v: jax.grad(along(v, sines(f)))(x))


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


def third_order(f, rng):
    def third(x, v, dx):
        return jax.grad(along(dx, along(v, sines(f))))(x)

    arguments = drawn(rng, 3)
    with jaxcnn.derivatives("autodiff"):
        wanted = jax.jit(third)(*arguments)
    close(jax.jit(third)(*arguments), wanted)


def jvp(f, rng):
    """It is the transpose of reverse mode."""
    x, dx = drawn(rng, 2)
    dy = tangent(f)(x, dx)
    cotangent = np.cos(dy)
    (pulled,) = pulled_back(f)(x, cotangent)
    scale = np.linalg.norm(pulled) * np.linalg.norm(dx)
    close(np.vdot(cotangent, dy) / scale, np.vdot(pulled, dx) / scale)


def linearize(f, rng):
    x, dx = drawn(rng, 2)
    linearized = jax.jit(lambda x, dx: jax.linearize(f, x)[1](dx))
    close(linearized(x, dx), tangent(f)(x, dx))


def of_first_row(f, x):
    """A function of an image's first row, and that row."""
    return lambda row: f(jnp.asarray(x).at[0, 0, 0].set(row)), x[0, 0, 0]


def along_first_row(shape):
    """A direction for each entry of an image's first row."""
    directions = np.zeros((H, *shape), "float32")
    directions[range(H), 0, 0, 0, range(H)] = 1
    return directions


def jacfwd(f, rng):
    """Column by column it is a tangent."""
    x = drawn(rng)
    of_row, row = of_first_row(f, x)
    columns = [tangent(f)(x, dx) for dx in along_first_row(x.shape)]
    close(jax.jit(jax.jacfwd(of_row))(row), np.stack(columns, -1))


def hessian(f, rng):
    """Row by row it is the gradient of one entry of the gradient."""
    x = drawn(rng)
    of_row, row = of_first_row(sines(f), x)
    rows = [second(f)(x, v)[0, 0, 0] for v in along_first_row(x.shape)]
    close(jax.jit(jax.hessian(of_row))(row), np.stack(rows))


def grad_of_jvp(f, rng):
    x, v = drawn(rng, 2)

    def slope(x, v):
        return jax.jvp(sines(f), (x,), (v,))[1]

    close(jax.jit(jax.grad(slope))(x, v), second(f)(x, v))


def jvp_of_grad(f, rng):
    x, v = drawn(rng, 2)
    _, moved = jax.jit(lambda x, v: jax.jvp(jax.grad(sines(f)), (x,), (v,)))(x, v)
    close(moved, second(f)(x, v))


def checkpoint(f, rng):
    x = drawn(rng)
    checkpointed = jax.jit(jax.grad(sines(jax.checkpoint(f))))(x)
    close(checkpointed, gradient(f)(x))


def scan(f, rng):
    x = drawn(rng, 2)

    def total(x):
        return jax.lax.scan(lambda sum_, each: (sum_ + sines(f)(each), None), 0.0, x)[0]

    close(jax.jit(jax.grad(total))(x), np.stack([gradient(f)(each) for each in x]))


def automatic_sharding(f, rng):
    arrays = drawn(rng, 2)
    sharding = NamedSharding(mesh(AxisType.Auto), P("data", "model"))
    sharded = [jax.device_put(each, sharding) for each in arrays]
    close(gradient(f)(sharded[0]), gradient(f)(arrays[0]))
    close(tangent(f)(*sharded), tangent(f)(*arrays))


def export(f, rng):
    x = drawn(rng)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    exported = jax.export.export(gradient(f), platforms=platforms)(x)
    assert exported.platforms == platforms
    close(jax.export.deserialize(exported.serialize()).call(x), gradient(f)(x))


def linear_transpose(f, rng):
    x = drawn(rng)
    cotangent = np.cos(value(f)(x))
    (transposed,) = jax.jit(jax.linear_transpose(f, x))(cotangent)
    close(transposed, pulled_back(f)(x, cotangent)[0])


COLUMNS = {
    "`jit` `vmap` `scan` `checkpoint`": (jit, vmap, scan, checkpoint),
    "`grad` to third order": (grad, grad_of_grad, third_order),
    "`jvp` `linearize` `jacfwd`": (jvp, linearize, jacfwd),
    "`hessian` `grad` of `jvp`, `jvp` of `grad`": (hessian, grad_of_jvp, jvp_of_grad),
    "`linear_transpose`": (linear_transpose,),
    "`shard_map`, automatic and explicit sharding": (automatic_sharding,),
    "`export`": (export,),
}
"""For each column of the table, its transformations."""


# --- The table ------------------------------------------------------------------------


PAGE = Path(__file__).parents[2] / "docs" / "supported.md"
TABLE = PAGE.read_text().partition("\n## Transformations\n")[2].strip().partition("\n\n")[0]
(_, *HEADING), _, *ROWS = (
    [cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.splitlines()
)
CELLS = [
    (operation, heading)
    for names, *cells in ROWS
    for operation in OPERATIONS
    if f"`{operation.removesuffix(' with mirrors')}`" in names
    for heading, cell in zip(HEADING, cells, strict=True)
    if cell == "✓"
]


def test_the_table_lists_these_operations_and_transformations():
    assert set(HEADING) == set(COLUMNS)
    listed = re.findall(r"`(\w+)`", " ".join(names for names, *_ in ROWS))
    assert sorted(listed) == sorted(
        {name.removesuffix(" with mirrors") for name in OPERATIONS}
    )
    assert {cell for _, *cells in ROWS for cell in cells} == {"✓", ""}


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the table is of what users have, float32 for which there are engines."""


@pytest.mark.parametrize(
    ("operation", "transformation"),
    [
        pytest.param(operation, each, id=f"{operation}-{each.__name__}")
        for operation, heading in CELLS
        for each in COLUMNS[heading]
    ],
)
def test_a_cell_is_true(operation, transformation, rng):
    transformation(OPERATIONS[operation], rng)


def is_linear(f, x, v):
    """Whether it is, but for what is added."""
    y, dy, at_zero, together = map(value(f), (x, v, np.zeros_like(x), x + v))
    return np.allclose(y + dy - at_zero, together, rtol=0, atol=6e-5)


def test_only_what_is_not_linear_has_an_empty_cell(rng):
    x, v = drawn(rng, 2)
    empty = {(operation, heading) for operation in OPERATIONS for heading in COLUMNS}
    empty -= set(CELLS)
    assert empty == {
        (operation, "`linear_transpose`")
        for operation, f in OPERATIONS.items()
        if not is_linear(f, x, v)
    }


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
        if operation in ("conv2d", "max_pool2d", "batch_norm")
        else pytest.param(operation, marks=pytest.mark.slow)
        for operation in OPERATIONS
    ],
)
def test_the_hessian_is_autodiffs_and_that_of_reverse_mode_twice(operation, rng):
    of_row, row = of_first_row(sines(OPERATIONS[operation]), drawn(rng))
    with jaxcnn.derivatives("autodiff"):
        wanted = jax.jit(jax.hessian(of_row))(row)
    close(jax.jit(jax.jacrev(jax.jacrev(of_row)))(row), wanted)
    close(jax.jit(jax.hessian(of_row))(row), wanted)
