"""gradcheck: what is right passes, what is wrong is named, what cannot be asked is said."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import gradcheck


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: a user has JAX's defaults, and float32."""


def spaced(*shape):
    """Different numbers, none of them zero, in an order that means nothing."""
    size = math.prod(shape)
    values = np.random.default_rng(0).permutation(np.arange(size) - size / 2 + 0.25)
    return (values / size).reshape(shape).astype(np.float32)


OPERATIONS = {
    "conv2d": (
        lambda x, w, b: jaxcnn.conv2d(x, w, b, stride=2, padding=1, groups=2),
        ((2, 4, 5, 4), (6, 2, 3, 3), (6,)),
    ),
    "conv_transpose2d": (
        lambda x, w: jaxcnn.conv_transpose2d(x, w, stride=2),
        ((2, 3, 4), (2, 3, 3, 2)),
    ),
    "max_pool2d": (lambda x: jaxcnn.max_pool2d(x, 3, stride=2, padding=1), ((2, 5, 6),)),
    "avg_pool2d": (lambda x: jaxcnn.avg_pool2d(x, 2), ((2, 5, 6),)),
    "relu": (jaxcnn.relu, ((3, 4),)),
    "softmax": (jaxcnn.softmax, ((3, 4),)),
    "layer_norm": (
        lambda x, w, b: jaxcnn.layer_norm(x, 7, w, b),
        ((3, 7), (7,), (7,)),
    ),
    "dense": (jaxcnn.dense, ((3, 4), (4, 5), (5,))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_our_operations_pass(name):
    function, shapes = OPERATIONS[name]
    arguments = [spaced(*shape) for shape in shapes]
    check = gradcheck(function, *arguments)
    assert check.ok
    outputs = jax.eval_shape(function, *arguments).size
    for argument, found in zip(arguments, check.arguments, strict=True):
        assert found.checked == argument.size * outputs
        assert (found.dtype, found.shape) == ("float32", argument.shape)
        # Central differences of order 2 with h = 7.6e-6 are good to about 1e-10.
        assert found.worst.error < 1e-8


def test_it_works_under_strict_jax_too():
    function, shapes = OPERATIONS["conv2d"]
    strict = (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    )
    with strict[0], strict[1], strict[2]:
        assert gradcheck(function, *(spaced(*shape) for shape in shapes)).ok


def planted(wrong_input_gradient=None, wrong_weight_gradient=None):
    """A convolution with a padding of 1, whose rule has a mistake."""

    @jax.custom_vjp
    def convolution(x, w):
        return jaxcnn.conv2d(x, w, padding=1)

    def backward(saved, dy):
        x, w = saved
        dx = jaxcnn.conv2d_input_gradient(dy, w, input_size=x.shape[1:], padding=1)
        dw = jaxcnn.conv2d_weight_gradient(x, dy, kernel_size=3, padding=1)
        if wrong_input_gradient:
            dx = wrong_input_gradient(x, w, dy)
        if wrong_weight_gradient:
            dw = wrong_weight_gradient(x, w, dy)
        return dx, dw

    convolution.defvjp(lambda x, w: (convolution(x, w), (x, w)), backward)
    return convolution


def not_rotated(x, w, dy):
    return jaxcnn.conv2d(dy, w.swapaxes(0, 1), padding=1)


def test_a_kernel_that_is_not_rotated_is_found():
    wrong = planted(wrong_input_gradient=not_rotated)
    check = gradcheck(wrong, spaced(2, 4, 5), spaced(3, 2, 3, 3), raises=False)
    assert not check.ok
    of_x, of_w = check.arguments
    assert (of_x.ok, of_w.ok) == (False, True)
    worst = of_x.worst
    assert worst.output.startswith("f[")
    assert worst.input.startswith("x[")
    assert f"{worst.rule:.10g}" in str(check)
    assert f"{worst.difference:.10g}" in str(check)
    assert worst.kink is None


def test_an_off_by_one_in_the_padding_is_found_and_raised():
    def wrong_by(x, w, dy):
        shifted = jnp.roll(x, 1, axis=1)
        return jaxcnn.conv2d_weight_gradient(shifted, dy, kernel_size=3, padding=1)

    wrong = planted(wrong_weight_gradient=wrong_by)
    with pytest.raises(AssertionError, match=r"✗ w: float32\[3,2,3,3\] ∂ f\[.*\] / ∂ w\["):
        gradcheck(wrong, spaced(2, 4, 5), spaced(3, 2, 3, 3))


def test_the_entries_that_are_named_are_those():
    @jax.custom_vjp
    def wrong(tree):
        return {"y": tree["a"] * tree["b"]}

    def backward(tree, dy):
        dy = dy["y"]
        return ({"a": dy * tree["b"], "b": (dy * tree["a"]).at[1, 2].add(3 * dy[1, 2])},)

    wrong.defvjp(lambda tree: (wrong(tree), tree), backward)
    tree = {"a": spaced(2, 4), "b": spaced(2, 4)}
    of_a, of_b = gradcheck(wrong, tree, raises=False).arguments
    assert (of_a.name, of_b.name) == ("tree['a']", "tree['b']")
    assert of_a.ok
    assert not of_b.ok
    assert (of_b.worst.output, of_b.worst.input) == ("f['y'][1, 2]", "tree['b'][1, 2]")
    right = float(tree["a"][1, 2])
    np.testing.assert_allclose(of_b.worst.difference, right, atol=1e-9)
    np.testing.assert_allclose(of_b.worst.rule, right + 3, rtol=1e-12)


def test_a_gradient_that_is_no_number_is_wrong():
    with pytest.raises(AssertionError, match=r"nan by its rule"):
        # The usual trap: the gradient of what was not chosen is 0 · ∞.
        gradcheck(lambda x: jnp.where(x > 1, jnp.log(x - 1), x), jnp.ones(2))


def test_a_kink_is_called_one():
    with pytest.raises(AssertionError, match=r"slope of 0 on its left and of 1 on its"):
        gradcheck(jaxcnn.relu, np.array([0.0, 1.0], np.float32))


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_complex_arguments_are_two_real_ones(mode):
    def f(z, x):
        return z * z.conj() * x.astype(z.dtype) + jnp.exp(z), jnp.abs(z)

    z = (spaced(3) + 1j * spaced(3)).astype(np.complex64)
    of_z, of_x = gradcheck(f, z, spaced(3), mode=mode).arguments
    assert (of_z.dtype, of_z.checked, of_x.checked) == ("complex64", 6 * 9, 3 * 9)

    @jax.custom_jvp
    def wrong(z):
        return z**2

    wrong.defjvp(
        lambda primals, tangents: (primals[0] ** 2, 2 * primals[0] * tangents[0].conj())
    )
    with pytest.raises(AssertionError, match=r"∂ (Re|Im) f\[\d\] / ∂ (Re|Im) z\[\d\]"):
        gradcheck(wrong, z, mode=mode)


def test_integers_and_keys_are_held():
    def f(x, i, flags, key):
        noise = jax.random.normal(key, x.shape, x.dtype)
        return jnp.where(flags, x[i] * noise, 0.0).astype(x.dtype)

    arguments = spaced(3), np.array([2, 0, 1]), np.array([True, False, True])
    found = gradcheck(f, *arguments, jax.random.key(0)).arguments
    assert [each.checked for each in found] == [9, 0, 0, 0]
    assert str(found[1]) == "– i: int64[3] has no derivatives"
    assert all(each.ok for each in found)


def test_forward_mode_is_checked_too():
    check = gradcheck(
        lambda x, w: jaxcnn.conv2d(x, w, derivatives="autodiff"),
        spaced(2, 4, 4),
        spaced(3, 2, 2, 2),
        mode="forward",
    )
    assert check.ok
    with pytest.raises(TypeError, match="derivatives='autodiff'"):
        gradcheck(jaxcnn.conv2d, spaced(2, 4, 4), spaced(3, 2, 2, 2), mode="forward")


def test_a_function_that_looks_at_its_values_is_checked_without_jit():
    def f(x):
        return x * x if x > 0 else -x

    assert gradcheck(f, 3.0, jit=False).ok
    with pytest.raises(jax.errors.TracerBoolConversionError):
        gradcheck(f, 3.0)


def test_large_values_do_not_fail_for_the_rounding_of_their_differences():
    assert gradcheck(lambda x: x + 1e9, spaced(3)).ok


def test_the_users_settings_are_as_before():
    before = jax.config.jax_enable_x64
    gradcheck(jnp.sin, 1.0)
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize(
    ("error", "words", "f", "arguments", "known"),
    [
        (TypeError, r"no floating argument; it has x: int", jnp.sign, (3,), {}),
        (TypeError, r"no floating result; it has f: int", lambda x: 1, (3.0,), {}),
        (
            TypeError,
            r"f\['y'\] is float32 although all floating arguments are float64",
            lambda x: {"y": x.astype(jnp.float32)},
            (3.0,),
            {},
        ),
        (ValueError, r"mode is 'both'; it must be", jnp.sin, (3.0,), {"mode": "both"}),
        (
            ValueError,
            r"10,001 × 10,001 entries; at most 100,000,000",
            jnp.sin,
            (np.ones(10_001),),
            {},
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(error, words, f, arguments, known):
    with pytest.raises(error, match=words):
        gradcheck(f, *arguments, **known)
