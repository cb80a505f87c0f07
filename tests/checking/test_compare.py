"""compare: what it says of two functions is true."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
from jaxcnn import compare


def lax_convolution(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "VALID")


def test_a_convolution_beside_lax(rng):
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 3))
    ours = partial(jaxcnn.conv2d, derivatives="autodiff")
    found = compare(ours, lax_convolution, x, w, names=("ours", "lax"), rounds=2)
    titles = ["value", "gradient x", "gradient w", "tangent"]
    titles += ["second derivative x", "second derivative w"]
    assert [each.title for each in found.differences] == titles
    assert found.error < 1e-14  # sums of up to 48 products, in float64
    assert all(ms > 0 for ms in found.milliseconds)
    table = str(found)
    for text in ("ours", "lax", "second derivative w", "ms", "MiB"):
        assert text in table


def test_a_difference_is_where_it_is():
    x = np.arange(6.0).reshape(2, 3)
    found = compare(jnp.sin, lambda x: jnp.sin(x).at[1, 2].add(x[0, 0] + 0.5), x)
    value, gradient, tangent, second = found.differences
    assert value.place == (1, 2)
    np.testing.assert_allclose(value.entries, (np.sin(5), np.sin(5) + 0.5))
    largest = np.sin(2)  # of what it is compared with
    np.testing.assert_allclose(value.error, 0.5 / largest)
    assert gradient.place == (0, 0)
    assert tangent.place == (1, 2)
    assert second.error == 0


def test_what_has_no_second_derivative_says_so():
    @jax.custom_vjp
    def once(x):
        return x**2

    @jax.custom_vjp
    def double(x, dy):
        return 2 * x * dy

    def refuse(*_):
        raise NotImplementedError("once is enough")

    double.defvjp(lambda x, dy: (double(x, dy), None), refuse)
    once.defvjp(lambda x: (once(x), x), lambda x, dy: (double(x, dy),))
    found = compare(once, lambda x: x**2, jnp.ones(2), names=("once", "ever"))
    problems = [each.problem for each in found.differences]
    assert problems[:2] == ["", ""]
    assert problems[2].startswith("once has none: TypeError: can't apply forward-mode")
    assert problems[3] == "once has none: NotImplementedError: once is enough"
    assert found.error == np.inf
    assert "second derivative: once has none" in str(found)


def test_a_tangent_that_is_off_is_found():
    @jax.custom_jvp
    def off(x):
        return jnp.sin(x)

    @off.defjvp
    def off_jvp(primals, tangents):
        (x,), (dx,) = primals, tangents
        return jnp.sin(x), jnp.cos(x) * dx.at[1].multiply(2)

    found = compare(off, jnp.sin, np.arange(3.0), rounds=1)
    wrong = {each.what: each.place for each in found.differences if each.error}
    assert wrong["tangent"] == wrong["gradient"] == (1,)


def test_what_has_no_forward_mode_says_so_and_is_compared_without():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, dy: (2 * x * dy,))
    for pair, who in (
        ((square, jnp.square), "f has none: "),
        ((jnp.square, square), "g has none: "),
        ((square, square), "f has none: .*; g has none: "),
    ):
        found = compare(*pair, np.ones(2), rounds=1)
        (tangent,) = (each for each in found.differences if each.what == "tangent")
        assert re.match(who + "TypeError: can't apply forward-mode", tangent.problem)
        assert found.error == 0
        assert f"tangent: {tangent.problem}" in str(found)


def test_what_has_no_reverse_mode_has_its_tangents_compared():
    def f(x):
        return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y, x)

    found = compare(f, f, np.ones(2), rounds=1)
    problems = {each.what: bool(each.problem) for each in found.differences}
    assert problems == {
        "value": False,
        "gradient": True,
        "tangent": False,
        "second derivative": True,
    }
    assert found.error == np.inf


def test_a_function_without_derivatives_has_its_values_compared():
    found = compare(jnp.sign, lambda x: x // abs(x), np.array([3, -5]))
    assert [each.what for each in found.differences] == ["value"]
    assert found.error == 0


def test_nan_is_nan_and_nothing_else_is():
    x = jnp.array([1.0, jnp.nan])
    assert compare(jnp.sin, jnp.sin, x).differences[0].error == 0
    other = compare(jnp.sin, lambda x: jnp.nan_to_num(jnp.sin(x)), x).differences[0]
    assert other.error == np.inf
    assert other.place == (1,)


def test_trees_and_complex_numbers_are_compared():
    tree = {"z": jnp.array([1 + 2j, 3j]), "n": jnp.arange(2)}

    def f(tree):
        return [tree["z"] ** 2, tree["n"]]

    found = compare(f, f, tree)
    assert [each.title for each in found.differences] == [
        "value [0]",
        "value [1]",
        "gradient tree['z']",
        "tangent [0]",
        "second derivative tree['z']",
    ]
    assert found.error == 0


def test_results_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"a gives float64\[2\] and b gives float64\[\]"):
        compare(jnp.sin, jnp.sum, jnp.ones(2), names=("a", "b"))


@pytest.mark.parametrize(
    ("options", "exception"),
    [
        ({"names": ("ours",)}, TypeError),
        ({"names": "fg"}, TypeError),
        ({"names": ("ours", 2)}, TypeError),
        ({"names": None}, TypeError),
        ({"rounds": 0}, ValueError),
        ({"rounds": 1.5}, ValueError),
    ],
)
def test_options_are_checked_before_anything_is_traced(options, exception):
    def untouched(x):
        raise AssertionError("traced")

    (name,) = options
    with pytest.raises(exception, match=f"{name} is"):
        jaxcnn.compare(untouched, untouched, 1.0, **options)
