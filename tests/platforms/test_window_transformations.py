"""Convolution, pooling and patches of every kind under every transformation of JAX.

One call for each kind of rule, with options that are easily lost on the way. What a plain
call computes is proved in test_random_convolution and test_random_pooling; here it is the
reference, called once for each element of a mapped axis. Gradients of gradients are
compared with JAX's own of the same loops, through an engine that only the hand-written
rules can see through.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles

INDICES = np.array([[[3, 0, 5], [1, 4, 2]], [[5, 3, 1], [0, 2, 4]]], np.int32)


def max_unpool(x, **options):
    """max_unpool1d of as many images as x has."""
    indices = INDICES[: len(x)] if x.ndim == 3 else INDICES[0]
    return jaxcnn.max_unpool1d(x, indices, 2, **options)


# (the call, the shapes of its operands, images first)
OPERATIONS = {
    "conv1d": (
        functools.partial(
            jaxcnn.conv1d, padding="CAUSAL", dilation=2, groups=2, padding_mode="circular"
        ),
        ((2, 4, 5), (2, 2, 3), (2,)),
    ),
    "conv_transpose1d": (
        functools.partial(
            jaxcnn.conv_transpose1d, stride=3, padding=((1, -1),), output_padding=1
        ),
        ((2, 2, 3), (2, 1, 2), (1,)),
    ),
    "max_pool1d": (
        functools.partial(
            jaxcnn.max_pool1d, kernel_size=2, padding=1, dilation=2, ceil_mode=True
        ),
        ((2, 2, 6),),
    ),
    "max_unpool1d": (max_unpool, ((2, 2, 3),)),
    "avg_pool3d": (
        functools.partial(
            jaxcnn.avg_pool3d,
            kernel_size=2,
            padding=((1, 0), (0, 1), (1, 1)),
            ceil_mode=True,
            count_include_pad=False,
        ),
        ((2, 1, 2, 3, 2),),
    ),
    "lp_pool1d": (
        functools.partial(
            jaxcnn.lp_pool1d, norm_type=4, kernel_size=2, stride=1, padding=1
        ),
        ((2, 2, 4),),
    ),
    "adaptive_max_pool1d": (
        functools.partial(jaxcnn.adaptive_max_pool1d, output_size=3),
        ((2, 2, 5),),
    ),
    "adaptive_avg_pool2d": (
        functools.partial(jaxcnn.adaptive_avg_pool2d, output_size=(2, None)),
        ((2, 2, 3, 2),),
    ),
    "fold": (
        functools.partial(
            jaxcnn.fold, output_size=5, kernel_size=3, dilation=2, padding=2, layout="NCW"
        ),
        ((2, 6, 5),),
    ),
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
WITH_PARAMETERS = [name for name, (_, shapes) in OPERATIONS.items() if len(shapes) > 1]
WITH_ENGINES = [name for name in OPERATIONS if name != "max_unpool1d"]


def drawn(rng, name, times=()):
    """The operation, its operands and a gradient that arrives; mapped axes first."""
    operation, shapes = OPERATIONS[name]
    operands = [rng.standard_normal((*times, *shape)) for shape in shapes]
    out = jax.eval_shape(operation, *map(np.zeros, shapes)).shape
    return operation, operands, rng.standard_normal((*times, *out))


def at_each_time(function, *columns):
    """Calls, one after the other, whose results are stacked."""
    results = [function(*row) for row in zip(*columns, strict=True)]
    return jax.tree.map(lambda *each: np.stack(each), *results)


@functools.cache
def with_gradients(operation):
    """A function of dy and the operands, compiled once for all tests."""

    def computed(dy, *operands):
        y, pullback = jax.vjp(operation, *operands)
        return y, pullback(dy)

    return jax.jit(computed)


def close(ours, theirs):
    # Float64, some dozens of terms of order 1 to 100, added in another order.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-11, atol=1e-11)


@every_operation
def test_vmap_of_the_gradient_is_the_gradient_at_every_time(rng, name):
    operation, operands, dy = drawn(rng, name, times=(3,))
    function = with_gradients(operation)
    wanted = at_each_time(function, dy, *operands)
    close(jax.jit(jax.vmap(function))(dy, *operands), wanted)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_vmap_may_leave_the_parameters_alone(rng, name):
    operation, (x, *parameters), dy = drawn(rng, name, times=(3,))
    parameters = [each[0] for each in parameters]
    function = with_gradients(operation)
    wanted = at_each_time(lambda dy, x: function(dy, x, *parameters), dy, x)
    mapped = jax.vmap(function, (0, 1, *[None] * len(parameters)))
    close(jax.jit(mapped)(dy, np.moveaxis(x, 0, 1), *parameters), wanted)


def second_gradients(operation, dy, directions, operands):
    """The gradient of the slope, along a direction, of a nonlinear loss."""

    def loss(*operands):
        return jnp.vdot(jnp.sin(operation(*map(jnp.sin, operands))), dy)

    everything = tuple(range(len(operands)))

    def slope(*operands):
        return sum(map(jnp.vdot, jax.grad(loss, everything)(*operands), directions))

    return jax.jit(jax.grad(slope, everything))(*operands)


@every_operation
def test_gradients_of_gradients_are_the_rules_and_agree_with_autodiff(
    rng, opaque_engine, name
):
    operation, operands, dy = drawn(rng, name)
    directions = [rng.standard_normal(each.shape) for each in operands]
    hidden = {"engine": opaque_engine} if name in WITH_ENGINES else {}
    close(
        second_gradients(functools.partial(operation, **hidden), dy, directions, operands),
        second_gradients(
            functools.partial(operation, derivatives="autodiff"), dy, directions, operands
        ),
    )


@every_operation
def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng, name):
    operation, operands, _ = drawn(rng, name)
    close(*oracles.in_both_modes(rng, operation, *operands))


@every_operation
def test_an_empty_batch_has_an_empty_result_and_zero_gradients(rng, name):
    operation, (x, *parameters), dy = drawn(rng, name)
    y, (dx, *gradients) = with_gradients(operation)(dy[:0], x[:0], *parameters)
    chex.assert_equal_shape([y, dy[:0]])
    chex.assert_equal_shape([dx, x[:0]])
    close(gradients, list(map(np.zeros_like, parameters)))
