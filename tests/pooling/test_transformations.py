"""Pooling under every transformation: gradients of gradients, vmap, remat, forward mode.

What a plain call computes is proved in test_pooling; here it is the reference, called once
for each element of a mapped axis. Higher orders are compared with XLA's pooling.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.window import Window
from tests import oracles, precision

SIZE = (5, 4)
WINDOW = Window((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1))
OPTIONS = {
    "kernel_size": WINDOW.kernel_size,
    "stride": WINDOW.stride,
    "padding": WINDOW.padding,
}

# Ours and XLA's of each kind.
POOLINGS = {
    "max": (jaxcnn.max_pool2d, oracles.lax_max_pool),
    "average": (
        functools.partial(jaxcnn.avg_pool2d, count_include_pad=False),
        functools.partial(oracles.lax_average_pool, count_include_pad=False),
    ),
}
every_pooling = pytest.mark.parametrize("kind", POOLINGS)


def drawn(rng, layout, times=()):
    """Two images of two channels, and a dY that goes with them; mapped axes first."""
    out = oracles.output_size(SIZE, WINDOW)
    first = (rng.standard_normal((*times, 2, *size, 2)) for size in (SIZE, out))
    last = -3 if layout == "NCHW" else -1
    return tuple(np.moveaxis(array, -1, last) for array in first)


def our(kind, layout, **options):
    return functools.partial(POOLINGS[kind][0], **{**OPTIONS, "layout": layout, **options})


def xlas(kind, layout):
    return functools.partial(POOLINGS[kind][1], window=WINDOW, layout=layout)


ROUNDING = 1e-12
"""Float64, some dozens of terms of order 1 to 100, added in another order."""


def close(ours, theirs, rounding=ROUNDING):
    chex.assert_trees_all_close(ours, theirs, rtol=rounding, atol=rounding)


def rounding_of_xlas(kind, order):
    return precision.of_xlas_maxima(ROUNDING, order) if kind == "max" else ROUNDING


# --- Gradients of gradients -----------------------------------------------------------


def gradient_of_order(order, pooling, x, dy, direction):
    return jax.jit(gradient_by(order, pooling))(x, dy, direction)


def gradient_by(order, pooling):
    """The gradient of a nonlinear loss, of its slope, of the slope of its slope, …"""

    def gradient(x, dy, direction):
        def function(x):
            return jnp.vdot(jnp.sin(pooling(jnp.sin(x))) ** 2, dy)

        for _ in range(order - 1):
            function = slope_along(direction, function)
        return jax.grad(function)(x)

    return gradient


def slope_along(direction, function):
    return lambda x: jnp.vdot(jax.grad(function)(x), direction)


@every_pooling
@pytest.mark.parametrize(("order", "layout"), [(1, "NCHW"), (2, "NHWC"), (3, "NCHW")])
def test_every_order_is_xlas_and_none_is_left_to_autodiff(
    rng, opaque_engine, kind, order, layout
):
    # Only the hand-written rules can see through an engine that hides its derivatives.
    x, dy = drawn(rng, layout)
    direction = rng.standard_normal(x.shape)
    close(
        gradient_of_order(order, our(kind, layout, engine=opaque_engine), x, dy, direction),
        gradient_of_order(order, xlas(kind, layout), x, dy, direction),
        rounding_of_xlas(kind, order),
    )


@every_pooling
def test_autodiff_cannot_see_through_the_opaque_engine(rng, opaque_engine, kind):
    # … or the test above would prove nothing.
    x, dy = drawn(rng, "NCHW")
    plain = our(kind, "NCHW", engine=opaque_engine, derivatives="autodiff")
    assert not np.any(gradient_of_order(1, plain, x, dy, None))


# --- vmap -----------------------------------------------------------------------------


def value_and_pullback(pooling):
    def computed(x, dy):
        y, pullback = jax.vjp(pooling, x)
        return y, *pullback(dy)

    return computed


def at_each_time(function, *columns):
    """Calls, one after the other, whose results are stacked."""
    results = [function(*row) for row in zip(*columns, strict=True)]
    return jax.tree.map(lambda *each: np.stack(each), *results)


@every_pooling
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_vmap_of_the_gradient_is_the_gradient_at_every_time(rng, kind, layout):
    xs, dys = drawn(rng, layout, times=(3,))
    function = jax.jit(value_and_pullback(our(kind, layout)))
    wanted = at_each_time(function, xs, dys)

    @jax.jit
    def mapped(xs, dys):
        inner = jnp.moveaxis(xs, 0, 2), jnp.moveaxis(dys, 0, 4)
        return (
            jax.vmap(function)(xs, dys),
            # … and of cotangents alone, and along an axis that is not the first.
            jax.vmap(function, (None, 0))(xs[0], dys),
            jax.vmap(function, (2, 4))(*inner),
        )

    both, cotangents, along_others = mapped(xs, dys)
    close(both, wanted)
    close(cotangents, at_each_time(function, [xs[0]] * 3, dys))
    close(along_others, wanted)


@every_pooling
def test_the_gradient_of_vmap_is_the_gradient_at_every_time(rng, kind):
    xs, dys = drawn(rng, "NHWC", times=(3,))
    pool = our(kind, "NHWC")
    close(
        jax.jit(value_and_pullback(jax.vmap(pool)))(xs, dys),
        at_each_time(jax.jit(value_and_pullback(pool)), xs, dys),
    )


@every_pooling
def test_vmap_of_vmap_is_a_table_of_results(rng, kind):
    xs, dys = drawn(rng, "NCHW", times=(2, 3))
    function = jax.jit(value_and_pullback(our(kind, "NCHW")))
    close(
        jax.jit(jax.vmap(jax.vmap(function)))(xs, dys),
        at_each_time(functools.partial(at_each_time, function), xs, dys),
    )


@every_pooling
def test_vmap_of_a_second_gradient_is_xlas(rng, kind):
    xs, dys = drawn(rng, "NHWC", times=(3,))
    direction = rng.standard_normal(xs.shape[1:])

    def second(pooling):
        gradients = jax.vmap(gradient_by(2, pooling), (0, 0, None))
        return jax.jit(gradients)(xs, dys, direction)

    pairs = second(our(kind, "NHWC")), second(xlas(kind, "NHWC"))
    close(*pairs, rounding_of_xlas(kind, order=2))


# --- Recomputation, and forward mode --------------------------------------------------


@every_pooling
def test_recomputing_the_forward_pass_changes_nothing(rng, kind):
    x, dy = drawn(rng, "NCHW")
    pool = our(kind, "NCHW")
    close(
        gradient_of_order(1, jax.checkpoint(pool), x, dy, None),
        gradient_of_order(1, pool, x, dy, None),
    )


@every_pooling
def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng, kind):
    x, _ = drawn(rng, "NCHW")
    close(*oracles.in_both_modes(rng, our(kind, "NCHW"), x))


@every_pooling
def test_the_gradient_is_what_central_differences_give(rng, kind):
    x, dy = drawn(rng, "NHWC")
    direction = rng.standard_normal(x.shape)

    @jax.jit
    def loss(x):
        return jnp.vdot(jnp.sin(our(kind, "NHWC")(x)), dy)

    # Third derivatives of order 100 leave 1e-10 · 100; the step is far smaller than the
    # distance between two random numbers, so no maximum moves.
    np.testing.assert_allclose(
        np.vdot(jax.jit(jax.grad(loss))(x), direction),
        oracles.central_difference(loss, (x,), (direction,), step=1e-5),
        rtol=1e-6,
    )
