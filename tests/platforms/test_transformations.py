"""Convolution under every transformation: gradients of gradients, vmap, remat, scan.

What a plain call computes is proved in test_convolution; here it is the reference, called
once for each element of a mapped axis. Higher orders are compared with XLA's convolution.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.window import Window
from tests import oracles

WINDOW = Window((3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2))
OPTIONS = {
    "stride": WINDOW.stride,
    "padding": WINDOW.padding,
    "dilation": WINDOW.dilation,
    "groups": 2,
}
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def drawn(rng, layout, groups=2):
    """x (2 images of 4 channels), w and b (6 outputs), and a dy that goes with them."""
    out = oracles.output_size((5, 4), WINDOW)
    return (
        oracles.in_layout(rng.standard_normal((2, 4, 5, 4)), layout),
        oracles.weights_in_layout(rng.standard_normal((6, 4 // groups, 3, 2)), layout),
        rng.standard_normal(6),
        oracles.in_layout(rng.standard_normal((2, 6, *out)), layout),
    )


def conv2d_of(layout, **options):
    return functools.partial(jaxcnn.conv2d, **{**OPTIONS, "layout": layout, **options})


@functools.cache
def lax_of(layout):
    return functools.partial(
        oracles.lax_convolution, window=WINDOW, groups=2, layout=layout
    )


def close(ours, theirs):
    # Float64, some hundred terms of order 1 added in another order: 100 · 2e-16 · 10.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


# --- Gradients of gradients -----------------------------------------------------------


@functools.cache
def gradients_of_order(order, convolution):
    """The gradients of a nonlinear loss, of its slope, of the slope of its slope, …"""

    def computed(operands, dy, directions):
        def function(x, w, b):
            return jnp.vdot(jnp.sin(convolution(x, w, b)), dy)

        for _ in range(order - 1):
            function = slope_along(directions, function)
        return jax.grad(function, (0, 1, 2))(*operands)

    return jax.jit(computed)


def slope_along(directions, function):
    def slope(*operands):
        gradients = jax.grad(function, (0, 1, 2))(*operands)
        return sum(map(jnp.vdot, gradients, directions))

    return slope


def drawn_with_directions(rng, layout):
    *operands, dy = drawn(rng, layout)
    directions = [rng.standard_normal(each.shape) for each in operands]
    return operands, dy, directions


def close_at_any_order(ours, theirs):
    # Each order multiplies by directions over a hundred entries: the numbers reach 1e4,
    # and the rounding of the largest, 1e4 · 2e-16 · 100 terms, is in every sum.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    ("order", "layout"),
    [(2, "NCHW"), (2, "NHWC"), pytest.param(3, "NHWC", marks=pytest.mark.slow)],
)
def test_higher_gradients_are_those_of_xla(rng, order, layout):
    arguments = drawn_with_directions(rng, layout)
    close_at_any_order(
        gradients_of_order(order, conv2d_of(layout))(*arguments),
        gradients_of_order(order, lax_of(layout))(*arguments),
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_order_is_left_to_autodiff(rng, opaque_engine, order):
    # Only the hand-written rules can see through an engine that hides its derivatives.
    arguments = drawn_with_directions(rng, "NCHW")
    hidden = conv2d_of("NCHW", engine=opaque_engine)
    close_at_any_order(
        gradients_of_order(order, hidden)(*arguments),
        gradients_of_order(order, lax_of("NCHW"))(*arguments),
    )


def test_autodiff_cannot_see_through_the_opaque_engine(rng, opaque_engine):
    # … or the test above would prove nothing.
    arguments = drawn_with_directions(rng, "NCHW")
    plain = conv2d_of("NCHW", engine=opaque_engine, derivatives="autodiff")
    dx, dw, _ = jax.device_get(gradients_of_order(1, plain)(*arguments))
    assert not dx.any()
    assert not dw.any()


# --- vmap -----------------------------------------------------------------------------

# Along which axis x, w, b and dy are mapped.
MAPPED = {
    "images": (0, None, None, 0),
    "weights": (None, 0, None, 0),
    "bias": (None, None, 0, 0),
    "images and weights": (0, 0, None, 0),
    "everything": (0, 0, 0, 0),
    "images alone": (0, None, None, None),
    "weights alone": (None, 0, None, None),
    "cotangents alone": (None, None, None, 0),
    "inner axes": (2, 4, 1, 3),
}
RARELY_MAPPED = ("bias", "images alone", "weights alone", "cotangents alone")
TIMES = 3


def mapped_operands(rng, layout, in_axes):
    """Operands with a mapped axis of length 3 each where in_axes says."""
    each_time = [drawn(rng, layout) for _ in range(TIMES)]
    columns = zip(*each_time, strict=True)
    return [
        column[0] if axis is None else np.stack(column, axis)
        for column, axis in zip(columns, in_axes, strict=True)
    ]


def one_time(operands, in_axes, number):
    return [
        operand if axis is None else np.take(operand, number, axis)
        for operand, axis in zip(operands, in_axes, strict=True)
    ]


def value_and_pullback(convolution):
    def computed(x, w, b, dy):
        y, pullback = jax.vjp(convolution, x, w, b)
        return y, pullback(dy)

    return computed


@functools.cache
def compiled(layout):
    """The value and the pullback of a convolution that is not mapped."""
    return jax.jit(value_and_pullback(conv2d_of(layout)))


@pytest.mark.parametrize(
    ("mapped", "layout"),
    [
        pytest.param(mapped, layout, marks=pytest.mark.slow if is_slow else ())
        for layout in ("NCHW", "NHWC")
        for mapped in MAPPED
        for is_slow in [layout == "NHWC" and mapped in RARELY_MAPPED]
    ],
)
def test_vmap_of_the_gradient_is_the_gradient_at_every_time(rng, layout, mapped):
    in_axes = MAPPED[mapped]
    operands = mapped_operands(rng, layout, in_axes)
    function = compiled(layout)
    each_time = [function(*one_time(operands, in_axes, n)) for n in range(TIMES)]
    stacked = jax.tree.map(lambda *results: np.stack(results), *each_time)
    close(jax.jit(jax.vmap(function, in_axes))(*operands), stacked)


@every_layout
@pytest.mark.parametrize(
    "mapped", ["images", "weights", "images and weights", "inner axes"]
)
def test_the_gradient_of_vmap_adds_up_what_all_times_share(rng, layout, mapped):
    in_axes = (*MAPPED[mapped][:3], 0)
    operands = mapped_operands(rng, layout, in_axes)
    of_vmap = value_and_pullback(jax.vmap(conv2d_of(layout), in_axes[:3]))
    function = compiled(layout)
    each_time = [function(*one_time(operands, in_axes, n)) for n in range(TIMES)]
    ys, gradients = zip(*jax.device_get(each_time), strict=True)
    wanted = tuple(
        sum(column) if axis is None else np.stack(column, axis)
        for column, axis in zip(zip(*gradients, strict=True), in_axes[:3], strict=True)
    )
    close(jax.jit(of_vmap)(*operands), (np.stack(ys), wanted))


@every_layout
def test_vmap_of_vmap_is_every_pair(rng, layout):
    xs, ws, _, _ = mapped_operands(rng, layout, (0, 0, None, None))
    convolution = jax.jit(conv2d_of(layout))
    pairs = jax.vmap(jax.vmap(convolution, (None, 0)), (0, None))
    wanted = [[convolution(x, w) for w in ws] for x in xs]
    close(jax.jit(pairs)(xs, ws), np.stack(wanted))
    # Both mapped, twice: groups within groups.
    xs, ws = np.stack([xs, 2 * xs]), np.stack([ws, ws - 1])
    wanted = [list(map(convolution, *row)) for row in zip(xs, ws, strict=True)]
    close(jax.jit(jax.vmap(jax.vmap(convolution)))(xs, ws), np.stack(wanted))


@every_layout
def test_per_example_gradients_add_up_to_the_batchs(rng, layout):
    x, w, b, dy = drawn(rng, layout)
    y, (dx, dw, db) = compiled(layout)(x, w, b, dy)
    of_each = jax.jit(jax.vmap(compiled(layout), (0, None, None, 0)))
    ys, (dxs, dws, dbs) = jax.device_get(of_each(x, w, b, dy))
    close((ys, dxs, dws.sum(0), dbs.sum(0)), (y, dx, dw, db))


@pytest.mark.parametrize(
    ("mapped", "shapes", "groups"),
    [
        ("images", [(3 * 2, 4, 5, 4), (6, 2, 3, 2)], 2),
        ("weights", [(2, 4, 5, 4), (3 * 6, 2, 3, 2)], 2),
        ("images and weights", [(2, 3 * 4, 5, 4), (3 * 6, 2, 3, 2)], 3 * 2),
    ],
)
def test_vmap_makes_one_larger_sum(rng, mapped, shapes, groups):
    in_axes = MAPPED[mapped][:2]
    x, w, *_ = mapped_operands(rng, "NCHW", MAPPED[mapped])
    traced = jax.make_jaxpr(jax.vmap(conv2d_of("NCHW"), in_axes))(x, w)
    (sum_,) = (each for each in traced.eqns if each.primitive.name == "conv_forward")
    assert [operand.aval.shape for operand in sum_.invars] == shapes
    assert sum_.params["problem"].groups == groups


# --- Recomputation and loops ----------------------------------------------------------


def test_recomputing_the_forward_pass_changes_nothing(rng):
    *operands, dy = drawn(rng, "NCHW")

    def loss(x, w, b):
        return jnp.vdot(jnp.sin(conv2d_of("NCHW")(x, w, b)), dy)

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*operands)
    close(jax.jit(jax.grad(jax.checkpoint(loss), (0, 1, 2)))(*operands), gradients)


@every_layout
def test_a_scan_over_layers_is_the_layers_one_by_one(rng, layout):
    x, *_ = drawn(rng, layout)
    ws = [rng.standard_normal((4, 2, 3, 3)) / 3 for _ in range(3)]
    ws = np.stack([oracles.weights_in_layout(w, layout) for w in ws])
    dy = rng.standard_normal(x.shape)
    same = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))

    def scanned(x, ws):
        def layer(x, w):
            y = jaxcnn.conv2d(x, w, padding="SAME", groups=2, layout=layout)
            return jnp.tanh(y), None

        return jnp.vdot(jax.lax.scan(layer, x, ws)[0], dy)

    def one_by_one(x, ws):
        for w in ws:
            x = jnp.tanh(oracles.lax_convolution(x, w, None, same, 2, layout))
        return jnp.vdot(x, dy)

    ours, theirs = (
        jax.jit(jax.value_and_grad(function, (0, 1)))(x, ws)
        for function in (scanned, one_by_one)
    )
    close(ours, theirs)
