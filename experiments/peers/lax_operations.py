"""The operations of jaxcnn as JAX offers them: by lax, jax.nn and optax.

Each has the name of ours, without its dimension, and takes the same arguments: what
:mod:`experiments.gradients.operations` compares, and what the benchmark times. Nothing
of jaxcnn computes here; only the layouts' letters are read by its functions.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcnn.layout import (
    over_channels,
    spatial_axes,
    spatial_size,
    weight_layout,
    with_spatial,
)

PADDING_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class LackingError(Exception):
    """A library has no such operation."""


def many(value, count):
    return (value,) * count if isinstance(value, int) else tuple(value)


def pairs(padding, count):
    """(low, high) for each dimension; a padding by its name is left to XLA."""
    if isinstance(padding, str):
        return padding
    return tuple((p, p) if isinstance(p, int) else p for p in many(padding, count))


# --- Convolution ----------------------------------------------------------------------


def conv(
    x,
    w,
    b=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    padding_mode="zeros",
    layout="NCHW",
):
    n = len(layout) - 2
    if padding_mode != "zeros":
        around = with_spatial([(0, 0)] * (n + 2), pairs(padding, n), layout)
        x, padding = jnp.pad(x, around, PADDING_MODES[padding_mode]), 0
    y = lax.conv_general_dilated(
        x,
        w,
        many(stride, n),
        pairs(padding, n),
        rhs_dilation=many(dilation, n),
        dimension_numbers=(layout, weight_layout(layout), layout),
        feature_group_count=groups,
    )
    return shifted(y, b, layout)


def shifted(y, b, layout):
    return y if b is None else y + over_channels(b, layout)


def weight_shape(x, dy, kernel_size, groups, layout):
    """The shape of the weights of a convolution from x to an output like dy."""
    channels = {
        "O": dy.shape[layout.index("C")],
        "I": x.shape[layout.index("C")] // groups,
    }
    of_weights = weight_layout(layout)
    kernel_size = many(kernel_size, len(layout) - 2)
    return with_spatial([channels.get(i, 0) for i in of_weights], kernel_size, of_weights)


def input_shape(dy, w, input_size, groups, layout):
    """The shape of the input that a convolution turned into an output like dy."""
    channels = w.shape[weight_layout(layout).index("I")] * groups
    shape = [dy.shape[0] if letter == "N" else channels for letter in layout]
    return with_spatial(shape, many(input_size, len(layout) - 2), layout)


def conv_weight_gradient(x, dy, *, kernel_size, groups=1, layout, **options):
    w = jnp.zeros(weight_shape(x, dy, kernel_size, groups, layout), x.dtype)
    convolve = partial(conv, x, groups=groups, layout=layout, **options)
    return jax.vjp(convolve, w)[1](dy)[0]


def conv_input_gradient(dy, w, *, input_size, groups=1, layout, **options):
    x = jnp.zeros(input_shape(dy, w, input_size, groups, layout), w.dtype)
    convolve = partial(conv, w=w, groups=groups, layout=layout, **options)
    return jax.vjp(convolve, x)[1](dy)[0]


def conv_bias_gradient(dy, *, layout):
    b = jnp.zeros(dy.shape[layout.index("C")], dy.dtype)
    return jax.vjp(lambda b: shifted(jnp.zeros_like(dy), b, layout), b)[1](dy)[0]


def conv_transpose(
    x, w, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, layout, **options
):
    """The input gradient of the convolution whose output has x's size."""
    n = len(layout) - 2
    taps = spatial_size(w, weight_layout(layout))
    known = [many(each, n) for each in (stride, dilation, output_padding)]
    size = [
        s * h if isinstance(padding, str) else s * (h - 1) + d * (k - 1) + 1 + extra
        for h, k, s, d, extra in zip(spatial_size(x, layout), taps, *known, strict=True)
    ]
    if not isinstance(padding, str):
        size = [h - sum(p) for h, p in zip(size, pairs(padding, n), strict=True)]
    options |= {"stride": stride, "padding": padding, "dilation": dilation}
    y = conv_input_gradient(x, w, input_size=size, layout=layout, **options)
    return shifted(y, b, layout)


def channel_by_channel(conv: Callable):
    """The depthwise and the separable convolution that a library's convolution makes."""

    def depthwise_conv(x, w, b=None, *, layout, **options):
        groups = x.shape[layout.index("C")]
        return conv(x, w, b, groups=groups, layout=layout, **options)

    def separable_conv(x, w_depthwise, w_pointwise, b=None, *, layout, **options):
        y = depthwise_conv(x, w_depthwise, layout=layout, **options)
        return conv(y, w_pointwise, b, layout=layout)

    return depthwise_conv, separable_conv


depthwise_conv, separable_conv = channel_by_channel(conv)


def unfold(x, *, kernel_size, stride=1, padding=0, dilation=1, layout):
    n = len(layout) - 2
    kernel_size = many(kernel_size, n)
    patches = lax.conv_general_dilated_patches(
        x,
        kernel_size,
        many(stride, n),
        pairs(padding, n),
        rhs_dilation=many(dilation, n),
        dimension_numbers=(layout, weight_layout(layout), layout),
    )
    if layout.endswith("C"):  # taps before channels: as HWIO weights are
        patches = patches.reshape(len(x), -1, x.shape[-1], math.prod(kernel_size))
        return patches.swapaxes(2, 3).reshape(*patches.shape[:2], -1)
    return patches.reshape(*patches.shape[:2], -1)


def fold(p, *, output_size, kernel_size, layout, **options):
    n = len(layout) - 2
    channels = p.shape[1 if layout[1] == "C" else -1] // math.prod(many(kernel_size, n))
    shape = [len(p) if letter == "N" else channels for letter in layout]
    x = jnp.zeros(with_spatial(shape, many(output_size, n), layout), p.dtype)
    lay_out = partial(unfold, kernel_size=kernel_size, layout=layout, **options)
    return jax.vjp(lay_out, x)[1](p)[0]


# --- Pooling --------------------------------------------------------------------------


def pool(x, initial, combine, *, kernel_size, stride=None, padding=0, dilation=1, layout):
    n = len(layout) - 2
    reach = partial(with_spatial, [1] * (n + 2), layout=layout)
    padding = pairs(padding, n)
    if not isinstance(padding, str):
        padding = with_spatial([(0, 0)] * (n + 2), padding, layout)
    return lax.reduce_window(
        x,
        np.array(initial, x.dtype),
        combine,
        reach(many(kernel_size, n)),
        reach(many(kernel_size if stride is None else stride, n)),
        padding,
        window_dilation=reach(many(dilation, n)),
    )


def max_pool(x, **window):
    if window.get("dilation", 1) != 1 or window.get("ceil_mode"):
        raise LackingError("XLA differentiates no dilated maximum, and rounds sizes down")
    return pool(x, -np.inf, lax.max, **window)


def avg_pool(x, *, count_include_pad=True, **window):
    if count_include_pad:
        count = math.prod(many(window["kernel_size"], len(window["layout"]) - 2))
    else:
        count = pool(jnp.ones_like(x), 0, lax.add, **window)
    return pool(x, 0, lax.add, **window) / count


def lp_pool(x, *, norm_type, **window):
    return pool(x**norm_type, 0, lax.add, **window) ** (1 / norm_type)


def adaptive_pool(reduce: Callable):
    """Bins of as equal a size as can be, one dimension after the other."""

    def pooled(x, *, output_size, layout):
        sizes = many(output_size, len(layout) - 2)
        for axis, bins in zip(spatial_axes(layout), sizes, strict=True):
            h = x.shape[axis]
            edges = [(i * h // bins, -(-(i + 1) * h // bins)) for i in range(bins)]
            parts = (lax.slice_in_dim(x, *edge, axis=axis) for edge in edges)
            x = jnp.stack([reduce(part, axis) for part in parts], axis)
        return x

    return pooled


adaptive_avg_pool, adaptive_max_pool = adaptive_pool(jnp.mean), adaptive_pool(jnp.max)


def global_avg_pool(x, *, layout):
    return x.mean(spatial_axes(layout))


def global_max_pool(x, *, layout):
    return x.max(spatial_axes(layout))


def max_unpool(x, *, indices, kernel_size, layout):
    """The inverse of a pooling by windows that lie side by side."""
    n = len(layout) - 2
    sizes = zip(spatial_size(x, layout), many(kernel_size, n), strict=True)
    size = [h * k for h, k in sizes]
    is_last = layout.endswith("C")
    if is_last:
        x, indices = (jnp.moveaxis(each, -1, 1) for each in (x, indices))
    x, indices = (each.reshape(*x.shape[:2], -1) for each in (x, indices))
    image, channel = np.ogrid[: x.shape[0], : x.shape[1]]
    y = jnp.zeros((*x.shape[:2], math.prod(size)), x.dtype)
    y = y.at[image[..., None], channel[..., None], indices].set(x)
    y = y.reshape(*x.shape[:2], *size)
    return jnp.moveaxis(y, 1, -1) if is_last else y


# --- Elements and features ------------------------------------------------------------

relu, silu, sigmoid = jax.nn.relu, jax.nn.silu, jax.nn.sigmoid
hard_swish, tanh = jax.nn.hard_swish, jnp.tanh
softmax, log_softmax = jax.nn.softmax, jax.nn.log_softmax
leaky_relu = jax.nn.leaky_relu


def elu(x, alpha=1.0):
    return jax.nn.elu(x, alpha)


def gelu(x, approximate="none"):
    return jax.nn.gelu(x, approximate == "tanh")


def softplus(x, beta=1.0):
    return jax.nn.softplus(beta * x) / beta


def dense(x, w, b=None):
    y = jnp.matmul(x, w)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


def dropout(x, *, key, p):
    is_kept = jax.random.bernoulli(key, np.float32(1 - p), x.shape)
    return jnp.where(is_kept, x / (1 - p), 0)


def softmax_cross_entropy(logits, *, labels, label_smoothing=0.0):
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(one_hot, label_smoothing)
    )


def mse_loss(predictions, targets):
    return optax.squared_error(predictions, targets).mean()


def binary_cross_entropy_with_logits(logits, targets):
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean()


# --- Normalization --------------------------------------------------------------------


def normalized(x, mean, variance, w, b, eps=1e-5):
    return (x - mean) * lax.rsqrt(variance + eps) * w + b


def over(x, axes):
    return x.mean(axes, keepdims=True), x.var(axes, keepdims=True)


def batch_norm(
    x,
    w,
    b,
    *,
    running_mean: Any = None,
    running_var: Any = None,
    training=False,
    layout,
):
    w, b = over_channels(w, layout), over_channels(b, layout)
    if training:
        axes = tuple(axis for axis, letter in enumerate(layout) if letter != "C")
        return normalized(x, *over(x, axes), w, b)
    mean, variance = (over_channels(each, layout) for each in (running_mean, running_var))
    return normalized(x, mean, variance, w, b)


def layer_norm(x, w, b, *, normalized_shape):
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    return normalized(x, *over(x, axes), w, b)


def group_norm(x, w, b, *, groups, layout):
    channels, axes = layout.index("C"), tuple(range(1, x.ndim))
    parts = [
        normalized(part, *over(part, axes), 1, 0) for part in jnp.split(x, groups, channels)
    ]
    x = jnp.concatenate(parts, channels)
    return x * over_channels(w, layout) + over_channels(b, layout)


def instance_norm(x, w, b, *, layout):
    w, b = over_channels(w, layout), over_channels(b, layout)
    return normalized(x, *over(x, spatial_axes(layout)), w, b)
