"""The operations of jaxcnn as PyTorch has them, from arrays in the same layouts.

As :mod:`experiments.peers.lax_operations`, whose functions have the same names.
PyTorch's images are channels first, and its paddings the same at both sides: what is
written otherwise is turned around, padded or cropped before and after.
"""

# pyright: reportMissingImports=false

import math
from functools import partial

import jax
import numpy as np
import torch
from torch.nn import functional

from experiments.peers.lax_operations import (
    LackingError,
    channel_by_channel,
    input_shape,
    many,
    weight_shape,
)
from jaxcnn.layout import weight_layout

CHANNELS_FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def derivatives(function, arguments, cotangent, directions):
    """The value of a function, and its gradients and tangents, one for each argument.

    Gradients g are those of ⟨f(arguments), cotangent⟩. They are linear in the cotangent c,
    and the gradient of ⟨g, direction⟩ with respect to c is the tangent along a direction.
    """
    tensors = [torch.tensor(each, requires_grad=True) for each in arguments]
    c = torch.tensor(cotangent, requires_grad=True)
    y = function(*tensors)
    gradients = torch.autograd.grad(y, tensors, c, create_graph=True)
    tangents = [
        torch.autograd.grad(g, c, torch.tensor(direction), retain_graph=True)[0]
        for g, direction in zip(gradients, directions, strict=True)
    ]
    return [each.detach().numpy() for each in (y, *gradients, *tangents)]


def turned(x, layout, other):
    return x.permute([layout.index(letter) for letter in other])


def channels_first(x, layout):
    return turned(x, layout, CHANNELS_FIRST[len(layout) - 2])


def as_given(y, layout):
    return turned(y, CHANNELS_FIRST[len(layout) - 2], layout)


def outputs_first(w, layout):
    return turned(w, weight_layout(layout), weight_layout(CHANNELS_FIRST[len(layout) - 2]))


def for_dimensions(name, layout):
    return getattr(functional, f"{name}{len(layout) - 2}d")


def shifted(y, b, layout):
    return y if b is None else y + b.reshape([-1 if c == "C" else 1 for c in layout])


# --- Padding --------------------------------------------------------------------------


def pairs(padding, size, taps, stride, dilation):
    """(low, high) for each dimension."""
    n = len(size)
    if not isinstance(padding, str):
        return [(p, p) if isinstance(p, int) else p for p in many(padding, n)]
    known = zip(size, taps, many(stride, n), many(dilation, n), strict=True)
    missing = [max((-(-h // s) - 1) * s + d * (k - 1) + 1 - h, 0) for h, k, s, d in known]
    lower = [(each - each // 2, each // 2) for each in missing]
    return lower if padding == "SAME_LOWER" else [pair[::-1] for pair in lower]


def padded(x, around, mode="constant", value=None):
    """x with (low, high) around it, and then cropped where they are negative."""
    for limit in (max, min):
        # PyTorch names the last dimension first.
        pads = [limit(p, 0) for pair in reversed(around) for p in pair]
        if any(pads):
            x = functional.pad(x, pads, "constant" if limit is min else mode, value)
    return x


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
    x, w = channels_first(x, layout), outputs_first(w, layout)
    mode = "constant" if padding_mode == "zeros" else padding_mode
    x = padded(x, pairs(padding, x.shape[2:], w.shape[2:], stride, dilation), mode)
    y = for_dimensions("conv", layout)(x, w, b, stride, 0, dilation, groups)
    return as_given(y, layout)


def conv_weight_gradient(x, dy, *, kernel_size, groups=1, layout, **options):
    shape = weight_shape(x, dy, kernel_size, groups, layout)
    convolve = partial(conv, x, groups=groups, layout=layout, **options)
    return gradient(convolve, shape, dy)


def conv_input_gradient(dy, w, *, input_size, groups=1, layout, **options):
    shape = input_shape(dy, w, input_size, groups, layout)
    convolve = partial(conv, w=w, groups=groups, layout=layout, **options)
    return gradient(convolve, shape, dy)


def gradient(function, shape, cotangent):
    """The gradient by PyTorch's own rule, at zeros; it can be differentiated again."""
    zeros = torch.zeros(shape, dtype=cotangent.dtype, requires_grad=True)
    return torch.autograd.grad(function(zeros), zeros, cotangent, create_graph=True)[0]


def conv_bias_gradient(dy, *, layout):
    shape = [dy.shape[layout.index("C")]]
    return gradient(lambda b: shifted(torch.zeros_like(dy), b, layout), shape, dy)


def conv_transpose(
    x,
    w,
    b=None,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    dilation=1,
    groups=1,
    layout="NCHW",
):
    """The whole result, then cropped."""
    n = len(layout) - 2
    x, w = channels_first(x, layout), outputs_first(w, layout)
    convolve = for_dimensions("conv_transpose", layout)
    y = convolve(x, w, None, stride, groups=groups, dilation=dilation)
    steps = zip(x.shape[2:], many(stride, n), strict=True)
    size = [h * s for h, s in steps]
    around = pairs(padding, size, w.shape[2:], stride, dilation)
    if not isinstance(padding, str):
        extra = many(output_padding, n)
        size = [
            h - low - high + e
            for h, (low, high), e in zip(y.shape[2:], around, extra, strict=True)
        ]
    cropped = zip(size, y.shape[2:], around, strict=True)
    y = padded(y, [(-low, h - whole + low) for h, whole, (low, _) in cropped])
    return shifted(as_given(y, layout), b, layout)


depthwise_conv, separable_conv = channel_by_channel(conv)


def unfold(x, *, kernel_size, stride=1, padding=0, dilation=1, layout):
    images_only(layout)
    x = channels_first(x, layout)
    p = functional.unfold(x, kernel_size, dilation, padding, stride)
    return patches(p, x.shape[1], "CKP", "PKC") if layout.endswith("C") else p


def fold(p, *, output_size, kernel_size, stride=1, padding=0, dilation=1, layout):
    images_only(layout)
    if layout.endswith("C"):
        channels = p.shape[-1] // math.prod(many(kernel_size, 2))
        p = patches(p, channels, "PKC", "CKP")
    x = functional.fold(p, output_size, kernel_size, dilation, padding, stride)
    return as_given(x, layout)


def patches(p, channels, letters, wanted):
    """(N, C·K, P) as (N, P, K·C), and back."""
    split = [channels, -1] if letters.startswith("C") else [-1, channels]
    shape = [*split, p.shape[2]] if letters.startswith("C") else [p.shape[1], *split]
    p = turned(p.reshape(len(p), *shape), f"N{letters}", f"N{wanted}")
    return p.flatten(2, 3) if wanted.startswith("P") else p.flatten(1, 2)


def images_only(layout):
    if len(layout) != 4:
        raise LackingError("PyTorch lays out the patches of images only")


# --- Pooling --------------------------------------------------------------------------


def window_of(x, kernel_size, stride, padding, dilation=1):
    """The window's sizes and steps, and what is to be put around x."""
    n = x.ndim - 2
    kernel_size = many(kernel_size, n)
    stride = many(kernel_size if stride is None else stride, n)
    around = pairs(padding, x.shape[2:], kernel_size, stride, dilation)
    return kernel_size, stride, around


def max_pool(
    x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, layout
):
    x = channels_first(x, layout)
    kernel_size, stride, around = window_of(x, kernel_size, stride, padding, dilation)
    x = padded(x, around, value=-math.inf)
    pool = for_dimensions("max_pool", layout)
    y = pool(x, kernel_size, stride, dilation=dilation, ceil_mode=ceil_mode)
    return as_given(y, layout)


def avg_pool(x, *, kernel_size, stride=None, padding=0, count_include_pad=True, layout):
    x = channels_first(x, layout)
    kernel_size, stride, around = window_of(x, kernel_size, stride, padding)
    pool = partial(
        for_dimensions("avg_pool", layout), kernel_size=kernel_size, stride=stride
    )
    y = pool(padded(x, around))
    if not count_include_pad:
        y = y / pool(padded(torch.ones_like(x), around))
    return as_given(y, layout)


def lp_pool(x, *, norm_type, kernel_size, stride=None, padding=0, layout):
    x = channels_first(x, layout)
    kernel_size, stride, around = window_of(x, kernel_size, stride, padding)
    if len(kernel_size) == 1:
        (kernel_size,), (stride,) = kernel_size, stride
    pool = for_dimensions("lp_pool", layout)
    y = pool(padded(x, around), float(norm_type), kernel_size, stride)
    return as_given(y, layout)


def adaptive_pool(name):
    def pooled(x, *, output_size, layout):
        y = for_dimensions(name, layout)(channels_first(x, layout), output_size)
        return as_given(y, layout)

    return pooled


adaptive_avg_pool = adaptive_pool("adaptive_avg_pool")
adaptive_max_pool = adaptive_pool("adaptive_max_pool")


def global_avg_pool(x, *, layout):
    return channels_first(x, layout).flatten(2).mean(2)


def global_max_pool(x, *, layout):
    return channels_first(x, layout).flatten(2).amax(2)


def max_unpool(x, *, indices, kernel_size, layout):
    indices = channels_first(torch.tensor(np.asarray(indices), dtype=torch.int64), layout)
    unpool = for_dimensions("max_unpool", layout)
    return as_given(unpool(channels_first(x, layout), indices, kernel_size), layout)


# --- Elements and features ------------------------------------------------------------

relu, leaky_relu, elu = functional.relu, functional.leaky_relu, functional.elu
hard_swish, gelu, silu = functional.hardswish, functional.gelu, functional.silu
softplus, sigmoid, tanh = functional.softplus, torch.sigmoid, torch.tanh


def softmax(x, axis=-1):
    return functional.softmax(x, axis)


def log_softmax(x, axis=-1):
    return functional.log_softmax(x, axis)


def dense(x, w, b=None):
    return functional.linear(x, w.T, b)


def dropout(x, *, key, p):
    """With the mask of jax.random: PyTorch's generator is another."""
    is_kept = jax.random.bernoulli(key, np.float32(1 - p), tuple(x.shape))
    return torch.where(torch.tensor(np.asarray(is_kept)), x / (1 - p), 0)


def softmax_cross_entropy(logits, *, labels, label_smoothing=0.0):
    labels = torch.tensor(labels, dtype=torch.int64)
    return functional.cross_entropy(
        logits.movedim(-1, 1), labels, reduction="none", label_smoothing=label_smoothing
    )


mse_loss = functional.mse_loss
binary_cross_entropy_with_logits = functional.binary_cross_entropy_with_logits


# --- Normalization --------------------------------------------------------------------


def batch_norm(x, w, b, *, running_mean=None, running_var=None, training=False, layout):
    mean, variance = (
        None if each is None else torch.tensor(each, dtype=x.dtype)
        for each in (running_mean, running_var)
    )
    x = channels_first(x, layout)
    return as_given(functional.batch_norm(x, mean, variance, w, b, training), layout)


def layer_norm(x, w, b, *, normalized_shape):
    return functional.layer_norm(x, normalized_shape, w, b)


def group_norm(x, w, b, *, groups, layout):
    return as_given(functional.group_norm(channels_first(x, layout), groups, w, b), layout)


def instance_norm(x, w, b, *, layout):
    y = functional.instance_norm(channels_first(x, layout), weight=w, bias=b)
    return as_given(y, layout)
