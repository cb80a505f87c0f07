"""Losses: softmax cross-entropy, P − T, to second order; and what optax computes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
from jaxcnn.layers import losses
from tests import oracles

smoothings = pytest.mark.parametrize("smoothing", [0, 0.1, 1])


def drawn(rng, leading=(4,)):
    """Logits and labels of five classes, and a gradient that arrives."""
    logits = rng.standard_normal((*leading, 5))
    labels = np.asarray(rng.integers(0, 5, leading))
    return logits, labels, np.asarray(rng.standard_normal(leading))


def of_optax(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@functools.cache
def smoothed(smoothing):
    """Ours, and optax's of targets that are smoothed beforehand."""

    def reference(logits, labels):
        one_hot = jax.nn.one_hot(labels, logits.shape[-1])
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing))

    ours = functools.partial(jaxcnn.softmax_cross_entropy, label_smoothing=smoothing)
    return ours, reference


@functools.cache
def with_gradient(loss, derivatives=None):
    """A function of logits, labels and dloss, compiled once for all tests."""
    if derivatives is not None:
        loss = functools.partial(loss, derivatives=derivatives)

    def computed(logits, labels, dloss):
        value, pullback = jax.vjp(lambda z: loss(z, labels), logits)
        return value, *pullback(dloss)

    return jax.jit(computed)


def close(ours, theirs):
    # A handful of float64 operations on numbers of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_values_and_gradients_are_those_of_optax(rng, leading, derivatives):
    ours = with_gradient(jaxcnn.softmax_cross_entropy, derivatives)
    arguments = drawn(rng, leading)
    close(ours(*arguments), with_gradient(of_optax)(*arguments))


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@smoothings
def test_smoothed_labels_are_smoothed_targets(rng, smoothing, derivatives):
    ours, reference = smoothed(smoothing)
    arguments = drawn(rng, (2, 3))
    close(
        with_gradient(ours, derivatives)(*arguments), with_gradient(reference)(*arguments)
    )


def test_without_smoothing_impossible_classes_cost_nothing():
    logits, labels = np.array([[0.0, -np.inf, 0.0]]), np.array([2])
    loss, dz = with_gradient(jaxcnn.softmax_cross_entropy)(logits, labels, np.ones(1))
    close((loss, dz), (np.log([2]), np.array([[0.5, 0, -0.5]])))


def test_the_gradient_is_the_probabilities_less_the_targets(rng):
    logits, labels, _ = drawn(rng)
    gradient = jax.grad(lambda z: jaxcnn.softmax_cross_entropy(z, labels).sum())(logits)
    # Exactly: the subtraction is all that happens to the probabilities.
    targets = np.eye(5)[labels]
    np.testing.assert_array_equal(gradient, np.asarray(jaxcnn.softmax(logits)) - targets)


@smoothings
def test_second_gradients_are_those_of_optax(rng, smoothing):
    ours, reference = smoothed(smoothing)
    logits, labels, dloss = drawn(rng)
    direction = rng.standard_normal(logits.shape)

    def second(loss):
        def slope(z):
            gradient = jax.grad(lambda z: jnp.vdot(jnp.sin(loss(z, labels)), dloss))(z)
            return jnp.vdot(gradient, direction)

        return jax.grad(slope)

    close(*jax.jit(lambda z: (second(ours)(z), second(reference)(z)))(logits))


@smoothings
def test_the_gradient_is_what_central_differences_give(rng, smoothing):
    cross_entropy, _ = smoothed(smoothing)
    logits, labels, dloss = drawn(rng)
    direction = rng.standard_normal(logits.shape)

    compute = with_gradient(cross_entropy)

    def loss(z):
        return np.vdot(compute(z, labels, dloss)[0], dloss)

    _, dz = compute(logits, labels, dloss)
    # Third derivatives of order 1 leave 1e-10, rounding 1e-11, in numbers of order 1.
    np.testing.assert_allclose(
        np.vdot(dz, direction),
        oracles.central_difference(loss, (logits,), (direction,), step=1e-5),
        rtol=1e-7,
    )


def test_vmap_and_jit_are_the_whole_batch(rng):
    logits, labels, dloss = drawn(rng)
    compute = with_gradient(jaxcnn.softmax_cross_entropy)
    close(jax.jit(jax.vmap(compute))(logits, labels, dloss), compute(logits, labels, dloss))


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_compiled_functions_may_close_over_labels(rng, kind):
    logits, labels, _ = drawn(rng)
    labels = kind(labels)
    loss = jax.jit(lambda z: jaxcnn.softmax_cross_entropy(z, labels))
    close(loss(logits), jax.jit(of_optax)(logits, labels))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_extreme_logits_have_finite_losses_and_gradients(dtype):
    logits = np.array([[1e4, -1e4, 0.0]] * 3, dtype)
    compute = with_gradient(jaxcnn.softmax_cross_entropy)
    loss, dz = jax.device_get(compute(logits, np.arange(3), np.ones(3, dtype)))
    largest = float(logits[0, 0])  # 1e4, which half precision rounds
    np.testing.assert_array_equal(loss.astype("float32"), [0, 2 * largest, largest])
    np.testing.assert_array_equal(dz.astype("float32"), [[0, 0, 0], [1, -1, 0], [1, 0, -1]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_stay(rng, dtype):
    logits, labels, dloss = drawn(rng)
    arguments = logits.astype(dtype), labels, dloss.astype(dtype)
    loss, dz = jax.eval_shape(with_gradient(jaxcnn.softmax_cross_entropy), *arguments)
    assert loss.dtype == dz.dtype == jnp.dtype(dtype)


@smoothings
def test_half_precision_is_float32_rounded_once(rng, smoothing):
    cross_entropy, reference = smoothed(smoothing)
    logits, labels, dloss = drawn(rng)
    logits, dloss = logits.astype("bfloat16"), dloss.astype("bfloat16")
    wide = logits.astype("float64"), labels, dloss.astype("float64")
    # One rounding is at most half a unit in the last place; a hundredth more for float32.
    chex.assert_trees_all_close(
        [np.float64(x) for x in with_gradient(cross_entropy)(logits, labels, dloss)],
        [np.float64(x) for x in with_gradient(reference)(*wide)],
        rtol=1.01 * float(jnp.finfo("bfloat16").eps) / 2,
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint32"])
def test_labels_may_be_integers_of_any_type(rng, dtype):
    logits, labels, dloss = drawn(rng)
    compute = with_gradient(jaxcnn.softmax_cross_entropy)
    wanted = compute(logits, labels, dloss)
    close(compute(logits, labels.astype(dtype), dloss), wanted)


def test_an_empty_batch_has_no_losses(rng):
    logits, labels, dloss = drawn(rng, (0,))
    loss, dz = with_gradient(jaxcnn.softmax_cross_entropy)(logits, labels, dloss)
    chex.assert_shape(loss, (0,))
    chex.assert_shape(dz, (0, 5))


def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng):
    logits, labels, _ = drawn(rng)

    def loss(logits):
        return jaxcnn.softmax_cross_entropy(logits, labels)

    close(*oracles.in_both_modes(rng, loss, logits))


# --- Labels that name no class, and examples that do not count ------------------------

BY_BOTH = pytest.mark.parametrize("derivatives", ["custom", "autodiff"])


def derivatives_of(loss, z, direction):
    """The value, and the first and second derivatives in each mode."""

    def of_all(z):
        value, pullback = jax.vjp(loss, z)
        moved = jax.jvp(loss, (z,), (direction,))[1]
        (gradient,) = pullback(jnp.ones_like(value))
        second = jax.jvp(jax.grad(lambda z: loss(z).sum()), (z,), (direction,))[1]
        return value, moved, gradient, second

    return jax.device_get(jax.jit(of_all)(z))


@smoothings
@BY_BOTH
@pytest.mark.parametrize(
    ("dtype", "label"),
    [
        ("int32", -1),
        ("int32", -100),
        ("int8", -1),
        ("uint8", 255),
        ("int32", 5),
        ("int32", 2**31 - 1),
        ("int64", 2**32 + 1),  # 1, were it cut to 32 bits
    ],
)
def test_under_jit_a_label_of_no_class_makes_all_of_its_example_nan(
    rng, dtype, label, derivatives, smoothing
):
    logits, direction = rng.standard_normal((2, 2, 5))

    def loss(z, labels):
        return jaxcnn.softmax_cross_entropy(
            z, labels, derivatives=derivatives, label_smoothing=smoothing
        )

    ours = derivatives_of(
        jax.jit(lambda z: loss(z, jnp.asarray([3, label], dtype))), logits, direction
    )
    wanted = derivatives_of(lambda z: loss(z, jnp.asarray([3, 3])), logits, direction)
    for each, sound in zip(ours, wanted, strict=True):
        assert np.isnan(each[1]).all()
        close(each[0], sound[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_labels_may_have_fewer_values_than_there_are_classes(rng, dtype):
    logits, labels = rng.standard_normal((3, 300)), np.array([0, 10, 127])
    compute = with_gradient(jaxcnn.softmax_cross_entropy)
    wanted = with_gradient(of_optax)(logits, labels, np.ones(3))
    close(compute(logits, labels.astype(dtype), np.ones(3)), wanted)


@smoothings
@BY_BOTH
def test_only_examples_that_count_have_a_loss_and_derivatives(rng, derivatives, smoothing):
    logits, labels, _ = drawn(rng)
    counts = np.array([True, False, True, False])
    direction = rng.standard_normal(logits.shape)
    known = {"derivatives": derivatives, "label_smoothing": smoothing}

    def loss(z, labels, **where):
        return jaxcnn.softmax_cross_entropy(z, labels, **known, **where)

    wanted = derivatives_of(lambda z: loss(z, labels), logits, direction)
    # Whatever does not count may be anything.
    logits[1], logits[3] = np.nan, np.inf
    labels = jnp.where(counts, labels, -100)
    ours = derivatives_of(lambda z: loss(z, labels, where=counts), logits, direction)
    for each, of_all in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(each[~counts], np.zeros_like(of_all[~counts]))
        close(each[counts], of_all[counts])


def test_labels_that_do_not_count_are_not_looked_at(rng):
    logits, labels, _ = drawn(rng)
    labels = np.where([True, False, True, True], labels, -1)
    losses_of_all = jaxcnn.softmax_cross_entropy(logits, labels, where=labels != -1)
    assert losses_of_all[1] == 0
    with pytest.raises(ValueError, match="labels run from -1"):
        jaxcnn.softmax_cross_entropy(logits, labels, where=np.ones(4, bool))


# --- Element by element ---------------------------------------------------------------


def squared_error(y, t):
    return (y - t) ** 2


def cross_entropy_of_two(z, t):
    p = 1 / (1 + np.exp(-z))
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


# The loss, the equation for one element, and that equation's derivatives.
ELEMENTWISE = {
    "mse": (losses.mse_loss, squared_error, lambda y, t: (2 * (y - t), 2 * (t - y))),
    "bce": (
        losses.binary_cross_entropy_with_logits,
        cross_entropy_of_two,
        lambda z, t: (1 / (1 + np.exp(-z)) - t, -z),
    ),
}
REDUCED = {
    "mean": (np.mean, lambda dloss, size: dloss / size),
    "sum": (np.sum, lambda dloss, size: dloss),
    "none": (np.asarray, lambda dloss, size: dloss),
}
every_loss = pytest.mark.parametrize("name", ELEMENTWISE)
every_reduction = pytest.mark.parametrize("reduction", REDUCED)


def drawn_pair(rng):
    """Predictions or logits, and targets between 0 and 1."""
    return rng.standard_normal((3, 5)), rng.random((3, 5))


@functools.cache
def with_gradients(name, reduction):
    """A function of dloss and a pair, compiled once for all tests."""
    loss, *_ = ELEMENTWISE[name]

    def computed(dloss, *pair):
        value, pullback = jax.vjp(functools.partial(loss, reduction=reduction), *pair)
        return value, pullback(dloss)

    return jax.jit(computed)


def shape_of(reduction):
    return (3, 5) if reduction == "none" else ()


@every_reduction
@every_loss
def test_each_elements_loss_is_its_equation(rng, name, reduction):
    _, equation, derivatives = ELEMENTWISE[name]
    reduce, shared_out = REDUCED[reduction]
    y, t = drawn_pair(rng)
    dloss = rng.standard_normal(shape_of(reduction))
    value, gradients = with_gradients(name, reduction)(dloss, y, t)
    close(value, reduce(equation(y, t)))
    share = shared_out(dloss, y.size)
    close(gradients, tuple(share * slope for slope in derivatives(y, t)))


@every_loss
def test_the_mean_is_taken_by_default(rng, name):
    loss, *_ = ELEMENTWISE[name]
    pair = drawn_pair(rng)
    assert loss(*pair) == loss(*pair, reduction="mean")


@every_loss
def test_forward_mode_and_vmap_and_jit_are_jaxs(rng, name):
    loss, *_ = ELEMENTWISE[name]
    operands, tangents = drawn_pair(rng), drawn_pair(rng)
    along = jax.jit(functools.partial(jax.jvp, loss))
    value, slope = along(operands, tangents)
    rows, slopes = jax.device_get(jax.jit(jax.vmap(along))(operands, tangents))
    close((rows.mean(), slopes.mean()), (value, slope))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@every_reduction
@every_loss
def test_halves_of_each_element_are_rounded_once(rng, name, reduction, dtype):
    compute = with_gradients(name, reduction)
    dloss = np.full(shape_of(reduction), 0.75, dtype)
    halves = [dloss, *(array.astype(dtype) for array in drawn_pair(rng))]
    ours = jax.tree.leaves(compute(*halves))
    assert {array.dtype for array in ours} == {jnp.dtype(dtype)}
    wanted = jax.tree.leaves(compute(*(array.astype("float64") for array in halves)))
    # One rounding is at most half a unit in the last place; a hundredth more for float32.
    chex.assert_trees_all_close(
        [np.float64(array) for array in ours],
        [np.float64(array) for array in wanted],
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=1e-7,
    )


def test_certain_logits_have_finite_losses_and_gradients():
    z, t = np.array([1e4, -1e4, 1e4, -1e4]), np.array([1.0, 0, 0, 1])
    loss, (dz, _) = with_gradients("bce", "none")(np.ones(4), z, t)
    np.testing.assert_array_equal(loss, [0, 0, 1e4, 1e4])
    np.testing.assert_array_equal(dz, [0, 0, 1, -1])


@every_reduction
@every_loss
def test_only_elements_that_count_are_reduced_and_have_derivatives(rng, name, reduction):
    loss, *_ = ELEMENTWISE[name]
    y, t = drawn_pair(rng)
    counts = rng.random(y.shape) < 0.5
    kept = functools.partial(loss, reduction=reduction)
    wanted = derivatives_of(lambda y: kept(y, t[counts]), y[counts], y[counts])
    spoiled = np.where(counts, y, np.nan), np.where(counts, t, np.inf)
    ours = derivatives_of(lambda y: kept(y, spoiled[1], where=counts), spoiled[0], y)
    for each, of_kept in zip(ours, wanted, strict=True):
        assert not each.shape or not np.any(each[~counts])
        close(each[counts] if each.shape else each, of_kept)


@every_loss
def test_the_mean_of_nothing_is_nan_and_so_are_its_derivatives(rng, name):
    loss, *_ = ELEMENTWISE[name]
    y, t = drawn_pair(rng)
    y[0] = t[0]  # where the slope is 0
    nothing = np.zeros(y.shape, bool)
    of_mean = derivatives_of(lambda y: loss(y, t, where=nothing), y, y)
    assert all(np.isnan(each).all() for each in of_mean)
    of_sum = derivatives_of(lambda y: loss(y, t, where=nothing, reduction="sum"), y, y)
    assert not any(map(np.any, of_sum))
