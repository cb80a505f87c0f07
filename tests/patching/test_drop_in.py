"""jaxcnn behind the signatures of jax.lax and flax: what JAX's functions and flax's return.

The cases are drawn at random, always the same ones; the last test of a part sees to it that
there is each option among them. JAX's own functions are what they are compared with, for
float64 and all orders of gradients; here and there loops in NumPy, and differences.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn.patching import drop_in
from jaxcnn.window import Window
from tests import asked, oracles
from tests.random_cases import lax_cases

CONVOLUTIONS, POOLINGS = (11, 13, 14, 16, 17, 19, 21, 22, 23, 26, 28, 29), range(16)
MORE_CONVOLUTIONS = sorted({*range(11, 31)} - {*CONVOLUTIONS})  # with no other option


@pytest.fixture(autouse=True)
def compiled_quickly():
    """What is computed is asked here, not how fast: XLA may leave out most of its work."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def close(ours, theirs, atol=1e-12):
    # Float64, at most some hundred terms of order 1, added in another order.
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=atol)


def value_and_gradients(function, dy):
    """All operands' gradients for a dy that arrives, beside the value."""

    def both(*operands):
        y, gradients = jax.vjp(function, *operands)
        return y, gradients(dy)

    return both


def second_gradients(function, dy, directions):
    """The gradients of a nonlinear loss's slope along some directions."""

    def slope(*operands):
        gradients = jax.grad(
            lambda *operands: jnp.vdot(jnp.sin(function(*operands)), dy),
            range(len(operands)),
        )(*operands)
        return sum(map(jnp.vdot, gradients, directions))

    return jax.grad(slope, range(len(directions)))


def side_by_side(ours, theirs):
    """One program that computes both."""
    return jax.jit(lambda *operands: (ours(*operands), theirs(*operands)))


def served(function, *operands):
    """The function's value, of which jaxcnn must have computed a part."""
    with asked.noted() as sums:
        result = function(*operands)
    assert sums
    return result


def unserved(function, *operands):
    with asked.noted() as sums:
        result = function(*operands)
    assert not sums
    return result


@pytest.mark.parametrize("name", ["conv_general_dilated", "reduce_window"])
def test_signatures_are_those_of_jax(name):
    ours, theirs = (
        {each.name: (each.kind, each.default) for each in signature.parameters.values()}
        for signature in (
            inspect.signature(getattr(drop_in, name)),
            inspect.signature(getattr(lax, name)),
        )
    )
    assert ours == theirs and list(ours) == list(theirs)


# --- Convolution ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.slow if number in MORE_CONVOLUTIONS else ())
        for number in sorted({*CONVOLUTIONS, *MORE_CONVOLUTIONS})
    ],
)
def test_convolutions_and_their_gradients_are_those_of_jax(number, rng):
    operands, options = lax_cases.convolution(number)
    ours = partial(drop_in.conv_general_dilated, **options)
    theirs = partial(lax.conv_general_dilated, **options)
    dy = rng.standard_normal(jax.eval_shape(theirs, *operands).shape)
    both = side_by_side(value_and_gradients(ours, dy), value_and_gradients(theirs, dy))
    close(*served(both, *operands))


@pytest.mark.parametrize("number", range(11, 31, 5))
def test_convolutions_outside_of_jit_are_those_of_jax(number):
    operands, options = lax_cases.convolution(number)
    ours = served(partial(drop_in.conv_general_dilated, **options), *operands)
    close(ours, lax.conv_general_dilated(*operands, **options))


@pytest.mark.parametrize("number", range(11, 31, 6))
def test_second_gradients_of_convolutions_are_those_of_jax(number, rng):
    operands, options = lax_cases.convolution(number)
    ours = partial(drop_in.conv_general_dilated, **options)
    theirs = partial(lax.conv_general_dilated, **options)
    dy = rng.standard_normal(jax.eval_shape(theirs, *operands).shape)
    directions = [rng.standard_normal(x.shape) for x in operands]
    both = side_by_side(
        second_gradients(ours, dy, directions), second_gradients(theirs, dy, directions)
    )
    close(*both(*operands), atol=1e-10)  # sums of sums of some hundred products


@pytest.mark.parametrize(
    ("number", "mapped"),
    [(1, (0, None)), (5, (None, 1)), (9, (0, 1)), (13, (0, None)), (17, (None, 0))],
)
def test_vmap_of_convolutions_is_that_of_jax(number, mapped):
    operands, options = lax_cases.convolution(number)
    stacked = [
        x if axis is None else np.stack([x, 2 * x, -x], axis)
        for x, axis in zip(jax.device_get(operands), mapped, strict=True)
    ]
    ours = jax.vmap(partial(drop_in.conv_general_dilated, **options), mapped)
    theirs = jax.vmap(partial(lax.conv_general_dilated, **options), mapped)
    close(*side_by_side(ours, theirs)(*stacked))


def test_every_option_of_a_convolution_is_among_the_cases():
    drawn = [lax_cases.convolution(number) for number in CONVOLUTIONS]
    options = [options for _, options in drawn]
    spread = [max(each.get("lhs_dilation", ()), default=1) for each in options]
    strides = [max(each["window_strides"], default=1) for each in options]
    assert {x.ndim - 2 for (x, _), _ in drawn} == {0, 1, 2, 3, 4}
    assert {(t > 1, s > 1) for t, s in zip(spread, strides, strict=True)} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }
    assert {str(each["padding"]) for each in options} >= set(lax_cases.PADDINGS)
    assert any("-" in str(each["padding"]) for each in options)
    assert {each["rhs_dilation"] is None for each in options} == {True, False}
    assert {type(each["dimension_numbers"]) for each in options} == {
        type(None),
        tuple,
        lax.ConvDimensionNumbers,
    }
    for groups in ("feature_group_count", "batch_group_count"):
        assert {each[groups] for each in options} == {1, 2, 3}


def test_a_spread_convolution_is_the_documents_of_an_image_with_zeros_in_it(rng):
    # By loops in NumPy, without anything of JAX.
    x, w = rng.standard_normal((2, 4, 4, 3)), rng.standard_normal((6, 2, 3, 2))
    window = Window((3, 2), (1, 1), ((1, 0), (-1, 3)), (1, 2))
    spread = np.zeros((2, 4, 7, 7))
    spread[:, :, ::2, ::3] = x
    y = drop_in.conv_general_dilated(
        x,
        w,
        window.stride,
        window.padding,
        lhs_dilation=(2, 3),
        rhs_dilation=window.dilation,
        feature_group_count=2,
    )
    close(y, oracles.convolution(spread, w, None, window, groups=2, layout="NCHW"))


def test_a_spread_convolution_multiplies_no_zeros(rng):
    x, w = rng.standard_normal((1, 3, 5, 5)), rng.standard_normal((4, 3, 3, 3))
    options = {"padding": ((1, 1), (2, 0)), "lhs_dilation": (2, 3)}
    convolution = partial(drop_in.conv_general_dilated, window_strides=(1, 1), **options)
    (description,) = asked.traced(convolution, x, w)
    assert description.name == "input_gradient"
    assert description.window.stride == (2, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_other_floats_are_those_of_jax(dtype, rng):
    x = rng.standard_normal((2, 6, 6, 3)).astype(dtype)
    w = rng.standard_normal((3, 3, 3, 4)).astype(dtype)
    options = {
        "window_strides": (2, 1),
        "padding": "SAME",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    ours = partial(drop_in.conv_general_dilated, **options)
    theirs = partial(lax.conv_general_dilated, **options)
    dy = rng.standard_normal(jax.eval_shape(theirs, x, w).shape).astype(dtype)
    both = side_by_side(value_and_gradients(ours, dy), value_and_gradients(theirs, dy))
    for one, other in zip(*map(jax.tree.leaves, served(both, x, w)), strict=True):
        assert one.dtype == other.dtype == dtype
        # Sums of some tens of terms in float32, and rounded to dtype perhaps twice.
        tolerance = 4 * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(
            np.asarray(one, np.float64),
            np.asarray(other, np.float64),
            rtol=tolerance,
            atol=10 * tolerance,
        )


def test_a_preferred_dtype_is_the_results(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 6)), "bfloat16")
    w = jnp.asarray(rng.standard_normal((4, 3, 3)), "bfloat16")
    options = {
        "window_strides": (1,),
        "padding": "SAME",
        "preferred_element_type": jnp.float32,
        "precision": (lax.Precision.HIGHEST, lax.Precision.HIGHEST),
    }
    y = served(partial(drop_in.conv_general_dilated, **options), x, w)
    assert y.dtype == jnp.float32
    # In float32 on both sides: nine products of order 1.
    theirs = lax.conv_general_dilated(x, w, **options)
    np.testing.assert_allclose(y, theirs, rtol=0, atol=1e-5)


# --- What JAX computes itself ---------------------------------------------------------

X, W = np.ones((2, 4, 5, 6)), np.ones((4, 2, 3, 3))
GOOD = {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2}


@pytest.mark.parametrize("dtype", ["int32", "complex128", "bool"])
def test_convolutions_of_other_dtypes_are_left_to_jax(dtype, rng):
    if dtype == "bool":
        x, w = rng.random((2, 4, 5, 6)) < 0.5, rng.random((4, 2, 3, 3)) < 0.5
    else:
        x, w = (np.asarray(rng.integers(9, size=a.shape), dtype) for a in (X, W))
    y = unserved(partial(drop_in.conv_general_dilated, **GOOD), x, w)
    np.testing.assert_array_equal(y, lax.conv_general_dilated(x, w, **GOOD))


def test_explicit_sharding_is_left_to_jax():
    mesh = jax.make_mesh((1,), ("b",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.P("b")))
        y = unserved(partial(drop_in.conv_general_dilated, **GOOD), x, W)
        theirs = lax.conv_general_dilated(x, W, **GOOD)
        assert jax.typeof(y) == jax.typeof(theirs)
        given = jax.jit(
            partial(drop_in.conv_general_dilated, **GOOD, out_sharding=jax.P("b"))
        )
        assert jax.typeof(unserved(given, X, W)) == jax.typeof(theirs)
    np.testing.assert_array_equal(y, theirs)


MALFORMED = {
    "x is a list": ([[1.0]], W, {}),
    "ranks differ": (X, W[0], {}),
    "dtypes differ": (X, W.astype("float32"), {}),
    "channels differ": (X, W[:, :1], {}),
    "too few strides": (X, W, {"window_strides": (1,)}),
    "a stride is zero": (X, W, {"window_strides": (0, 1), "padding": ((9, 9), (9, 9))}),
    "too few dilations": (X, W, {"rhs_dilation": (2,)}),
    "too few lhs dilations": (X, W, {"lhs_dilation": (1,)}),
    "a dilation is zero": (X, W, {"rhs_dilation": (0, 1)}),
    "a name for spread images": (X, W, {"lhs_dilation": (2, 2)}),
    "no such name": (X, W, {"padding": "CAUSAL"}),
    "padding is an int": (X, W, {"padding": 1}),
    "too few pads": (X, W, {"padding": ((1, 1),)}),
    "more cropped than there is": (X, W, {"padding": ((-9, 0), (0, 0))}),
    "groups do not divide": (X, W, {"feature_group_count": 3}),
    "both kinds of groups": (X, W, {"batch_group_count": 2}),
    "no such letters": (X, W, {"dimension_numbers": ("NCHW", "OIHW", "NCHX")}),
    "no such precision": (X, W, {"precision": "utmost"}),
    "narrower result": (X, W, {"preferred_element_type": "float16"}),
}


def raised(function, *operands, **options):
    with pytest.raises(Exception) as caught:  # whichever JAX raises
        function(*operands, **options)
    text, *_ = str(caught.value).split("at loc(")  # where: not the same line, of course
    return type(caught.value), text


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # JAX's, by no stride
@pytest.mark.parametrize("row", MALFORMED)
def test_malformed_convolutions_raise_what_jax_raises(row):
    x, w, wrong = MALFORMED[row]
    options = {**GOOD, **wrong}
    ours = raised(drop_in.conv_general_dilated, x, w, **options)
    assert ours == raised(lax.conv_general_dilated, x, w, **options)


# --- Windows --------------------------------------------------------------------------

REDUCTIONS = {"maximum": (-np.inf, lax.max), "sum": (0.0, lax.add)}
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def both_reductions(number, reduction):
    """x with several equal maxima in a window, and jaxcnn's function of it, and JAX's."""
    (x,), options = lax_cases.pooling(number)
    init, monoid = REDUCTIONS[reduction]
    options = {"init_value": init, "computation": monoid, **options}
    ours = partial(drop_in.reduce_window, **options)
    return np.round(2 * np.asarray(x)), ours, partial(lax.reduce_window, **options)


def jax_differentiates(options):
    """Whether JAX has a gradient of the maximum: of no dilated window, of no crop."""
    return max(options.get("window_dilation", (1,))) == 1 and "-" not in str(
        options["padding"]
    )


DIFFERENTIABLE = [
    number for number in POOLINGS if jax_differentiates(lax_cases.pooling(number)[1])
]


@pytest.mark.parametrize(
    ("reduction", "number"),
    [("sum", number) for number in POOLINGS]
    + [("maximum", number) for number in DIFFERENTIABLE],
)
def test_windows_and_their_gradients_are_those_of_jax(reduction, number, rng):
    x, ours, theirs = both_reductions(number, reduction)
    dy = rng.standard_normal(jax.eval_shape(theirs, x).shape)
    both = side_by_side(value_and_gradients(ours, dy), value_and_gradients(theirs, dy))
    close(*both(x))


@pytest.mark.parametrize("number", sorted({*POOLINGS} - {*DIFFERENTIABLE}))
def test_gradients_of_maxima_that_jax_does_not_differentiate_are_slopes(number, rng):
    # x has no two equal entries, each a whole number: linear within steps of 1e-4.
    x, ours, theirs = both_reductions(number, "maximum")
    x = rng.permutation(np.arange(1.0, 1 + x.size)).reshape(x.shape)
    y, wanted = jax.device_get(side_by_side(ours, theirs)(x))
    np.testing.assert_array_equal(y, wanted)
    dy, direction = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    is_seen = y > -np.inf  # elsewhere a window sees nothing but padding

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.vdot(jnp.where(is_seen, ours(x), 0), dy)

    slope = oracles.central_difference(lambda x: loss(x)[0], [x], [direction])
    # Rounding: 1e-16 of sums of order 1000, divided by the step.
    np.testing.assert_allclose(
        oracles.along([loss(x)[1]], [direction]), slope, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_gradients_of_windows_are_those_of_the_documents_loops(reduction, rng):
    # With the winners known, both are linear, so that sin is all that has a second one.
    x = rng.standard_normal((2, 5, 4, 3))
    window = Window((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1))
    options = {
        "window_dimensions": (1, 3, 2, 1),
        "window_strides": (1, 2, 1, 1),
        "padding": ((0, 0), (1, 0), (0, 1), (0, 0)),
    }
    ours = partial(drop_in.reduce_window, **options)
    init, monoid = REDUCTIONS[reduction]

    def transposed(dy):
        if reduction == "maximum":
            return oracles.max_pool(x, window, "NHWC", dy)[1]
        return oracles.average_pool(x, window, "NHWC", dy=dy, divisor=1)[1]

    def taken(x):  # the transpose's transpose
        return jax.linear_transpose(jax_transposed, y)(x)[0]

    def jax_transposed(dy):
        return jax.vjp(lambda x: lax.reduce_window(x, init, monoid, **options), x)[1](dy)[0]

    y = ours(x, init, monoid)
    dy, direction = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    second = second_gradients(lambda x: ours(x, init, monoid), dy, [direction])
    (ddx,) = jax.jit(second)(x)
    close(ddx, transposed(-np.sin(y) * dy * np.asarray(jax.jit(taken)(direction))))


@every_reduction
def test_vmap_of_windows_is_that_of_jax(reduction, rng):
    init, monoid = REDUCTIONS[reduction]
    x = rng.standard_normal((4, 5, 6, 3))
    options = {"window_dimensions": (2, 3, 1), "window_strides": (2, 1, 1)}
    options |= {"init_value": init, "computation": monoid, "padding": "SAME"}
    ours, theirs = (
        jax.vmap(partial(function, **options), 3, 1)
        for function in (drop_in.reduce_window, lax.reduce_window)
    )
    close(*served(side_by_side(ours, theirs), x))


def test_a_nan_is_the_maximum_and_receives_the_gradient():
    x = np.array([1.0, np.nan, 3.0, 2.0, 2.0])
    pool = partial(
        drop_in.reduce_window,
        init_value=-jnp.inf,
        computation=lax.max,
        window_dimensions=(3,),
        window_strides=(2,),
    )
    np.testing.assert_array_equal(pool(x), [np.nan, 3.0])
    gradient = jax.jit(jax.grad(lambda x: pool(x).sum()))
    np.testing.assert_array_equal(gradient(x), [0, 1, 1, 0, 0])


INITS = {
    "a Python float": lambda number, dtype: number,
    "of NumPy": np.array,
    "of JAX": jnp.asarray,
}


@pytest.mark.parametrize("kind", INITS)
@pytest.mark.parametrize(
    ("number", "computation"),
    [(-np.inf, lax.max), (-np.inf, jnp.maximum), (0.0, lax.add), (0.0, jnp.add)],
)
def test_every_way_to_write_a_reduction_is_served_under_jit(kind, number, computation, rng):
    x = rng.standard_normal((6, 4))
    init = INITS[kind](number, x.dtype)
    ours = served(jax.jit(lambda x: drop_in.reduce_window(x, init, computation, (2, 2))), x)
    close(ours, lax.reduce_window(x, init, computation, (2, 2)))


LEFT = {
    "integers": (np.arange(8), 0, lax.add, {}),
    "complex numbers": (np.arange(8) * 1j, 0.0, lax.add, {}),
    "no window": (np.ones(8), 0.0, lax.add, {"window_dimensions": (1,)}),
    "a minimum": (np.ones(8), np.inf, lax.min, {}),
    "a product": (np.ones(8), 1.0, lax.mul, {}),
    "a maximum from 0": (np.ones(8), 0.0, lax.max, {}),
    "a sum from 1": (np.ones(8), 1.0, lax.add, {}),
    "a function": (np.ones(8), 0.0, lambda a, b: a + b, {}),
    "a spread operand": (np.ones(8), 0.0, lax.add, {"base_dilation": (2,)}),
    "a tuple": ((np.ones(8),), (0.0,), lambda a, b: (a[0] + b[0],), {}),
    "a scalar": (np.ones(()), 0.0, lax.add, {"window_dimensions": ()}),
}


@pytest.mark.parametrize("row", LEFT)
def test_other_reductions_are_left_to_jax(row):
    operand, init, computation, options = LEFT[row]
    arguments = (operand, init, computation)
    options = {"window_dimensions": (2,), "window_strides": None, **options}
    ours = unserved(partial(drop_in.reduce_window, **options), *arguments)
    theirs = lax.reduce_window(*arguments, **options)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_traced_init_is_left_to_jax():
    x = jnp.arange(6.0)

    @jax.jit
    def sums(init):
        return drop_in.reduce_window(x, init, lax.add, (2,))

    np.testing.assert_array_equal(unserved(sums, 0.0), x[1:] + x[:-1])


BAD_WINDOWS = {
    "too few windows": {"window_dimensions": (2,)},
    "an empty window": {"window_dimensions": (0, 2)},
    "a stride is zero": {"window_strides": (0, 1)},
    "too few dilations": {"window_dilation": (2,)},
    "a dilation is zero": {"base_dilation": (0, 1)},
    "no such name": {"padding": "CAUSAL"},
    "init is a tuple": {"init_value": (0.0,)},
    "init is None": {"init_value": None},
}


@pytest.mark.parametrize("row", BAD_WINDOWS)
def test_malformed_windows_raise_what_jax_raises(row):
    good = {
        "operand": np.ones((4, 4)),
        "init_value": 0.0,
        "computation": lax.add,
        "window_dimensions": (2, 2),
        "window_strides": (1, 1),
    }
    options = {**good, **BAD_WINDOWS[row]}
    ours = raised(drop_in.reduce_window, **options)
    assert ours == raised(lax.reduce_window, **options)


# --- flax -----------------------------------------------------------------------------

FLAX_POOLS = {
    "maximum": ("max_pool", {}),
    "average": ("avg_pool", {}),
    "average of the image": ("avg_pool", {"count_include_pad": False}),
}


@pytest.mark.parametrize("pool", FLAX_POOLS)
@pytest.mark.parametrize(
    ("shape", "window_shape", "options"),
    [
        ((2, 5, 6, 3), (2, 3), {"strides": (2, 1), "padding": "SAME"}),
        ((2, 5, 6, 3), (3, 3), {"strides": (2, 2), "padding": ((1, 2), (0, 1))}),
        ((5, 6, 3), (3, 2), {"padding": "SAME"}),
        ((2, 2, 7, 3), (4,), {}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # flax's own, when imported
def test_pools_are_those_of_flax(pool, shape, window_shape, options, rng):
    linen = pytest.importorskip("flax.linen")
    name, more = FLAX_POOLS[pool]
    ours, theirs = (
        partial(getattr(module, name), window_shape=window_shape, **options, **more)
        for module in (drop_in, linen)
    )
    x = jnp.asarray(rng.standard_normal(shape))
    with jax.numpy_dtype_promotion("standard"):  # flax divides by an int64
        dy = rng.standard_normal(jax.eval_shape(theirs, x).shape)
        expected = jax.jit(value_and_gradients(theirs, dy))(x)
    close(served(jax.jit(value_and_gradients(ours, dy)), x), expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (((2, 2), (1,)), r"strides is \(1,\); it must have 2 entries"),
        (((2, 2), None, ((1, 1),)), r"padding is \(\(1, 1\),\); it must have 2 entries"),
        (((2, 2, 2),), r"inputs has 3 axes; .* at least 4"),
    ],
)
@pytest.mark.parametrize("pool", [drop_in.max_pool, drop_in.avg_pool])
def test_bad_windows_of_pools_are_named(pool, arguments, told):
    with pytest.raises(ValueError, match=told):
        pool(jnp.ones((4, 4, 1)), *arguments)
