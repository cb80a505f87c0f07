"""What the operations of :mod:`experiments.gradients.operations` are called with.

A function for each family of operations draws, for one configuration, the arguments that
are differentiated by and the options of the call, and says whether the operation is smooth.

Arguments are numbers of so few bits that each is the same in all four precisions, and so is
what a case means. What is compared with finite differences must have a derivative: where an
operation has kinks its arguments are evenly spaced, in random order, and not zero, so that
no step of a difference passes one. The configurations named "ties" are the exception.
"""

import inspect
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from experiments.peers import lax_operations
from jaxcnn.layout import weight_layout, with_spatial

Call = tuple[dict[str, np.ndarray], dict[str, Any], bool]
GAP = 2.0**-6  # between evenly spaced values: 8 times what a difference moves them
SIZES = {1: (9,), 2: (7, 9), 3: (3, 4, 5)}  # of so few pixels that spaced ones are exact


def without_dimension(operation: str) -> str:
    """
    >>> without_dimension("conv2d_bias_gradient"), without_dimension("relu")
    ('conv_bias_gradient', 'relu')
    """
    return re.sub(r"[123]d", "", operation)


def exact(array) -> np.ndarray:
    """The numbers rounded to what bfloat16 and float16 can both hold, as float32."""
    return np.asarray(array).astype(jnp.bfloat16).astype(np.float16).astype(np.float32)


def normal(rng, shape):
    return exact(rng.standard_normal(shape))


def positive(rng, shape):
    return exact(np.abs(rng.standard_normal(shape)) + 0.25)


def steps(rng, shape):
    """No longer than one: along them no entry moves further than it does by itself."""
    return exact(rng.uniform(-1, 1, shape))


def spaced(rng, shape, gap=GAP):
    """Evenly spaced values, half of them negative and none zero, in random order."""
    size = math.prod(shape)
    values = (np.arange(size) - size // 2 + 0.5) * gap
    return rng.permutation(values).reshape(shape).astype(np.float32)


def widely_spaced(rng, shape):
    return spaced(rng, shape, 16 * GAP)


def ties(rng, shape):
    """−1, 0 and 1: zeros for ReLU's kink, and equal maxima in every other window."""
    return rng.integers(-1, 2, shape).astype(np.float32)


def images(rng, batch, channels, size, layout, values=normal):
    entries = [batch if letter == "N" else channels for letter in layout]
    return values(rng, with_spatial(entries, size, layout))


def kernels(rng, outputs, inputs, kernel_size, layout):
    of_weights = weight_layout(layout)
    entries = [outputs if letter == "O" else inputs for letter in of_weights]
    return normal(rng, with_spatial(entries, kernel_size, of_weights))


# --- Convolution ----------------------------------------------------------------------


def convolution(
    rng,
    operation,
    *,
    size: Sequence[int] | None = None,
    kernel_size: Sequence[int] | None = None,
    batch=2,
    channels=(2, 3),
    bias=True,
    layout,
    **options,
):
    """conv, the gradients with respect to its x and w, depthwise and separable ones."""
    n = len(layout) - 2
    size, kernel_size = size or SIZES[n], kernel_size or (3,) * n
    base = without_dimension(operation)
    c_in, c_out = channels
    groups = c_in if base in ("depthwise_conv", "separable_conv") else options.get("groups")
    if groups == c_in:
        c_out = 2 * c_in
    x = images(rng, batch, c_in, size, layout)
    w = kernels(rng, c_out, c_in // (groups or 1), kernel_size, layout)
    options["layout"] = layout
    if base == "separable_conv":
        pointwise = kernels(rng, 3, c_out, (1,) * n, layout)
        arguments = {"x": x, "w_depthwise": w, "w_pointwise": pointwise}
        return arguments | {"b": normal(rng, 3)}, options, True
    if base in ("conv", "depthwise_conv"):
        b = {"b": normal(rng, c_out)} if bias else {}
        return {"x": x, "w": w, **b}, options, True
    forward = partial(lax_operations.conv, **options)
    dy = normal(rng, jax.eval_shape(forward, x, w).shape)
    if base == "conv_weight_gradient":
        return {"x": x, "dy": dy}, options | {"kernel_size": kernel_size}, True
    return {"dy": dy, "w": w}, options | {"input_size": size}, True


def bias_gradient(rng, operation, *, size=None, batch=2, channels=3, layout):
    size = size or SIZES[len(layout) - 2]
    return {"dy": images(rng, batch, channels, size, layout)}, {"layout": layout}, True


def transposed(
    rng, operation, *, size=None, kernel_size=None, batch=2, channels=(4, 2), **options
):
    layout = options["layout"]
    n = len(layout) - 2
    c_in, c_out = channels
    x = images(rng, batch, c_in, size or (3, 4, 2)[:n], layout)
    w = kernels(rng, c_in, c_out, kernel_size or (3,) * n, layout)
    b = normal(rng, c_out * options.get("groups", 1))
    return {"x": x, "w": w, "b": b}, options, True


def unfolding(rng, operation, *, size=None, batch=2, channels=2, **options):
    layout = options["layout"]
    size = size or SIZES[len(layout) - 2]
    x = images(rng, batch, channels, size, layout)
    if operation == "unfold":
        return {"x": x}, options, True
    p = jax.eval_shape(partial(lax_operations.unfold, **options), x)
    return {"p": normal(rng, p.shape)}, options | {"output_size": size}, True


# --- Pooling --------------------------------------------------------------------------


def pooling(
    rng, operation, *, size=None, batch=2, channels=2, values=None, layout, **options
):
    """A pooling over windows, bins or the whole image."""
    size = size or SIZES[len(layout) - 2]
    if values is None:
        values = spaced if "max" in operation else normal
    x = images(rng, batch, channels, size, layout, values)
    return {"x": x}, options | {"layout": layout}, values is not ties


def unpooling(rng, operation, *, kernel_size, layout, **shape):
    """An unpooling, with the indices of an image that was pooled."""
    pool = operation.replace("unpool", "pool")
    image = pooling(rng, pool, layout=layout, **shape)[0]["x"]
    y, indices = getattr(jaxcnn, pool)(
        image, kernel_size, return_indices=True, layout=layout
    )
    options = {"indices": np.asarray(indices), "kernel_size": kernel_size, "layout": layout}
    return {"x": normal(rng, y.shape)}, options, True


# --- The rest -------------------------------------------------------------------------


def elementwise(rng, operation, *, shape=(4, 10), values=widely_spaced, **options):
    return {"x": values(rng, shape)}, options, values is not ties


def softmaxes(rng, operation, *, shape, scale=1, **options):
    return {"x": scale * normal(rng, shape)}, options, True


def dropping(rng, operation, *, shape, p):
    return {"x": normal(rng, shape)}, {"key": jax.random.key(0), "p": p}, True


def dense(rng, operation, *, x_shape, outputs, bias=True):
    arguments = {"x": normal(rng, x_shape), "w": normal(rng, (x_shape[-1], outputs))}
    if bias:
        arguments["b"] = normal(rng, outputs)
    return arguments, {}, True


def cross_entropy(rng, operation, *, shape, scale=1, **options):
    labels = rng.integers(0, shape[-1], shape[:-1], np.int32)
    return {"logits": scale * normal(rng, shape)}, options | {"labels": labels}, True


def loss(rng, operation, *, shape):
    """A loss of two arrays, both of which have a gradient."""
    names = list(inspect.signature(getattr(jaxcnn, operation)).parameters)[:2]
    values = [normal(rng, shape), np.abs(normal(rng, shape)) / 8]
    return dict(zip(names, values, strict=True)), {}, True


def normalization(rng, operation, *, shape, **options):
    """shape is (batch, channels, size), or that of x where there is no layout."""
    if "layout" in options:
        batch, channels, size = shape
        x, w_shape = images(rng, batch, channels, size, options["layout"]), (channels,)
    else:
        x, w_shape = normal(rng, shape), options["normalized_shape"]
    if operation == "batch_norm":
        is_training = options["training"]
        options |= {
            "running_mean": None if is_training else normal(rng, w_shape),
            "running_var": None if is_training else positive(rng, w_shape),
        }
    return {"x": x, "w": normal(rng, w_shape), "b": normal(rng, w_shape)}, options, True
