"""XLA's convolution and pooling, as ``jax.lax`` offers them, and a network made of them."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.oracles.numpy_loops import weight_letters


def lax_padding(padding, input_size, window):
    """What XLA understands by ``"SAME"``, ``"SAME_LOWER"`` and ``"VALID"``."""
    entries = zip(window.kernel_size, window.dilation, strict=True)
    extent = [d * (k - 1) + 1 for k, d in entries]
    return tuple(lax.padtype_to_pads(input_size, extent, window.stride, padding))


def lax_convolution(x, w, b, window, groups, layout):
    y = lax.conv_general_dilated(
        x,
        w,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=(layout, weight_letters(layout), layout),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )
    if b is None:
        return y
    return y + jnp.reshape(b, [-1 if letter == "C" else 1 for letter in layout])


def lax_max_pool(x, window, layout):
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, **_over_images(window, layout))


def lax_average_pool(x, window, layout, count_include_pad):
    def total(values):
        zero = np.array(0, x.dtype)
        return lax.reduce_window(values, zero, lax.add, **_over_images(window, layout))

    if count_include_pad:
        return total(x) / math.prod(window.kernel_size)
    return total(x) / total(jnp.ones_like(x))


def _over_images(window, layout):
    def over_all_axes(entries, otherwise):
        entries = iter(entries)
        return [otherwise if letter in "NC" else next(entries) for letter in layout]

    return {
        "window_dimensions": over_all_axes(window.kernel_size, 1),
        "window_strides": over_all_axes(window.stride, 1),
        "padding": over_all_axes(window.padding, (0, 0)),
        "window_dilation": over_all_axes(window.dilation, 1),
    }


def lax_small_cnn(parameters, images):
    """The logits of :func:`jaxcnn.models.small_cnn`, with nothing of jaxcnn in it."""
    x = images
    for name in ("conv1", "conv2"):
        w, b = parameters[name]["w"], parameters[name]["b"]
        x = lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = lax.max(x + b.reshape(1, 1, 1, -1), 0.0)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(x.shape[0], -1)
    x = lax.max(x @ parameters["dense1"]["w"] + parameters["dense1"]["b"][None], 0.0)
    return x @ parameters["dense2"]["w"] + parameters["dense2"]["b"][None]
