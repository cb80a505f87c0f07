"""Activations: values, gradients, second order, and what happens at the edges."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.layers import activations, smooth_activations
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
    "sigmoid": (smooth_activations.sigmoid, jax.nn.sigmoid),
    "tanh": (smooth_activations.tanh, jnp.tanh),
    "softplus": (smooth_activations.softplus, jax.nn.softplus),
    "softplus, sharper": (
        functools.partial(smooth_activations.softplus, beta=3, threshold=2.0),
        lambda x: jnp.where(3 * x > 2, x, jax.nn.softplus(3 * x) / 3),
    ),
    "silu": (smooth_activations.silu, jax.nn.silu),
    "gelu": (
        smooth_activations.gelu,
        functools.partial(jax.nn.gelu, approximate=False),
    ),
    "gelu by tanh": (
        functools.partial(smooth_activations.gelu, approximate="tanh"),
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
    return tuple(jnp.asarray(2 * rng.standard_normal((2, 3, 4))) for _ in range(3))


def close(ours, theirs):
    # A handful of float64 operations on numbers of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@every_activation
def test_values_and_gradients_are_those_of_jax(rng, name):
    x, dy, _ = drawn(rng)

    def with_gradient(activation):
        y, pullback = jax.vjp(activation, x)
        return y, *pullback(dy)

    ours, jaxs = map(with_gradient, ACTIVATIONS[name])
    close(ours, jaxs)
    close(
        with_gradient(functools.partial(ACTIVATIONS[name][0], derivatives="autodiff")), jaxs
    )


@every_activation
def test_second_gradients_are_those_of_jax(rng, name):
    x, dy, direction = drawn(rng)

    def second(activation):
        def slope(x):
            loss = jax.grad(lambda x: jnp.vdot(jnp.sin(activation(x)), dy))
            return jnp.vdot(loss(x), direction)

        return jax.jit(jax.grad(slope))(x)

    ours, jaxs = map(second, ACTIVATIONS[name])
    assert np.any(jaxs)
    close(ours, jaxs)


@every_activation
def test_the_gradient_is_what_central_differences_give(rng, name):
    x, dy, direction = drawn(rng)
    activation, _ = ACTIVATIONS[name]

    def loss(x):
        return jnp.vdot(activation(x), dy)

    # No entry of x is within 1e-5 of a kink; third derivatives are of order 10.
    np.testing.assert_allclose(
        np.vdot(jax.grad(loss)(x), direction),
        oracles.central_difference(loss, (x,), (np.asarray(direction),), step=1e-5),
        rtol=1e-7,
    )


@every_activation
def test_vmap_is_the_same_at_every_time(rng, name):
    x, dy, _ = drawn(rng)
    activation, _ = ACTIVATIONS[name]
    xs, dys = jnp.stack([x, 2 * x, dy]), jnp.stack([dy, x, x])

    def gradient(x, dy):
        return jax.grad(lambda x: jnp.vdot(activation(x), dy))(x)

    wanted = np.stack(list(map(jax.jit(gradient), xs, dys)))
    close(jax.jit(jax.vmap(gradient))(xs, dys), wanted)


@every_activation
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_stay(rng, name, dtype):
    x, dy, _ = (array.astype(dtype) for array in drawn(rng))
    y, pullback = jax.vjp(ACTIVATIONS[name][0], x)
    assert y.dtype == pullback(dy)[0].dtype == x.dtype


@every_activation
def test_forward_mode_works_without_the_rule_alone(rng, name):
    x, x_dot, _ = drawn(rng)
    ours, jaxs = ACTIVATIONS[name]
    plain = functools.partial(ours, derivatives="autodiff")
    close(jax.jvp(plain, (x,), (x_dot,)), jax.jvp(jaxs, (x,), (x_dot,)))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(ours, (x,), (x_dot,))


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
    (functools.partial(smooth_activations.softplus, threshold=0), 0.0, 0.5),
]


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize(("activation", "kink", "wanted"), AT_THE_KINKS)
def test_the_derivative_at_a_kink_is_the_stated_one(activation, kink, wanted, derivatives):
    assert jax.grad(functools.partial(activation, derivatives=derivatives))(kink) == wanted


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


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float64", 1e4), ("float32", 1e4), ("bfloat16", 2.0**16), ("float16", 65504)],
)
@pytest.mark.parametrize("name", FAR_OUT)
def test_far_out_nothing_overflows(name, dtype, size, derivatives):
    activation = functools.partial(ACTIVATIONS[name][0], derivatives=derivatives)
    for sign, (slope, constant) in zip((-1, 1), FAR_OUT[name], strict=True):
        x = jnp.asarray(sign * size, dtype)
        y, dx = jax.value_and_grad(activation)(x)
        # One rounding of y, one of the slope.
        close_to = functools.partial(np.testing.assert_allclose, rtol=jnp.finfo(dtype).eps)
        close_to(np.float64(y), slope * sign * size + constant)
        assert dx == jnp.asarray(slope, dtype)
        assert jax.grad(jax.grad(activation))(x) == 0


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
    activation, reference = ACTIVATIONS[name]
    x, dy, _ = (array.astype("bfloat16") for array in drawn(rng))
    y, pullback = jax.vjp(activation, x)
    wanted, reference_pullback = jax.vjp(reference, x.astype("float64"))
    # Half a unit in the last place, a hundredth more for what float32 leaves, and for what
    # float32 loses in the tails of erfc and where 1 + tanh nearly vanishes.
    rounded_once = {"rtol": 1.01 * float(jnp.finfo("bfloat16").eps) / 2, "atol": 1e-7}
    np.testing.assert_allclose(np.float64(y), wanted, **rounded_once)
    if WHAT_IS_KEPT[name] != "y":  # whose rounding would come on top
        (dx,), (dx_wanted,) = pullback(dy), reference_pullback(dy.astype("float64"))
        np.testing.assert_allclose(np.float64(dx), dx_wanted, **rounded_once)


@pytest.mark.parametrize("name", WHAT_IS_KEPT)
def test_the_rule_keeps_one_array(rng, name):
    x, *_ = drawn(rng)
    y, pullback = jax.vjp(ACTIVATIONS[name][0], x)
    (kept,) = jax.tree.leaves(pullback)
    wanted = {"bool": x > 0, "x": x, "y": y}[WHAT_IS_KEPT[name]]
    assert kept.dtype == wanted.dtype
    np.testing.assert_array_equal(kept, wanted)


# --- ReLU -----------------------------------------------------------------------------


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_the_derivative_of_relu_is_the_documents(derivatives):
    # 1 if x > 0, else 0: the kink belongs to the 0, whichever sign it has.
    x = jnp.array([-np.inf, -1, -0.0, 0.0, 5e-324, 1, np.inf])
    y, pullback = jax.vjp(functools.partial(jaxcnn.relu, derivatives=derivatives), x)
    np.testing.assert_array_equal(y[jnp.array([0, 1, 2, 3, 5, 6])], [0, 0, 0, 0, 1, np.inf])
    (dx,) = pullback(jnp.full_like(x, 3))
    np.testing.assert_array_equal(dx[jnp.array([0, 1, 2, 3, 5, 6])], [0, 0, 0, 0, 3, 3])


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_relu_passes_a_nan_on_but_no_gradient_to_it(derivatives):
    relu = functools.partial(jaxcnn.relu, derivatives=derivatives)
    y, pullback = jax.vjp(relu, jnp.array([np.nan, 1.0]))
    np.testing.assert_array_equal(y, [np.nan, 1])
    np.testing.assert_array_equal(pullback(jnp.array([5.0, 7.0]))[0], [0, 7])


def test_relu_keeps_one_truth_value_for_each_element(rng):
    x, *_ = drawn(rng)
    _, pullback = jax.vjp(jaxcnn.relu, x)
    (kept,) = jax.tree.leaves(pullback)
    assert (kept.dtype, kept.shape) == (jnp.bool, x.shape)


# --- Softmax and its logarithm --------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_extreme_logits_overflow_nowhere(dtype):
    x = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype)
    y, pullback = jax.vjp(jaxcnn.softmax, x)
    np.testing.assert_array_equal(y[0].astype("float32"), [1, 0, 0])
    assert jnp.isfinite(pullback(x)[0]).all()
    y, pullback = jax.vjp(jaxcnn.log_softmax, x)
    # −1e4 is rounded in half precision, and −2e4 doubles the rounded number.
    smallest = x[0, 1].astype("float32")
    np.testing.assert_array_equal(y[0].astype("float32"), [0, 2 * smallest, smallest])
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(pullback(x)[0]).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_half_precision_is_summed_in_float32(rng, name):
    x = jnp.asarray(rng.standard_normal((3, 500)), "bfloat16")
    ours, reference = ACTIVATIONS[name]
    # Half a unit in the last place, a hundredth more for the sums in float32.
    np.testing.assert_allclose(
        np.float64(ours(x)),
        reference(x.astype("float64")),
        rtol=1.01 * float(jnp.finfo("bfloat16").eps) / 2,
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_probabilities_add_up_to_one_along_the_axis(rng, axis):
    x, *_ = drawn(rng)
    total = jaxcnn.softmax(x, axis=axis).sum(axis)
    close(total, np.ones(total.shape))
    close(jnp.exp(jaxcnn.log_softmax(x, axis=axis)), jaxcnn.softmax(x, axis=axis))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_of_no_logits_there_are_no_probabilities(name, shape):
    x = jnp.zeros(shape)
    y, pullback = jax.vjp(getattr(jaxcnn, name), x)
    assert y.shape == pullback(y)[0].shape == shape
