"""Normalization: the equations, their gradients to second order, and running statistics."""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.layers import normalization
from tests import oracles

SIZES = {"N": 4, "C": 6, "D": 3, "H": 2, "W": 5}
GROUPS = 2
MOMENTA = (0, 0.1, 1)


def sharing_a_mean(name, layout):
    """The axes of x over which the mean is taken, within a group of channels."""
    apart = {"batch": "C", "layer": "N", "group": "N", "instance": "NC"}[name]
    return tuple(axis for axis, letter in enumerate(layout) if letter not in apart)


@functools.cache
def equation(name, layout, eps=1e-5):
    """The same by jax.numpy alone, from the definition, for JAX to differentiate."""
    channel, axes = layout.index("C"), sharing_a_mean(name, layout)
    groups = GROUPS if name == "group" else 1
    parameters = layout.replace("N", "") if name == "layer" else "C"

    def normalized(x, w, b):
        parts = [
            (part - jnp.mean(part, axes, keepdims=True))
            / jnp.sqrt(jnp.var(part, axes, keepdims=True) + eps)
            for part in jnp.split(x, groups, channel)
        ]
        shape = [SIZES[letter] if letter in parameters else 1 for letter in layout]
        return jnp.concatenate(parts, channel) * w.reshape(shape) + b.reshape(shape)

    return normalized


@functools.cache
def ours(name, layout, **options):
    """A function of x, w and b."""

    def layer(x, w, b):
        return normalization.layer_norm(x, w.shape, w, b, **options)

    def batch(x, w, b):
        known = {"training": True, "layout": layout, **options}
        return normalization.batch_norm(x, None, None, w, b, **known)[0]

    def group(x, w, b):
        return normalization.group_norm(x, GROUPS, w, b, layout=layout, **options)

    def instance(x, w, b):
        return normalization.instance_norm(x, w, b, layout=layout, **options)

    return {"layer": layer, "batch": batch, "group": group, "instance": instance}[name]


def drawn(rng, name, layout):
    """x, w, b and dy: x with a mean that is not zero."""
    shape = tuple(SIZES[letter] for letter in layout)
    vector = shape[1:] if name == "layer" else (SIZES["C"],)
    x, *others = map(rng.standard_normal, (shape, vector, vector, shape))
    return (2 * x + 1, *others)


def computed(function, dy, *operands):
    y, pullback = jax.vjp(function, *operands)
    return y, *pullback(dy)


@functools.cache
def with_gradients(function):
    """A function of dy and the operands, compiled once for all tests that ask for it."""
    return jax.jit(functools.partial(computed, function))


def close(ours, theirs):
    # Float64, a hundred terms of order 1 added in another order, and divided by a standard
    # deviation of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-11, atol=1e-12)


NAMES = ["batch", "layer", "group", "instance"]
every_name = pytest.mark.parametrize("name", NAMES)
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def slow_if(is_slow, *values):
    return pytest.param(*values, marks=[pytest.mark.slow] if is_slow else [])


def repeats(name, layout, derivatives):
    """Whether the other cases leave nothing for this one to prove.

    layer_norm has no layout, so that channels first are enough. A few layouts are enough
    for instance_norm, which is group_norm, and for autodiff of what the rule computes, too.
    """
    if name == "layer" and layout in ("NWC", "NHWC", "NDHWC"):
        return True
    few = name == "instance" or derivatives == "autodiff"
    return few and layout not in ("NC", "NCHW", "NHWC")


CASES = [
    slow_if(repeats(name, layout, derivatives), name, layout, derivatives)
    for layout in normalization.LAYOUTS
    for name in NAMES
    if (name, layout) != ("instance", "NC")  # which leaves one element to an instance
    for derivatives in ("custom", "autodiff")
]


# --- The equations and their gradients ------------------------------------------------


@pytest.mark.parametrize(("name", "layout", "derivatives"), CASES)
def test_values_and_gradients_are_the_equations(rng, name, layout, derivatives):
    *operands, dy = drawn(rng, name, layout)
    normalized = ours(name, layout, derivatives=derivatives, eps=0.1)
    wanted = with_gradients(equation(name, layout, eps=0.1))(dy, *operands)
    close(with_gradients(normalized)(dy, *operands), wanted)


@every_name
def test_compiled_functions_compute_the_same(rng, name):
    *operands, dy = drawn(rng, name, "NHWC")
    normalized = ours(name, "NHWC", derivatives="custom", eps=0.1)
    plain = computed(normalized, *map(jnp.asarray, (dy, *operands)))
    close(with_gradients(normalized)(dy, *operands), plain)


@every_layout
@every_name
def test_the_gradients_are_what_central_differences_give(rng, name, layout):
    *operands, dy = drawn(rng, name, layout)
    directions = [rng.standard_normal(each.shape) for each in operands]
    compute = with_gradients(ours(name, layout, derivatives="custom", eps=0.1))

    def loss(*operands):
        return np.vdot(compute(dy, *operands)[0], dy)

    _, *gradients = compute(dy, *operands)
    # Third derivatives of order 100 leave 1e-8 · 100 in numbers of order 10.
    np.testing.assert_allclose(
        oracles.along(gradients, directions),
        oracles.central_difference(loss, operands, directions, step=1e-5),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        slow_if(layout == "NHWC" and name in ("layer", "instance"), name, layout)
        for name in NAMES
        for layout in ("NCHW", "NHWC")
    ],
)
def test_second_gradients_are_those_of_the_equations(rng, name, layout):
    *operands, dy = drawn(rng, name, layout)
    directions = [rng.standard_normal(each.shape) for each in operands]

    def second(function):
        def slope(*operands):
            gradient = jax.grad(
                lambda *each: jnp.vdot(jnp.sin(function(*each)), dy), (0, 1, 2)
            )
            return sum(map(jnp.vdot, gradient(*operands), directions))

        return jax.device_get(jax.jit(jax.grad(slope, (0, 1, 2)))(*operands))

    wanted = second(equation(name, layout))
    assert all(map(np.any, wanted))
    close(second(ours(name, layout)), wanted)


@every_name
def test_vmap_is_the_same_at_every_time(rng, name):
    each_time = [drawn(rng, name, "NHWC") for _ in range(3)]
    columns = [np.stack(column) for column in zip(*each_time, strict=True)]

    compute = with_gradients(ours(name, "NHWC", derivatives="custom", eps=0.1))
    results = [compute(dy, *operands) for *operands, dy in each_time]
    wanted = jax.tree.map(lambda *each: np.stack(each), *results)
    *operands, dy = columns
    close(jax.jit(jax.vmap(compute))(dy, *operands), wanted)


@every_name
def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng, name):
    *operands, _ = drawn(rng, name, "NCHW")
    close(*oracles.in_both_modes(rng, ours(name, "NCHW"), *operands))


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("NCHW", "w"),
        ("NCHW", "b"),
        ("NCHW", "wb"),
        slow_if(True, "NHWC", "w"),
        slow_if(True, "NHWC", "b"),
        ("NHWC", "wb"),
    ],
)
@every_name
def test_what_is_not_given_is_one_and_zero(rng, name, layout, missing):
    x, w, b, dy = drawn(rng, name, layout)
    given = {"w": w, "b": b}
    neutral = {"w": np.ones_like(w), "b": np.zeros_like(b)}
    known = {"eps": 0.1} if name == "layer" else {"eps": 0.1, "layout": layout}
    function = {
        "batch": lambda x, **wb: normalization.batch_norm(
            x, None, None, training=True, **known, **wb
        )[0],
        "layer": lambda x, **wb: normalization.layer_norm(x, w.shape, **known, **wb),
        "group": lambda x, **wb: normalization.group_norm(x, GROUPS, **known, **wb),
        "instance": lambda x, **wb: normalization.instance_norm(x, **known, **wb),
    }[name]

    def without(x, given):
        return function(x, **{key: given[key] for key in given if key not in missing})

    filled = {key: (neutral if key in missing else given)[key] for key in given}
    compute = with_gradients(ours(name, layout, derivatives="custom", eps=0.1))
    wanted = compute(dy, x, filled["w"], filled["b"])
    y, dx, gradients = jax.jit(functools.partial(computed, without))(dy, x, given)
    close((y, dx), wanted[:2])
    for key, gradient in zip("wb", wanted[2:], strict=True):
        close(gradients[key], np.zeros_like(w) if key in missing else gradient)


@every_name
def test_the_rule_keeps_x_and_nothing_else_of_its_size(rng, name):
    x, w, b, _ = drawn(rng, name, "NCHW")
    operands = x.astype("bfloat16"), w.astype("float32"), b.astype("float32")
    _, pullback = jax.eval_shape(functools.partial(jax.vjp, ours(name, "NCHW")), *operands)
    kept = jax.tree.leaves(pullback)
    assert [leaf.dtype for leaf in kept if leaf.size >= x.size] == [jnp.bfloat16]


# --- Numbers --------------------------------------------------------------------------


@every_layout
@every_name
def test_a_large_mean_costs_no_digits(rng, name, layout):
    *operands, dy = drawn(rng, name, layout)
    x, *others = (array.astype("float32") for array in (*operands, dy))
    x = x + 1e4
    *wb, dy = others
    wide = [array.astype("float64") for array in (dy, x, *wb)]
    # Numbers of order 1e4 are multiples of 1e-3, and so is a mean that is rounded; the
    # spread is of order 1.
    chex.assert_trees_all_close(
        [np.float64(each) for each in with_gradients(ours(name, layout))(dy, x, *wb)],
        [np.float64(each) for each in with_gradients(equation(name, layout))(*wide)],
        rtol=0.01,
        atol=0.01,
    )


def test_the_variance_of_many_is_right_beside_a_large_mean(rng):
    x = (1e4 + rng.standard_normal((64, 64, 64, 2))).astype("float32")

    @jax.jit
    def statistics_of(x):
        known = {"training": True, "momentum": 1, "layout": "NHWC"}
        before = np.zeros(2, "float32"), np.ones(2, "float32")
        return normalization.batch_norm(x, *before, **known)[1:]

    mean, var = statistics_of(x)
    # A mean is off by at most a unit in its last place, and a variance by its square.
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), "float64"), rtol=0, atol=1e-3)
    np.testing.assert_allclose(var, x.var((0, 1, 2), "float64", ddof=1), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [0, 3, -6e4])
@every_name
def test_constant_images_have_finite_gradients(rng, name, value, dtype):
    x, w, b, dy = (array.astype(dtype) for array in drawn(rng, name, "NCHW"))
    y, *gradients = with_gradients(ours(name, "NCHW"))(dy, np.full_like(x, value), w, b)
    assert all(np.isfinite(np.float64(each)).all() for each in gradients)
    # x − μ is what the rounding of the mean leaves, the same everywhere: with eps on top,
    # the standard deviation is more.
    w, b = (
        np.float64(each[None] if name == "layer" else each.reshape(1, -1, 1, 1))
        for each in (w, b)
    )
    most = 0 if value == 0 else np.abs(w)
    assert (np.abs(np.float64(y) - b) <= most + 2 * float(jnp.finfo(dtype).eps)).all()


@pytest.mark.parametrize(
    ("dtype", "parameters"),
    [
        ("bfloat16", "float32"),
        ("bfloat16", "same"),
        ("float16", "same"),
        slow_if(True, "float16", "float32"),
    ],
)
@every_name
def test_half_precision_is_float32_rounded_once(rng, name, dtype, parameters):
    x, w, b, dy = (array.astype(dtype) for array in drawn(rng, name, "NHWC"))
    if parameters == "float32":
        w, b = w.astype("float32"), b.astype("float32")
    half = with_gradients(ours(name, "NHWC"))(dy, x, w, b)
    assert [each.dtype for each in half] == [each.dtype for each in (x, x, w, b)]
    wide = [array.astype("float64") for array in (dy, x, w, b)]
    # One rounding is at most half a unit in the last place; a hundredth more for float32.
    chex.assert_trees_all_close(
        [np.float64(each) for each in half],
        [np.float64(each) for each in with_gradients(equation(name, "NHWC"))(*wide)],
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=2e-6,
    )


def test_an_empty_batch_has_empty_layers():
    x, w = np.zeros((0, 3)), np.ones(3)
    y, dx, dw = with_gradients(lambda x, w: normalization.layer_norm(x, 3, w))(x, x, w)
    chex.assert_shape([y, dx], (0, 3))
    np.testing.assert_array_equal(dw, np.zeros(3))


def test_groups_of_one_value_are_their_shift(rng):
    x, b = rng.standard_normal((2, 4)), rng.standard_normal(4)
    y = jax.jit(lambda x, b: normalization.group_norm(x, 4, None, b, layout="NC"))(x, b)
    np.testing.assert_array_equal(y, np.broadcast_to(b, (2, 4)))


@every_name
def test_the_batch_may_be_symbolic(rng, name):
    *operands, dy = (array.astype("float32") for array in drawn(rng, name, "NHWC"))
    compute = with_gradients(ours(name, "NHWC"))
    (batch,) = jax.export.symbolic_shape("batch")

    def described(array):
        symbolic = array.ndim == len("NHWC")
        shape = (batch, *array.shape[1:]) if symbolic else array.shape
        return jax.ShapeDtypeStruct(shape, array.dtype)

    exported = jax.export.export(compute)(*map(described, (dy, *operands)))
    # Float32, and sums in whatever order each program has.
    chex.assert_trees_all_close(
        exported.call(dy, *operands), compute(dy, *operands), rtol=1e-4, atol=1e-5
    )


# --- Running statistics ---------------------------------------------------------------


def statistics(rng):
    return rng.standard_normal(6), rng.random(6) + 0.5


@functools.cache
def successors(layout):
    """The running statistics after a batch, for every momentum."""

    def of_every_momentum(x, mean, var, w, b):
        known = {"training": True, "layout": layout}
        return [
            normalization.batch_norm(x, mean, var, w, b, momentum=momentum, **known)[1:]
            for momentum in MOMENTA
        ]

    return jax.jit(of_every_momentum)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("layout", normalization.LAYOUTS)
def test_statistics_take_on_the_share_of_a_batch(rng, layout, momentum):
    x, w, b, _ = drawn(rng, "batch", layout)
    mean, var = statistics(rng)
    found = successors(layout)(x, mean, var, w, b)
    new_mean, new_var = found[MOMENTA.index(momentum)]
    columns = np.moveaxis(x, layout.index("C"), -1).reshape(-1, 6)
    close(new_mean, (1 - momentum) * mean + momentum * columns.mean(0))
    close(new_var, (1 - momentum) * var + momentum * columns.var(0, ddof=1))


@pytest.mark.parametrize("layout", normalization.LAYOUTS)
def test_inference_takes_the_statistics_as_they_are(rng, layout):
    x, w, b, dy = drawn(rng, "batch", layout)
    mean, var = statistics(rng)

    def inferred(x, w, b, mean, var):
        return normalization.batch_norm(x, mean, var, w, b, layout=layout, eps=0.1)

    def wanted(x, w, b):
        first = jnp.moveaxis(x, layout.index("C"), -1).reshape(-1, 6)
        y = w[None] * (first - mean[None]) / jnp.sqrt(var[None] + 0.1) + b[None]
        last = [size for size, letter in zip(x.shape, layout, strict=True) if letter != "C"]
        return jnp.moveaxis(y.reshape(*last, 6), -1, layout.index("C"))

    cotangents = dy, np.zeros(6), np.zeros(6)
    (y, *unchanged), *gradients, dmean, dvar = with_gradients(inferred)(
        cotangents, x, w, b, mean, var
    )
    np.testing.assert_array_equal(unchanged, [mean, var])
    close((y, *gradients), with_gradients(wanted)(dy, x, w, b))
    np.testing.assert_array_equal([dmean, dvar], np.zeros((2, 6)))


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_no_gradient_flows_through_running_statistics(rng, derivatives):
    x, *_ = drawn(rng, "batch", "NCHW")

    def successors(x, mean, var):
        return normalization.batch_norm(
            x, mean, var, training=True, derivatives=derivatives
        )[1:]

    before, cotangents = statistics(rng), statistics(rng)
    _, *gradients = with_gradients(successors)(cotangents, x, *before)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_statistics_that_are_none_stay_none(rng):
    x, *_ = drawn(rng, "batch", "NCHW")
    mean, _ = statistics(rng)
    trained = jax.jit(functools.partial(normalization.batch_norm, training=True))
    y, *nones = trained(x, None, None)
    assert nones == [None, None]
    same, new_mean, none = trained(x, mean, None)
    assert none is None
    assert (new_mean != mean).all()
    np.testing.assert_array_equal(same, y)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("training", [True, False])
def test_statistics_of_half_precision_may_be_float32(rng, dtype, training):
    x = drawn(rng, "batch", "NCHW")[0].astype(dtype)
    computed = functools.partial(normalization.batch_norm, training=training)
    for kept_in in ("float32", dtype):
        mean, var = (each.astype(kept_in) for each in statistics(rng))
        results = jax.eval_shape(computed, x, mean, var)
        assert [each.dtype for each in results] == [dtype, kept_in, kept_in]


def test_training_ends_where_inference_begins(rng):
    # Enough steps on one batch, and the running statistics are the batch's own.
    x, w, b, _ = drawn(rng, "batch", "NCHW")
    mean, var = np.zeros(6), np.ones(6)

    @jax.jit
    def step(mean, var):
        return normalization.batch_norm(x, mean, var, w, b, training=True, momentum=0.5)

    for _ in range(60):
        y, mean, var = step(mean, var)
    n = x.size / 6
    inferred, *_ = jax.jit(normalization.batch_norm)(
        x, mean, np.asarray(var) * (n - 1) / n, w, b
    )
    close(inferred, y)


def test_training_may_not_be_traced(rng):
    x, *_ = drawn(rng, "batch", "NCHW")
    with pytest.raises(TypeError, match=r"training is .* not traced"):
        jax.jit(lambda flag: normalization.batch_norm(x, None, None, training=flag))(True)
