"""conv2d and its three gradients: the document's numbers, for everything one can write.

Values and gradients are compared with loops in NumPy and with XLA's convolution, always
with random cotangents: a loss that only sums would hide flips and offsets.
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

NO_PADDING = ((0, 0), (0, 0))


def window(kernel_size, stride=(1, 1), padding=NO_PADDING, dilation=(1, 1)):
    return Window(kernel_size, stride, padding, dilation)


# (shape of x, channels first; C_out; what the user writes; the window that it means)
CASES = {
    "nothing but a kernel": ((2, 3, 5, 6), 4, {}, window((3, 2))),
    "one image in the batch": ((1, 2, 4, 5), 2, {}, window((2, 2))),
    "1×1 kernel": ((2, 3, 4, 5), 4, {}, window((1, 1))),
    "1×1 kernel, stride": ((2, 3, 5, 7), 2, {"stride": 3}, window((1, 1), (3, 3))),
    "kernel as large as the input": ((2, 2, 4, 3), 3, {}, window((4, 3))),
    "stride": ((2, 2, 7, 9), 3, {"stride": 2}, window((3, 3), (2, 2))),
    "two strides": ((2, 2, 7, 9), 3, {"stride": (3, 2)}, window((2, 3), (3, 2))),
    "stride beyond the kernel": ((2, 2, 9, 8), 3, {"stride": 4}, window((2, 3), (4, 4))),
    "dilation": ((2, 2, 7, 6), 3, {"dilation": 2}, window((3, 2), dilation=(2, 2))),
    "two dilations": (
        (2, 2, 7, 8),
        3,
        {"dilation": [3, 1]},
        window((2, 3), dilation=(3, 1)),
    ),
    "padding, an int": (
        (2, 2, 4, 5),
        3,
        {"padding": 1},
        window((3, 3), padding=((1, 1),) * 2),
    ),
    "padding, an int each": (
        (2, 2, 4, 5),
        3,
        {"padding": (1, 2)},
        window((3, 3), padding=((1, 1), (2, 2))),
    ),
    "padding, a pair each": (
        (2, 2, 4, 5),
        3,
        {"padding": ((0, 2), (1, 0))},
        window((3, 3), padding=((0, 2), (1, 0))),
    ),
    "padding, negative": (
        (2, 2, 7, 6),
        3,
        {"padding": ((-1, 0), (1, -2))},
        window((3, 3), padding=((-1, 0), (1, -2))),
    ),
    "padding beyond the kernel": (
        (2, 2, 3, 2),
        3,
        {"padding": 4},
        window((2, 3), padding=((4, 4),) * 2),
    ),
    "VALID": ((2, 2, 5, 6), 3, {"padding": "VALID", "stride": 2}, window((3, 3), (2, 2))),
    "SAME": (
        (2, 2, 5, 6),
        3,
        {"padding": "SAME"},
        window((2, 3), padding=((0, 1), (1, 1))),
    ),
    "SAME, stride, dilation": (
        (2, 2, 7, 8),
        3,
        {"padding": "SAME", "stride": (2, 3), "dilation": (2, 1)},
        window((2, 3), (2, 3), ((1, 1), (0, 1)), (2, 1)),
    ),
    "SAME_LOWER": (
        (2, 2, 5, 6),
        3,
        {"padding": "SAME_LOWER"},
        window((2, 3), padding=((1, 0), (1, 1))),
    ),
    "groups": ((2, 4, 5, 4), 6, {"groups": 2}, window((3, 2))),
    "depthwise": ((2, 3, 4, 5), 3, {"groups": 3}, window((2, 2))),
    "depthwise, two outputs each": (
        (2, 3, 4, 5),
        6,
        {"groups": 3, "padding": 1},
        window((2, 2), padding=((1, 1),) * 2),
    ),
    "all at once": (
        (2, 4, 7, 9),
        6,
        {"stride": (2, 3), "padding": ((2, 1), (-1, 3)), "dilation": (1, 2), "groups": 2},
        window((3, 2), (2, 3), ((2, 1), (-1, 3)), (1, 2)),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def drawn(rng, name, layout):
    """x, w, b and dy for a case, conv2d as its user writes it, and the oracles' terms."""
    x_shape, c_out, options, meant = CASES[name]
    groups = options.get("groups", 1)
    out = oracles.output_size(x_shape[2:], meant)
    x = oracles.in_layout(rng.standard_normal(x_shape), layout)
    w = rng.standard_normal((c_out, x_shape[1] // groups, *meant.kernel_size))
    w = oracles.weights_in_layout(w, layout)
    b = rng.standard_normal(c_out)
    dy = oracles.in_layout(rng.standard_normal((x_shape[0], c_out, *out)), layout)
    options = {**options, "layout": layout}
    terms = {"window": meant, "groups": groups, "layout": layout}
    return *map(jnp.asarray, (x, w, b, dy)), options, terms


def with_gradients(convolution, dy, *operands):
    """Y, and dX, dW and (with a bias) db for the gradient dY that arrives."""

    @jax.jit
    def computed(dy, *operands):
        y, pullback = jax.vjp(convolution, *operands)
        return y, pullback(dy)

    return computed(dy, *operands)


def conv2d_of(options):
    return functools.partial(jaxcnn.conv2d, **options)


def close(ours, theirs):
    # Float64, some hundred terms of order 1 added in another order: 100 · 2e-16 · 10.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


@every_case
@every_layout
def test_values_and_gradients_are_the_documents_and_xlas(rng, name, layout):
    x, w, b, dy, options, terms = drawn(rng, name, layout)
    ours = with_gradients(conv2d_of(options), dy, x, w, b)
    dx = oracles.input_gradient(dy, w, input_size=CASES[name][0][2:], **terms)
    dw = oracles.weight_gradient(x, dy, **terms)
    db = oracles.bias_gradient(dy, layout)
    close(ours, (oracles.convolution(x, w, b, **terms), (dx, dw, db)))
    xla = functools.partial(oracles.lax_convolution, **terms)
    close(ours, with_gradients(xla, dy, x, w, b))


@every_layout
@pytest.mark.parametrize("name", ["groups", "all at once"])
def test_without_bias_there_is_none(rng, name, layout):
    x, w, b, dy, options, _ = drawn(rng, name, layout)
    y, (dx, dw, _) = with_gradients(conv2d_of(options), dy, x, w, jnp.zeros_like(b))
    close(with_gradients(conv2d_of(options), dy, x, w), (y, (dx, dw)))


@every_layout
def test_an_image_alone_is_a_batch_of_one(rng, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    y, (dx, dw, db) = with_gradients(conv2d_of(options), dy[:1], x[:1], w, b)
    alone = with_gradients(conv2d_of(options), dy[0], x[0], w, b)
    close(alone, (y[0], (dx[0], dw, db)))


@every_layout
def test_eager_calls_give_what_compiled_calls_give(rng, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    y, pullback = jax.vjp(conv2d_of(options), x, w, b)
    close((y, pullback(dy)), with_gradients(conv2d_of(options), dy, x, w, b))


@every_layout
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(rng, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    y, (dx, dw, db) = with_gradients(conv2d_of(options), dy[:0], x[:0], w, b)
    chex.assert_equal_shape([y, dy[:0]])
    chex.assert_equal_shape([dx, x[:0]])
    close((dw, db), (jnp.zeros_like(w), jnp.zeros_like(b)))


def test_numpy_arrays_are_welcome(rng):
    *operands, _, options, _ = drawn(rng, "groups", "NCHW")
    convolution = conv2d_of(options)
    close(convolution(*map(np.asarray, operands)), convolution(*operands))


# --- The gradients as functions -------------------------------------------------------


@every_layout
@pytest.mark.parametrize("name", ["SAME, stride, dilation", "all at once"])
def test_the_gradient_functions_are_the_pullback(rng, name, layout):
    x, w, b, dy, options, _ = drawn(rng, name, layout)
    _, pullback = with_gradients(conv2d_of(options), dy, x, w, b)
    size, kernel_size = CASES[name][0][2:], CASES[name][3].kernel_size
    for derivatives in ("custom", "autodiff"):
        chosen = {**options, "derivatives": derivatives}
        functions = (
            jaxcnn.conv2d_input_gradient(dy, w, size, **chosen),
            jaxcnn.conv2d_weight_gradient(x, dy, kernel_size, **chosen),
            jaxcnn.conv2d_bias_gradient(dy, layout=layout, derivatives=derivatives),
        )
        close(functions, pullback)


@every_layout
def test_the_gradient_functions_take_an_image_alone(rng, layout):
    x, w, _, dy, options, _ = drawn(rng, "all at once", layout)
    size, kernel_size = (7, 9), (3, 2)
    dx = jaxcnn.conv2d_input_gradient(dy[:1], w, size, **options)
    dw = jaxcnn.conv2d_weight_gradient(x[:1], dy[:1], kernel_size, **options)
    db = jaxcnn.conv2d_bias_gradient(dy[:1], layout=layout)
    close(jaxcnn.conv2d_input_gradient(dy[0], w, size, **options), dx[0])
    close(jaxcnn.conv2d_weight_gradient(x[0], dy[0], kernel_size, **options), dw)
    close(jaxcnn.conv2d_bias_gradient(dy[0], layout=layout), db)


# --- Precision ------------------------------------------------------------------------


@every_layout
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_float32_rounded_once(rng, dtype, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    halves = [array.astype(dtype) for array in (dy, x, w, b)]
    wide = [array.astype("float32") for array in halves]
    ours = with_gradients(conv2d_of(options), *halves)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    # One rounding is at most half a unit in the last place (eps/2, a hundredth more for
    # the float32 sums, which XLA may order otherwise); a second rounding would exceed it.
    chex.assert_trees_all_close(
        jax.tree.map(lambda half: half.astype("float32"), ours),
        with_gradients(conv2d_of(options), *wide),
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=1e-6,
    )


def test_float32_is_float64_within_its_own_rounding(rng):
    x, w, b, dy, options, _ = drawn(rng, "all at once", "NHWC")
    singles = [array.astype("float32") for array in (dy, x, w, b)]
    wide = [array.astype("float64") for array in singles]
    ours = with_gradients(conv2d_of(options), *singles)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype("float32")}
    widened = jax.tree.map(lambda single: single.astype("float64"), ours)
    theirs = with_gradients(conv2d_of(options), *wide)
    # Some hundred terms of order 1, each rounded by 6e-8.
    chex.assert_trees_all_close(widened, theirs, rtol=0, atol=1e-5)


# --- Without the rule, and without derivatives at all ---------------------------------


@every_layout
def test_autodiff_of_the_loops_agrees_with_the_rule(rng, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    plain = conv2d_of({**options, "derivatives": "autodiff"})
    close(
        with_gradients(plain, dy, x, w, b),
        with_gradients(conv2d_of(options), dy, x, w, b),
    )


def test_forward_mode_works_without_the_rule_alone(rng):
    x, w, b, _, options, terms = drawn(rng, "groups", "NCHW")
    tangents = tuple(jnp.asarray(rng.standard_normal(each.shape)) for each in (x, w, b))
    plain = conv2d_of({**options, "derivatives": "autodiff"})
    xla = functools.partial(oracles.lax_convolution, **terms)
    close(jax.jvp(plain, (x, w, b), tangents), jax.jvp(xla, (x, w, b), tangents))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(conv2d_of(options), (x, w, b), tangents)


def test_hessians_work_without_the_rule(rng):
    x, w, b, dy, options, terms = drawn(rng, "depthwise", "NHWC")

    def hessian(convolution):
        def loss(w):
            return jnp.vdot(jnp.sin(convolution(x, w, b)), dy)

        return jax.jit(jax.hessian(loss))(w)

    plain = conv2d_of({**options, "derivatives": "autodiff"})
    close(hessian(plain), hessian(functools.partial(oracles.lax_convolution, **terms)))


@every_layout
def test_the_gradient_is_what_central_differences_give(rng, layout):
    x, w, b, dy, options, _ = drawn(rng, "all at once", layout)
    directions = [rng.standard_normal(array.shape) for array in (x, w, b)]

    @jax.jit
    def loss(x, w, b):
        return jnp.vdot(jnp.sin(conv2d_of(options)(x, w, b)), dy)

    gradients = jax.grad(loss, (0, 1, 2))(x, w, b)
    # The differences' own error, some 1e-8 of third derivatives that reach 1e3 here.
    np.testing.assert_allclose(
        oracles.along(gradients, directions),
        oracles.central_difference(loss, (x, w, b), directions, step=1e-5),
        rtol=1e-6,
    )
