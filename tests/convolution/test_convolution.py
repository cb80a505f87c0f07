"""conv2d and its three gradients: the equations' numbers, for everything one can write.

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
from tests import oracles, precision

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
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
one_layout = pytest.mark.parametrize("layout", ["NCHW", slow("NHWC")])

IN_BOTH = ("all at once", "groups", "depthwise, two outputs each")
"""What is computed in both layouts always; otherwise they take turns."""

IN_NEITHER = (
    "one image in the batch",
    "1×1 kernel",
    "stride",
    "padding, an int",
    "depthwise",
)
"""What others of the table, or other tests, have among more: for slow runs."""


def in_turns():
    rest = [name for name in CASES if name not in (*IN_BOTH, *IN_NEITHER)]
    for name in CASES:
        for place, layout in enumerate(("NCHW", "NHWC")):
            is_in_turn = name in rest and rest.index(name) % 2 == place
            is_quick = name in IN_BOTH or is_in_turn
            yield (name, layout) if is_quick else slow(name, layout)


def drawn(name, layout):
    """x, w, b and dy for a case: the same numbers in every layout."""
    rng = np.random.default_rng(2024)
    x_shape, c_out, options, meant = CASES[name]
    groups = options.get("groups", 1)
    out = oracles.output_size(x_shape[2:], meant)
    x = oracles.in_layout(rng.standard_normal(x_shape), layout)
    w = rng.standard_normal((c_out, x_shape[1] // groups, *meant.kernel_size))
    w = oracles.weights_in_layout(w, layout)
    b = rng.standard_normal(c_out)
    dy = oracles.in_layout(rng.standard_normal((x_shape[0], c_out, *out)), layout)
    return x, w, b, dy


def terms_of(name, layout):
    """What the case's options mean, as the oracles are told it."""
    *_, options, meant = CASES[name]
    return {"window": meant, "groups": options.get("groups", 1), "layout": layout}


def conv2d_of(name, layout, **others):
    """conv2d as the case's user writes it."""
    return functools.partial(jaxcnn.conv2d, **CASES[name][2], layout=layout, **others)


def xlas_of(name, layout):
    return functools.partial(oracles.lax_convolution, **terms_of(name, layout))


def with_gradients(convolution):
    """Y, and dX, dW and (with a bias) db for the gradient dY that arrives."""

    @jax.jit
    def computed(dy, *operands):
        y, pullback = jax.vjp(convolution, *operands)
        return y, pullback(dy)

    return computed


@functools.cache
def ours(name, layout, **others):
    """The case's results, compiled once for all tests."""
    return with_gradients(conv2d_of(name, layout, **others))


@functools.cache
def wanted(name):
    """The case's results by loops and by XLA, channels first: the same for all layouts."""
    x, w, b, dy = drawn(name, "NCHW")
    terms = terms_of(name, "NCHW")
    dx = oracles.input_gradient(dy, w, input_size=x.shape[2:], **terms)
    dw = oracles.weight_gradient(x, dy, **terms)
    db = oracles.bias_gradient(dy, "NCHW")
    by_loops = oracles.convolution(x, w, b, **terms), (dx, dw, db)
    return by_loops, with_gradients(xlas_of(name, "NCHW"))(dy, x, w, b)


def channels_first(results, layout):
    y, (dx, dw, db) = results
    y, dx = (oracles.channels_first(each, layout) for each in (y, dx))
    return y, (dx, oracles.outputs_first(dw, layout), db)


def close(ours, theirs):
    # Float64, some hundred terms of order 1 added in another order: 100 · 2e-16 · 10.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "layout"), [*in_turns()])
def test_values_and_gradients_are_the_documents_and_xlas(name, layout):
    x, w, b, dy = drawn(name, layout)
    results = channels_first(ours(name, layout)(dy, x, w, b), layout)
    for theirs in wanted(name):
        close(results, theirs)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("groups", "NCHW"),
        ("all at once", "NHWC"),
        slow("groups", "NHWC"),
        slow("all at once", "NCHW"),
    ],
)
def test_without_bias_there_is_none(name, layout):
    x, w, b, dy = drawn(name, layout)
    y, (dx, dw, _) = ours(name, layout)(dy, x, w, np.zeros_like(b))
    close(ours(name, layout)(dy, x, w), (y, (dx, dw)))


@every_layout
def test_an_image_alone_is_a_batch_of_one(layout):
    x, w, b, dy = drawn("all at once", layout)
    computed = ours("all at once", layout)

    @jax.jit
    def both(dy, x, w, b):
        return computed(dy[:1], x[:1], w, b), computed(dy[0], x[0], w, b)

    (y, (dx, dw, db)), alone = both(dy, x, w, b)
    close(alone, (y[0], (dx[0], dw, db)))


@one_layout
def test_eager_calls_give_what_compiled_calls_give(layout):
    x, w, b, dy = drawn("all at once", layout)
    y, pullback = jax.vjp(conv2d_of("all at once", layout), *map(jnp.asarray, (x, w, b)))
    close((y, pullback(jnp.asarray(dy))), ours("all at once", layout)(dy, x, w, b))


@every_layout
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(layout):
    x, w, b, dy = drawn("all at once", layout)
    y, (dx, dw, db) = ours("all at once", layout)(dy[:0], x[:0], w, b)
    chex.assert_equal_shape([y, dy[:0]])
    chex.assert_equal_shape([dx, x[:0]])
    close((dw, db), (np.zeros_like(w), np.zeros_like(b)))


def test_numpy_arrays_are_welcome():
    *operands, _ = drawn("groups", "NCHW")
    convolution = conv2d_of("groups", "NCHW")
    close(convolution(*operands), convolution(*map(jnp.asarray, operands)))


# --- The gradients as functions -------------------------------------------------------


@every_layout
@pytest.mark.parametrize("name", ["SAME, stride, dilation", "all at once"])
def test_the_gradient_functions_are_the_pullback(name, layout):
    x, w, b, dy = drawn(name, layout)
    _, pullback = ours(name, layout)(dy, x, w, b)
    size, kernel_size = CASES[name][0][2:], CASES[name][3].kernel_size
    options = {**CASES[name][2], "layout": layout}

    def functions(dy, x, w, derivatives):
        chosen = {**options, "derivatives": derivatives}
        return (
            jaxcnn.conv2d_input_gradient(dy, w, size, **chosen),
            jaxcnn.conv2d_weight_gradient(x, dy, kernel_size, **chosen),
            jaxcnn.conv2d_bias_gradient(dy, layout=layout, derivatives=derivatives),
        )

    @jax.jit
    def computed(*operands):
        return [functions(*operands, each) for each in ("custom", "autodiff")]

    for each in computed(dy, x, w):
        close(each, pullback)


@every_layout
def test_the_gradient_functions_take_an_image_alone(layout):
    x, w, _, dy = drawn("all at once", layout)
    options = {**CASES["all at once"][2], "layout": layout}

    def functions(dy, x, w):
        return (
            jaxcnn.conv2d_input_gradient(dy, w, (7, 9), **options),
            jaxcnn.conv2d_weight_gradient(x, dy, (3, 2), **options),
            jaxcnn.conv2d_bias_gradient(dy, layout=layout),
        )

    dx, dw, db = jax.jit(functions)(dy[:1], x[:1], w)
    # … and without jit, of NumPy's arrays.
    close(functions(dy[0], x[0], w), (dx[0], dw, db))


# --- Precision ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        ("bfloat16", "NCHW"),
        ("float16", "NHWC"),
        slow("bfloat16", "NHWC"),
        slow("float16", "NCHW"),
    ],
)
def test_half_precision_is_float32_rounded_once(dtype, layout):
    x, w, b, dy = drawn("all at once", layout)
    halves = [array.astype(jnp.dtype(dtype)) for array in (dy, x, w, b)]
    wide = [array.astype("float32") for array in halves]
    pairs = zip(
        *map(
            jax.tree.leaves, (ours("all at once", layout)(*each) for each in (halves, wide))
        ),
        strict=True,
    )
    for half, single in pairs:
        assert half.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(
            np.asarray(half).astype("float32"),
            single,
            **precision.of_halves(dtype, 1e-6, convolved=single),
        )


def test_float32_is_float64_within_its_own_rounding():
    x, w, b, dy = drawn("all at once", "NHWC")
    singles = [array.astype("float32") for array in (dy, x, w, b)]
    wide = [array.astype("float64") for array in singles]
    results = ours("all at once", "NHWC")(*singles)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype("float32")}
    widened = jax.tree.map(lambda single: np.asarray(single).astype("float64"), results)
    theirs = ours("all at once", "NHWC")(*wide)
    # Some hundred terms of order 1, each rounded by 6e-8.
    chex.assert_trees_all_close(widened, theirs, rtol=0, atol=1e-5)


# --- Without the rule, and without derivatives at all ---------------------------------


@every_layout
def test_autodiff_of_the_loops_agrees_with_the_rule(layout):
    x, w, b, dy = drawn("all at once", layout)
    plain = ours("all at once", layout, derivatives="autodiff")
    close(plain(dy, x, w, b), ours("all at once", layout)(dy, x, w, b))


def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients():
    *operands, _ = drawn("groups", "NCHW")
    rng = np.random.default_rng(7)
    close(*oracles.in_both_modes(rng, conv2d_of("groups", "NCHW"), *operands))


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_hessians_are_xlas(derivatives):
    x, w, b, dy = drawn("depthwise", "NHWC")

    def hessian(convolution):
        def loss(w):
            return jnp.vdot(jnp.sin(convolution(x, w, b)), dy)

        return jax.jit(jax.hessian(loss))(w)

    ours = conv2d_of("depthwise", "NHWC", derivatives=derivatives)
    close(hessian(ours), hessian(xlas_of("depthwise", "NHWC")))


@one_layout
def test_the_gradient_is_what_central_differences_give(rng, layout):
    *operands, dy = drawn("all at once", layout)
    directions = [rng.standard_normal(array.shape) for array in operands]

    @jax.jit
    def loss(x, w, b):
        return jnp.vdot(jnp.sin(conv2d_of("all at once", layout)(x, w, b)), dy)

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*operands)
    # The differences' own error, some 1e-8 of third derivatives that reach 1e3 here.
    np.testing.assert_allclose(
        oracles.along(gradients, directions),
        oracles.central_difference(loss, operands, directions, step=1e-5),
        rtol=1e-6,
    )
