"""gradcheck: what is right passes, what is wrong is named, what cannot be asked is said."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_derivatives import linear_call

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
        # What differences of such functions know of themselves, and a margin of 10.
        assert found.worst.error <= found.worst.tolerance < 1e-9


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
    assert worst.by == ("in reverse mode", "by differences")
    assert f"{worst.found:.12g} in reverse mode" in str(check)
    assert f"{worst.expected:.12g} by differences" in str(check)
    assert worst.note == ""


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
    np.testing.assert_allclose(of_b.worst.expected, right, atol=1e-9)
    np.testing.assert_allclose(of_b.worst.found, right + 3, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-7, 1e-9])
def test_one_entry_that_is_off_by_little_is_found(size):
    def slightly_wrong(x, w, dy):
        right = jaxcnn.conv2d_weight_gradient(x, dy, kernel_size=3, padding=1)
        return right.at[2, 1, 0, 2].add(size * dy[2, 1, 3])

    wrong = planted(wrong_weight_gradient=slightly_wrong)
    check = gradcheck(wrong, spaced(2, 4, 5), spaced(3, 2, 3, 3), raises=False)
    of_x, of_w = check.arguments
    assert of_x.ok
    assert (of_w.worst.output, of_w.worst.input) == ("f[2, 1, 3]", "w[2, 1, 0, 2]")
    np.testing.assert_allclose(of_w.worst.error, size, rtol=1e-2)


def test_a_gradient_that_is_no_number_is_wrong():
    with pytest.raises(AssertionError, match=r"nan in reverse mode"):
        # The usual trap: the gradient of what was not chosen is 0 · ∞.
        gradcheck(lambda x: jnp.where(x > 1, jnp.log(x - 1), x), jnp.ones(2))


def test_a_kink_is_called_one():
    with pytest.raises(AssertionError, match=r"slope of 0 on its left and of 1 on its"):
        gradcheck(jaxcnn.relu, np.array([0.0, 1.0], np.float32))


@pytest.mark.parametrize(
    ("f", "where", "words"),
    [
        (jnp.floor, 1.0, "0 in reverse mode and nan by differences. f has a kink there"),
        (jnp.sign, 0.0, "0 in reverse mode and nan by differences. f jumps there"),
        (jnp.sqrt, 0.0, "inf in reverse mode and nan by differences. f jumps there, or is"),
        (jnp.log, -1.0, "-1 in reverse mode and nan by differences. f is nan there"),
    ],
)
def test_where_there_is_no_derivative_none_is_right(f, where, words):
    check = gradcheck(f, where, mode="reverse", raises=False)
    assert not check.ok
    assert words in str(check)


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


# --- Forward mode ---------------------------------------------------------------------


def with_tangent(tangent, transpose, right=jnp.tan):
    """A function whose two modes have nothing to do with each other.

    The tangent is ``tangent(x, dx)``, and the gradient ``transpose(x, dy)``.
    """

    @jax.custom_jvp
    def f(x):
        return right(x)

    @f.defjvp
    def f_jvp(primals, tangents):
        (x,), (dx,) = primals, tangents
        return right(x), linear_call(tangent, transpose, x, dx)

    return f


def slope(x):
    return 1 + jnp.tan(x) ** 2


def right_rule(x, vector):
    return slope(x) * vector


def off_by_little(x, vector):
    return slope(x) * vector * (1 + 1e-9)


def twice_in_one_place(x, vector):
    return right_rule(x, vector).at[1].multiply(2)


def not_linear(x, vector):
    return slope(x) * jnp.where(vector < 0, 1.1 * vector, vector)


def test_forward_mode_is_checked_too():
    def convolution(x, w):
        return jaxcnn.conv2d(x, w, derivatives="autodiff")

    check = gradcheck(convolution, spaced(2, 4, 4), spaced(3, 2, 2, 2))
    assert [each.mode for each in check.modes if each.worst] == ["reverse", "forward"]
    assert "✓ forward mode: linear in the tangent" in str(check)


@pytest.mark.parametrize("wrong", ["reverse", "forward"])
def test_a_mistake_in_one_mode_is_found_in_it(wrong):
    rules = {"reverse": right_rule, "forward": right_rule, wrong: twice_in_one_place}
    f = with_tangent(rules["forward"], rules["reverse"])
    check = gradcheck(f, spaced(3), raises=False)
    (found,) = check.arguments
    assert (found.worst.output, found.worst.input) == ("f[1]", "x[1]")
    assert found.worst.by == (f"in {wrong} mode", "by differences")
    other = "reverse" if wrong == "forward" else "forward"
    assert gradcheck(f, spaced(3), mode=other).ok
    with pytest.raises(AssertionError, match=f"in {wrong} mode and"):
        gradcheck(f, spaced(3), mode=wrong)


def test_modes_are_compared_where_differences_cannot_tell():
    f = with_tangent(off_by_little, right_rule)
    close_to_the_pole = np.array([np.pi / 2 - 1e-4])
    assert gradcheck(f, close_to_the_pole, mode="forward").ok
    (found,) = gradcheck(f, close_to_the_pole, raises=False).arguments
    assert not found.ok
    assert found.worst.by == ("in forward mode", "in reverse mode")


def test_what_has_no_forward_mode_says_so():
    check = gradcheck(planted(), spaced(2, 4, 5), spaced(3, 2, 3, 3))
    reverse, forward = check.modes
    assert check.ok
    assert reverse.worst
    assert forward.worst is None
    assert "– forward mode: f has none (TypeError: can't apply forward-mode" in str(check)
    with pytest.raises(TypeError, match="forward-mode"):
        gradcheck(planted(), spaced(2, 4, 5), spaced(3, 2, 3, 3), mode="forward")


def test_what_has_no_reverse_mode_is_checked_in_forward_mode_alone():
    def f(x):
        return lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y, x)

    assert gradcheck(f, jnp.ones(2), mode="forward").ok
    with pytest.raises(ValueError, match="Reverse-mode"):
        gradcheck(f, jnp.ones(2))


# --- Linearity ------------------------------------------------------------------------


def test_a_gradient_that_is_wrong_for_negative_cotangents_is_found():
    def wrong_by(x, w, dy):
        right = jaxcnn.conv2d_weight_gradient(x, dy, kernel_size=3, padding=1)
        negative = jaxcnn.conv2d_weight_gradient(
            x, jnp.minimum(dy, 0), kernel_size=3, padding=1
        )
        return right.at[1, 0].add(0.1 * negative[1, 0])

    wrong = planted(wrong_weight_gradient=wrong_by)
    check = gradcheck(wrong, spaced(2, 4, 5), spaced(3, 2, 3, 3), raises=False)
    assert all(each.ok for each in check.arguments)
    worst = check.modes[0].worst
    assert not worst.ok
    assert worst.input.startswith("w[1, 0, ")
    assert worst.by == ("in reverse mode", "by linearity")
    assert "✗ reverse mode: not linear in the cotangent: ∂ ⟨c, f⟩ / ∂ w[1, 0," in str(check)
    assert "c is random and " in str(check)


@pytest.mark.parametrize("wrong", ["reverse", "forward"])
def test_each_mode_must_be_linear(wrong):
    rules = {"reverse": right_rule, "forward": right_rule, wrong: not_linear}
    check = gradcheck(
        with_tangent(rules["forward"], rules["reverse"]), spaced(3), raises=False
    )
    assert check.arguments[0].ok
    assert {each.mode: each.ok for each in check.modes} == {
        "reverse": wrong != "reverse",
        "forward": wrong != "forward",
    }


@pytest.mark.parametrize(
    "rule",
    [
        lambda x, dy: slope(x) * jnp.clip(dy, -1, 1),
        lambda x, dy: slope(x) * dy / jnp.linalg.norm(dy),
        lambda x, dy: slope(x) * jnp.where(abs(dy) < 1e-3, 0, dy),
        lambda x, dy: slope(x) * jnp.where((dy == 0).any(), dy, jnp.nan),
    ],
    ids=["clipped", "of length one", "without what is small", "without a number"],
)
def test_what_is_right_for_units_alone_is_found(rule):
    with pytest.raises(AssertionError, match="not linear in the cotangent"):
        gradcheck(with_tangent(right_rule, rule), spaced(3), mode="reverse")


# --- Right functions pass -------------------------------------------------------------


def hard_functions():
    """By name: a function, and where it is hard to be sure of its derivative."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(6)
    spread = rng.standard_normal((6, 4))

    def batch_norm(x):
        centred = x - x.mean(axis=0, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(axis=0, keepdims=True) + 1e-5)

    return {
        "exp": (jnp.exp, np.array([-20.0, 0.5, 20.0, 300.0])),
        "tan": (jnp.tan, np.pi / 2 - np.array([0.5, 0.01, 1e-4])),
        "power": (lambda x: x**7, np.array([-2.0, 1e-3, 10.0])),
        "inverse": (lambda x: 1 / x, np.array([0.01, -1e-3, 0.5, 1e-10])),
        "root": (jnp.sqrt, np.array([1e-3, 1e-6, 0.5])),
        "logarithm": (jnp.log, np.array([1e-10, 1e-6, 0.5, 1e3])),
        "waves": (lambda x: jnp.sin(100 * x), normal),
        "short waves": (lambda x: jnp.sin(1e6 * x), 1e-6 * normal),
        "far away": (jnp.sin, 1e6 * normal),
        "small wiggle": (lambda x: x + 1e-6 * jnp.sin(1e6 * x), normal),
        "large": (lambda x: 1e8 * jnp.sin(x), normal),
        "small": (lambda x: 1e-8 * jnp.sin(x), normal),
        "small arguments": (jnp.exp, 1e-6 * normal),
        "large and small": (jnp.sin, np.array([1e-17, 1.0, 1e-9, 0.0])),
        "offset": (lambda x: x + 1e9, normal),
        "constant": (lambda x: 0 * x + 3, normal),
        "zero": (lambda x: (x - normal) ** 2, normal),
        "infinite": (lambda x: jnp.where(normal > 0, -jnp.inf, x), normal),
        "kinks nearby": (lambda x: jnp.abs(x) + jnp.maximum(x, 0.3), spread),
        "softmax": (jax.nn.softmax, 10 * spread),
        "saturated": (jax.nn.log_softmax, np.array([[20.0, 0.5, 1.0], [0.0, 1.0, 2.0]])),
        "batch norm": (batch_norm, spread),
        "of large": (batch_norm, 1e6 * spread),
        "of shifted": (batch_norm, 1e3 + spread),
        "determinant": (lambda x: jnp.linalg.det(x.T @ x), spread),
        "complex": (jnp.exp, normal[:3] + 1j * normal[3:]),
        "analytic": (lambda z: (z * z.conj()).real / jnp.sqrt(z), normal[:3] + 2j),
    }


def test_right_functions_pass_where_it_is_hard_to_be_sure():
    functions = hard_functions()
    points = {name: point for name, (_, point) in functions.items()}

    def all_of_them(points):
        return {name: f(points[name]) for name, (f, _) in functions.items()}

    assert gradcheck(all_of_them, points).ok


def test_long_sums_pass():
    def f(x):
        return jnp.stack([x.sum(), jnp.exp(x).sum(), (x * x).sum() ** 0.5, x[::2].sum()])

    assert gradcheck(f, np.random.default_rng(0).standard_normal(1000)).ok


@pytest.mark.parametrize("place", [0, 1])
def test_what_differences_hardly_know_does_not_widen_the_tolerance_of_others(place):
    frequency = np.array([1e6, 1.0])

    def wrong(x, vector):
        derivative = jnp.cos(frequency * x) * vector
        return derivative.at[place].multiply(1 + 1e-8)

    f = with_tangent(wrong, wrong, right=lambda x: jnp.sin(frequency * x) / frequency)
    check = gradcheck(f, np.array([1.0, 1.0]), raises=False)
    assert check.ok == (place == 0)


def test_few_programs_are_compiled():
    programs = []

    def compiled(event, _, **known):
        if event.endswith("backend_compile_duration"):
            programs.append(known.get("fun_name"))

    arguments = [np.arange(1.0, 2.0 + i) for i in range(4)]
    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        gradcheck(lambda *each: [jnp.sin(x) for x in each], *arguments)
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)
    # f close to x; differences; reverse mode; forward mode.
    assert len(programs) == 4


def test_a_function_that_looks_at_its_values_is_checked_without_jit():
    def f(x):
        return x * x if x > 0 else -x

    assert gradcheck(f, 3.0, jit=False).ok
    with pytest.raises(jax.errors.TracerBoolConversionError):
        gradcheck(f, 3.0)


def test_a_step_beyond_the_domain_is_no_error_of_f():
    with jax.debug_nans(True):
        assert gradcheck(jnp.sqrt, np.array([1e-3, 1.0])).ok


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
        (ValueError, r"mode is 'back'; it must be", jnp.sin, (3.0,), {"mode": "back"}),
        (
            TypeError,
            r"no floating argument; it has x: float64\[0",
            jnp.sin,
            (np.ones(0),),
            {},
        ),
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
