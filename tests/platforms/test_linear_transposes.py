"""``jax.linear_transpose`` of all that is linear: which sum is whose transpose.

What the sums compute is proved elsewhere; here it is ⟨c, A·v⟩ = ⟨Aᵀ·c, v⟩, and that Aᵀ is a
sum written by hand.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn

WINDOW = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}
POOLING = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}
X, Y, W, B = (2, 4, 5, 6), (2, 6, 2, 8), (6, 2, 3, 2), (6,)

conv2d = partial(jaxcnn.conv2d, **WINDOW)
conv2d_bias_gradient = jaxcnn.conv2d_bias_gradient
conv2d_weight_gradient = partial(
    jaxcnn.conv2d_weight_gradient, kernel_size=(3, 2), **WINDOW
)
conv2d_input_gradient = partial(jaxcnn.conv2d_input_gradient, input_size=(5, 6), **WINDOW)
conv_transpose2d = partial(jaxcnn.conv_transpose2d, stride=(2, 3), groups=2)
depthwise_conv2d = partial(jaxcnn.depthwise_conv2d, padding=1)
avg_pool2d = partial(jaxcnn.avg_pool2d, **POOLING)
adaptive_avg_pool2d = partial(jaxcnn.adaptive_avg_pool2d, output_size=(3, 4))
unfold = partial(jaxcnn.unfold, **POOLING)
fold = partial(jaxcnn.fold, output_size=(4, 5), kernel_size=(1, 2))
dropout = partial(jaxcnn.dropout, key=jax.random.key(0), p=0.3)


def max_unpool2d(y):
    places = np.arange(y.size).reshape(y.shape) * 7 % 30
    return jaxcnn.max_unpool2d(y, places.astype("int32"), 2, output_size=(5, 6))


# The function, the shapes of its arrays, those that it is linear in (together), and the
# primitives of its transpose.
LINEAR = {
    "conv2d of x": (conv2d, (X, W), [0], {"conv_input_gradient"}),
    "conv2d of w": (conv2d, (X, W), [1], {"conv_weight_gradient"}),
    "conv2d of w and b": (
        conv2d,
        (X, W, B),
        [1, 2],
        {"conv_weight_gradient", "conv_bias_gradient"},
    ),
    "conv2d_bias_gradient": (conv2d_bias_gradient, (Y,), [0], {"conv_bias"}),
    "conv2d_weight_gradient of x": (
        conv2d_weight_gradient,
        (X, Y),
        [0],
        {"conv_input_gradient"},
    ),
    "conv2d_weight_gradient of dy": (
        conv2d_weight_gradient,
        (X, Y),
        [1],
        {"conv_forward"},
    ),
    "conv2d_input_gradient of dy": (conv2d_input_gradient, (Y, W), [0], {"conv_forward"}),
    "conv2d_input_gradient of w": (
        conv2d_input_gradient,
        (Y, W),
        [1],
        {"conv_weight_gradient"},
    ),
    "conv_transpose2d of x": (
        conv_transpose2d,
        ((2, 6, 3, 4), W),
        [0],
        {"conv_forward"},
    ),
    "conv_transpose2d of w and b": (
        conv_transpose2d,
        ((2, 6, 3, 4), W, (4,)),
        [1, 2],
        {"conv_weight_gradient", "conv_bias_gradient"},
    ),
    "depthwise_conv2d of x": (
        depthwise_conv2d,
        (X, (8, 1, 3, 2)),
        [0],
        {"conv_input_gradient"},
    ),
    "depthwise_conv2d of w": (
        depthwise_conv2d,
        (X, (8, 1, 3, 2)),
        [1],
        {"conv_weight_gradient"},
    ),
    "dense of x": (jaxcnn.dense, ((3, 4), (4, 6)), [0], {"conv_input_gradient"}),
    "dense of w and b": (
        jaxcnn.dense,
        ((3, 4), (4, 6), (6,)),
        [1, 2],
        {"conv_weight_gradient", "conv_bias_gradient"},
    ),
    "avg_pool2d": (avg_pool2d, (X,), [0], {"average_pool_gradient"}),
    "adaptive_avg_pool2d": (
        adaptive_avg_pool2d,
        (X,),
        [0],
        {"average_pool_gradient", "collect_windows", "div", "mul"},
    ),
    "global_avg_pool": (
        jaxcnn.global_avg_pool,
        (X,),
        [0],
        {"average_pool_gradient"},
    ),
    "unfold": (unfold, (X,), [0], {"fold"}),
    "fold": (fold, ((2, 6, 16),), [0], {"unfold"}),
    # The places are looked at, and the mask is drawn, by operations of JAX's.
    "max_unpool2d": (
        max_unpool2d,
        ((2, 4, 2, 3),),
        [0],
        {"max_unpool_gradient", "lt", "jit"},
    ),
    "dropout": (dropout, (X,), [0], {"dropout", "jit"}),
}
REARRANGING = {"reshape", "transpose", "squeeze", "broadcast_in_dim"}


@pytest.mark.parametrize("name", LINEAR)
def test_the_transpose_is_the_sum_that_the_equations_say(rng, name):
    function, shapes, linear, primitives = LINEAR[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    c = rng.standard_normal(jax.eval_shape(function, *arrays).shape)

    def transpose(c, arrays):
        def of_some(*some):
            given = dict(zip(linear, some, strict=True))
            return function(*(given.get(k, each) for k, each in enumerate(arrays)))

        return jax.linear_transpose(of_some, *(arrays[k] for k in linear))(c)

    traced = jax.make_jaxpr(transpose)(c, arrays).jaxpr.eqns
    assert {each.primitive.name for each in traced} - REARRANGING == primitives

    @jax.jit
    def products(c, arrays):
        pulled = transpose(c, arrays)
        vectors = [arrays[k] for k in linear]
        return jnp.vdot(c, function(*arrays)), sum(map(jnp.vdot, pulled, vectors))

    # Float64, some hundreds of terms of order 1.
    np.testing.assert_allclose(*products(c, arrays), rtol=1e-11)
