"""Activations: values, gradients, second order, and what happens at the edges."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.layers import activations
from tests import oracles

# Ours and JAX's.
ACTIVATIONS = {
    "relu": (jaxcnn.relu, jax.nn.relu),
    "leaky_relu": (activations.leaky_relu, jax.nn.leaky_relu),
    "leaky_relu, rising": (
        functools.partial(activations.leaky_relu, negative_slope=-0.5),
        functools.partial(jax.nn.leaky_relu, negative_slope=-0.5),
    ),
    "elu": (activations.elu, jax.nn.elu),
    "elu, deeper": (
        functools.partial(activations.elu, alpha=1.5),
        functools.partial(jax.nn.elu, alpha=1.5),
    ),
    "hard_swish": (activations.hard_swish, jax.nn.hard_swish),
    "sigmoid": (activations.sigmoid, jax.nn.sigmoid),
    "tanh": (activations.tanh, jnp.tanh),
    "softplus": (activations.softplus, jax.nn.softplus),
    "softplus, sharper": (
        functools.partial(activations.softplus, beta=3, threshold=2.0),
        lambda x: jnp.where(3 * x > 2, x, jax.nn.softplus(3 * x) / 3),
    ),
    "silu": (activations.silu, jax.nn.silu),
    "gelu": (
        activations.gelu,
        functools.partial(jax.nn.gelu, approximate=False),
    ),
    "gelu by tanh": (
        functools.partial(activations.gelu, approximate="tanh"),
        jax.nn.gelu,
    ),
    "softmax": (jaxcnn.softmax, jax.nn.softmax),
    "softmax over the first": (
        functools.partial(jaxcnn.softmax, axis=0),
        functools.partial(jax.nn.softmax, axis=0),
    ),
    "log_softmax": (jaxcnn.log_softmax, jax.nn.log_softmax),
    "log_softmax in the middle": (
        functools.partial(jaxcnn.log_softmax, axis=-2),
        functools.partial(jax.nn.log_softmax, axis=-2),
    ),
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def drawn(rng):
    """Three arrays, with entries on both sides of every kink."""
    return tuple(2 * rng.standard_normal((2, 3, 4)) for _ in range(3))


def close(ours, theirs):
    # A handful of float64 operations on numbers of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@functools.cache
def with_gradients(name):
    """A function of x and dy, compiled: by our rule, by autodiff of ours, and by JAX's."""
    ours, jaxs = ACTIVATIONS[name]

    def of_all(x, dy):
        def with_gradient(activation):
            y, pullback = jax.vjp(activation, x)
            return y, *pullback(dy)

        plain = functools.partial(ours, derivatives="autodiff")
        return tuple(map(with_gradient, (ours, plain, jaxs)))

    return jax.jit(of_all)


@every_activation
def test_values_and_gradients_are_those_of_jax(rng, name):
    x, dy, _ = drawn(rng)
    ours, plain, jaxs = with_gradients(name)(x, dy)
    close(ours, jaxs)
    close(plain, jaxs)


@every_activation
def test_second_gradients_are_those_of_jax(rng, name):
    x, dy, direction = drawn(rng)

    def second(activation):
        def slope(x):
            loss = jax.grad(lambda x: jnp.vdot(jnp.sin(activation(x)), dy))
            return jnp.vdot(loss(x), direction)

        return jax.grad(slope)

    ours, jaxs = ACTIVATIONS[name]
    ours, jaxs = jax.device_get(jax.jit(lambda x: (second(ours)(x), second(jaxs)(x)))(x))
    assert np.any(jaxs)
    close(ours, jaxs)


@every_activation
def test_the_gradient_is_what_central_differences_give(rng, name):
    x, dy, direction = drawn(rng)

    def ours(x):
        return with_gradients(name)(x, dy)[0]

    _, dx = ours(x)
    # No entry of x is within 1e-5 of a kink; third derivatives are of order 10.
    np.testing.assert_allclose(
        np.vdot(dx, direction),
        oracles.central_difference(
            lambda x: np.vdot(ours(x)[0], dy), (x,), (direction,), step=1e-5
        ),
        rtol=1e-7,
    )


@every_activation
def test_vmap_is_the_same_at_every_time(rng, name):
    x, dy, _ = drawn(rng)
    xs, dys = np.stack([x, 2 * x, dy]), np.stack([dy, x, x])
    each_time = list(map(with_gradients(name), xs, dys))
    wanted = jax.tree.map(lambda *each: np.stack(each), *each_time)
    close(jax.jit(jax.vmap(with_gradients(name)))(xs, dys), wanted)


@every_activation
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_stay(rng, name, dtype):
    x, dy, _ = (array.astype(dtype) for array in drawn(rng))
    ours, plain, _ = jax.eval_shape(with_gradients(name), x, dy)
    assert {each.dtype for each in (*ours, *plain)} == {x.dtype}


@every_activation
def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng, name):
    x, *_ = drawn(rng)
    ours, _ = ACTIVATIONS[name]
    close(*oracles.in_both_modes(rng, ours, x))


# --- Kinks and extremes ---------------------------------------------------------------

AT_THE_KINKS = [
    # The activation, where it has a kink, and the derivative that PyTorch gives it there.
    (activations.leaky_relu, 0.0, 0.01),
    (activations.leaky_relu, -0.0, 0.01),
    (functools.partial(activations.leaky_relu, negative_slope=3), 0.0, 3),
    (functools.partial(activations.elu, alpha=1.5), 0.0, 1.5),
    (functools.partial(activations.elu, alpha=1.5), -0.0, 1.5),
    (activations.hard_swish, -3.0, 0),
    (activations.hard_swish, 3.0, 1),
    (functools.partial(activations.softplus, threshold=0), 0.0, 0.5),
]


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize(("activation", "kink", "wanted"), AT_THE_KINKS)
def test_the_derivative_at_a_kink_is_the_stated_one(activation, kink, wanted, derivatives):
    slope = jax.grad(functools.partial(activation, derivatives=derivatives))
    assert jax.jit(slope)(kink) == wanted


# What y and y' tend to at both ends: a slope times x, or a constant where that is 0.
FAR_OUT = {
    "relu": ((0, 0), (1, 0)),
    "leaky_relu": ((0.01, 0), (1, 0)),
    "elu": ((0, -1), (1, 0)),
    "hard_swish": ((0, 0), (1, 0)),
    "sigmoid": ((0, 0), (0, 1)),
    "tanh": ((0, -1), (0, 1)),
    "softplus": ((0, 0), (1, 0)),
    "silu": ((0, 0), (1, 0)),
    "gelu": ((0, 0), (1, 0)),
    "gelu by tanh": ((0, 0), (1, 0)),
}


@functools.cache
def to_second_order(name):
    """A function of a number, compiled: value, slopes and second derivatives by both.

    Each derivative is that of either mode.
    """

    def of_both(x):
        def by(derivatives):
            activation = functools.partial(ACTIVATIONS[name][0], derivatives=derivatives)
            slope, one = jax.grad(activation), jnp.ones_like(x)
            y, moved = jax.jvp(activation, (x,), (one,))
            dx, second = jax.jvp(slope, (x,), (one,))
            return y, (moved, dx), (second, jax.grad(slope)(x))

        return {each: by(each) for each in ("custom", "autodiff")}

    return jax.jit(of_both)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (dtype, size)
        for dtype, sizes in {
            "float64": (1e4, 1e18, 3e38, 1e154, 1.7e308, np.inf),
            "float32": (1e4, 1e18, 1e20, 1e25, 3e38, np.inf),
            "bfloat16": (2.0**16, 2.0**60, 2.0**127, np.inf),
            "float16": (65504, np.inf),
        }.items()
        for size in sizes
    ],
)
@pytest.mark.parametrize("name", FAR_OUT)
def test_far_out_nothing_overflows(name, dtype, size, derivatives):
    for sign, (slope, constant) in zip((-1, 1), FAR_OUT[name], strict=True):
        x = np.asarray(sign * size, dtype)
        y, dx, ddx = jax.device_get(to_second_order(name)(x)[derivatives])
        # One rounding of x, one of y, one of the slope.
        close_to = functools.partial(
            np.testing.assert_allclose, rtol=2 * float(jnp.finfo(dtype).eps)
        )
        close_to(np.float64(y), sign * slope * size + constant if slope else constant)
        assert all(each == np.asarray(slope, dtype) for each in dx)
        assert all(each == 0 for each in ddx)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("name", FAR_OUT)
def test_a_nan_stays_one(name, derivatives):
    y, *_ = to_second_order(name)(np.nan)[derivatives]
    assert np.isnan(y)


WHAT_IS_KEPT = {
    "leaky_relu": "bool",
    "elu": "x",
    "hard_swish": "x",
    "sigmoid": "y",
    "tanh": "y",
    "softplus": "x",
    "silu": "x",
    "gelu": "x",
    "gelu by tanh": "x",
}


@pytest.mark.parametrize("name", WHAT_IS_KEPT)
def test_half_precision_is_rounded_once(rng, name):
    x, dy, _ = (array.astype("bfloat16") for array in drawn(rng))
    (y, dx), *_ = with_gradients(name)(x, dy)
    *_, (wanted, dx_wanted) = with_gradients(name)(
        x.astype("float64"), dy.astype("float64")
    )
    # Half a unit in the last place, a hundredth more for what float32 leaves, and for what
    # float32 loses in the tails of erfc and where 1 + tanh nearly vanishes.
    rounded_once = {"rtol": 1.01 * float(jnp.finfo("bfloat16").eps) / 2, "atol": 1e-7}
    np.testing.assert_allclose(np.float64(y), wanted, **rounded_once)
    if WHAT_IS_KEPT[name] != "y":  # whose rounding would come on top
        np.testing.assert_allclose(np.float64(dx), dx_wanted, **rounded_once)


@pytest.mark.parametrize("name", WHAT_IS_KEPT)
def test_the_rule_keeps_one_array(rng, name):
    x, *_ = drawn(rng)
    y, pullback = jax.jit(functools.partial(jax.vjp, ACTIVATIONS[name][0]))(x)
    (kept,) = jax.tree.leaves(pullback)
    wanted = {"bool": x > 0, "x": x, "y": y}[WHAT_IS_KEPT[name]]
    assert kept.dtype == wanted.dtype
    np.testing.assert_array_equal(kept, wanted)


# --- ReLU -----------------------------------------------------------------------------


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_the_derivative_of_relu_is_the_documents(derivatives):
    # 1 if x > 0, else 0: the kink belongs to the 0, whichever sign it has.
    x = np.array([-np.inf, -1, -0.0, 0.0, 5e-324, 1, np.inf])
    by_rule, plain, _ = with_gradients("relu")(x, np.full_like(x, 3))
    y, dx = map(np.asarray, by_rule if derivatives == "custom" else plain)
    np.testing.assert_array_equal(y[[0, 1, 2, 3, 5, 6]], [0, 0, 0, 0, 1, np.inf])
    np.testing.assert_array_equal(dx[[0, 1, 2, 3, 5, 6]], [0, 0, 0, 0, 3, 3])


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_relu_passes_a_nan_on_but_no_gradient_to_it(derivatives):
    relu = functools.partial(jaxcnn.relu, derivatives=derivatives)
    y, pullback = jax.vjp(relu, jnp.array([np.nan, 1.0]))
    np.testing.assert_array_equal(y, [np.nan, 1])
    np.testing.assert_array_equal(pullback(jnp.array([5.0, 7.0]))[0], [0, 7])


def test_relu_keeps_one_truth_value_for_each_element(rng):
    x, *_ = drawn(rng)
    _, pullback = jax.eval_shape(functools.partial(jax.vjp, jaxcnn.relu), x)
    (kept,) = jax.tree.leaves(pullback)
    assert (kept.dtype, kept.shape) == (jnp.bool, x.shape)


# --- Softmax and its logarithm --------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_extreme_logits_overflow_nowhere(dtype):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype)
    (y, dx), *_ = jax.device_get(with_gradients("softmax")(x, x))
    np.testing.assert_array_equal(y[0].astype("float32"), [1, 0, 0])
    assert np.isfinite(dx.astype("float32")).all()
    (y, dx), *_ = jax.device_get(with_gradients("log_softmax")(x, x))
    # −1e4 is rounded in half precision, and −2e4 doubles the rounded number.
    smallest = x[0, 1].astype("float32")
    np.testing.assert_array_equal(y[0].astype("float32"), [0, 2 * smallest, smallest])
    assert np.isfinite(y.astype("float32")).all()
    assert np.isfinite(dx.astype("float32")).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_half_precision_is_summed_in_float32(rng, name):
    x = rng.standard_normal((3, 500)).astype("bfloat16")
    ours, reference = map(jax.jit, ACTIVATIONS[name])
    # Half a unit in the last place, a hundredth more for the sums in float32.
    np.testing.assert_allclose(
        np.float64(ours(x)),
        reference(x.astype("float64")),
        rtol=1.01 * float(jnp.finfo("bfloat16").eps) / 2,
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_probabilities_add_up_to_one_along_the_axis(rng, axis):
    x, *_ = drawn(rng)

    @jax.jit
    def both(x):
        return jaxcnn.softmax(x, axis=axis), jaxcnn.log_softmax(x, axis=axis)

    y, log_y = jax.device_get(both(x))
    total = y.sum(axis)
    close(total, np.ones(total.shape))
    close(np.exp(log_y), y)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_of_no_logits_there_are_no_probabilities(name, shape):
    x = np.zeros(shape)
    (y, dx), *_ = with_gradients(name)(x, x)
    assert y.shape == dx.shape == shape
