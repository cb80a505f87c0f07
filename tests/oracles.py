"""What jaxcnn is compared with: the document's loops, XLA, and finite differences.

Three kinds of reference, each independent of the others:

* the document's equations in plain NumPy, with a Python loop for every index. Nothing of
  jaxcnn is used here: every index is computed anew, as the document writes it;
* XLA's convolution and pooling, as ``jax.lax`` offers them (the names with ``lax_``);
* central differences in float64.

A ``window`` is anything with ``kernel_size``, ``stride``, ``padding`` (low, high) and
``dilation``, one entry for each spatial dimension. Arrays are in any layout; the loops are
written for channels-first arrays, as the document's equations are.

Dimension key: B batch, C channels, H input size, K kernel size, m tap, i output position,
k input position, o output channel, c input channel within its group.
"""

import itertools
import math
import operator

import jax.numpy as jnp
import numpy as np
from jax import lax

# --- Layouts --------------------------------------------------------------------------


def weight_letters(layout):
    positions = layout.replace("N", "").replace("C", "")
    return f"{positions}IO" if layout.endswith("C") else f"OI{positions}"


def channels_first(array, layout):
    """Images, as (B, C, …)."""
    array = np.asarray(array)
    return np.moveaxis(array, -1, 1) if layout.endswith("C") else array


def in_layout(array, layout):
    """Images from (B, C, …)."""
    return np.moveaxis(array, 1, -1) if layout.endswith("C") else array


def outputs_first(w, layout):
    """Weights, as (C_out, C_in, …)."""
    w = np.asarray(w)
    return np.moveaxis(w, (-1, -2), (0, 1)) if layout.endswith("C") else w


def weights_in_layout(w, layout):
    """Weights from (C_out, C_in, …)."""
    return np.moveaxis(w, (0, 1), (-1, -2)) if layout.endswith("C") else w


# --- Where a window lies --------------------------------------------------------------


def positions(size):
    """Every position, in row-major order."""
    return itertools.product(*map(range, size))


def output_size(input_size, window):
    """How many steps the window can take, counted."""
    entries = zip(
        *(input_size, window.kernel_size, window.stride, window.padding, window.dilation),
        strict=True,
    )
    return tuple(
        sum(start + d * (k - 1) < h + high for start in range(-low, h + high, s))
        for h, k, s, (low, high), d in entries
    )


def met_at(i, m, window):
    """The input position that tap m meets at output position i: s·i + d·m − p."""
    entries = zip(i, m, window.stride, window.padding, window.dilation, strict=True)
    return tuple(s * i + d * m - low for i, m, s, (low, _), d in entries)


def fed_at(k, m, window, out):
    """The output position that input position k feeds through tap m, if there is one."""
    entries = zip(k, m, window.stride, window.padding, window.dilation, strict=True)
    divided = [divmod(k + low - d * m, s) for k, m, s, (low, _), d in entries]
    i = tuple(quotient for quotient, _ in divided)
    aligned = all(remainder == 0 for _, remainder in divided)
    return i if aligned and is_inside(i, out) else None


def is_inside(k, size):
    return all(0 <= entry < h for entry, h in zip(k, size, strict=True))


def seen_from(i, window, input_size):
    """The input positions that the window sees from output position i, in order."""
    met = (met_at(i, m, window) for m in positions(window.kernel_size))
    return [k for k in met if is_inside(k, input_size)]


# --- Convolution, by loops ------------------------------------------------------------


def convolution(x, w, b, window, groups, layout):
    """Y[b, o, i] = Σ_c Σ_m W[o, c, m] · X[b, c, s·i + d·m − p] + b[o]"""
    x, w = channels_first(x, layout), outputs_first(w, layout)
    batch, _, *size = x.shape
    c_out, c_in, *kernel = w.shape
    out = output_size(size, window)
    y = np.zeros((batch, c_out, *out), x.dtype)
    for o, c, m in itertools.product(range(c_out), range(c_in), positions(kernel)):
        channel = o // (c_out // groups) * c_in + c
        for i in positions(out):
            k = met_at(i, m, window)
            if is_inside(k, size):
                y[(slice(None), o, *i)] += w[(o, c, *m)] * x[(slice(None), channel, *k)]
    if b is not None:
        for o in range(c_out):
            y[:, o] += np.asarray(b)[o]
    return in_layout(y, layout)


def bias_gradient(dy, layout):
    """db[o] = Σ_b Σ_i dY[b, o, i]"""
    dy = channels_first(dy, layout)
    return np.array([dy[:, o].sum() for o in range(dy.shape[1])], dy.dtype)


def weight_gradient(x, dy, window, groups, layout):
    """dW[o, c, m] = Σ_b Σ_i dY[b, o, i] · X[b, c, s·i + d·m − p]"""
    x, dy = channels_first(x, layout), channels_first(dy, layout)
    _, all_c_in, *size = x.shape
    _, c_out, *out = dy.shape
    c_in = all_c_in // groups
    dw = np.zeros((c_out, c_in, *window.kernel_size), x.dtype)
    for o, c, m in itertools.product(*map(range, dw.shape[:2]), positions(dw.shape[2:])):
        channel = o // (c_out // groups) * c_in + c
        for i in positions(out):
            k = met_at(i, m, window)
            if is_inside(k, size):
                seen = x[(slice(None), channel, *k)]
                dw[(o, c, *m)] += (dy[(slice(None), o, *i)] * seen).sum()
    return weights_in_layout(dw, layout)


def input_gradient(dy, w, window, input_size, groups, layout):
    """dX[b, c, k] = Σ_o Σ_m dY[b, o, i] · W[o, c, m], i = (k + p − d·m)/s if whole"""
    dy, w = channels_first(dy, layout), outputs_first(w, layout)
    batch, _, *out = dy.shape
    c_out, c_in, *kernel = w.shape
    dx = np.zeros((batch, c_in * groups, *input_size), dy.dtype)
    for o, c, m in itertools.product(range(c_out), range(c_in), positions(kernel)):
        channel = o // (c_out // groups) * c_in + c
        for k in positions(input_size):
            i = fed_at(k, m, window, out)
            if i is not None:
                dx[(slice(None), channel, *k)] += dy[(slice(None), o, *i)] * w[(o, c, *m)]
    return in_layout(dx, layout)


# --- Patches, by loops ----------------------------------------------------------------


def patches(x, window, layout, dp=None):
    """P (B, taps, C, …), or with the taps before the channels last, and for dP the dX."""
    x = channels_first(x, layout)
    batch, channels, *size = x.shape
    out, taps = output_size(size, window), list(positions(window.kernel_size))
    p = np.zeros((batch, len(taps), channels, *out), x.dtype)
    dx = np.zeros_like(x)
    if dp is not None and layout.endswith("C"):
        dp = np.moveaxis(np.asarray(dp), (-2, -1), (1, 2))
    everything = (slice(None), slice(None))
    for (number, m), i in itertools.product(enumerate(taps), positions(out)):
        k = met_at(i, m, window)
        if is_inside(k, size):
            p[(slice(None), number, slice(None), *i)] = x[(*everything, *k)]
            if dp is not None:
                dx[(*everything, *k)] += dp[(slice(None), number, slice(None), *i)]
    if layout.endswith("C"):
        p = np.moveaxis(p, (1, 2), (-2, -1))
    return p, in_layout(dx, layout)


# --- Pooling, by loops ----------------------------------------------------------------


def first_maximum(values):
    """The index of the first NaN, or else of the first of the largest values."""
    best = 0
    for index, value in enumerate(values):
        if np.isnan(values[best]):
            return best
        if np.isnan(value) or value > values[best]:
            best = index
    return best


def max_pool(x, window, layout, dy=None):
    """Y, and for a gradient dY that arrives, dX: each entry of dY goes to its maximum."""
    x = channels_first(x, layout)
    batch, channels, *size = x.shape
    out = output_size(size, window)
    y = np.zeros((batch, channels, *out), x.dtype)
    dx = np.zeros_like(x)
    dy = np.zeros_like(y) if dy is None else channels_first(dy, layout)
    for b, c, i in itertools.product(range(batch), range(channels), positions(out)):
        seen = seen_from(i, window, size)
        k = seen[first_maximum([x[(b, c, *k)] for k in seen])]
        y[(b, c, *i)] = x[(b, c, *k)]
        dx[(b, c, *k)] += dy[(b, c, *i)]
    return in_layout(y, layout), in_layout(dx, layout)


def average_pool(
    x, window, layout, count_include_pad=True, dy=None, counted=None, divisor=None
):
    """Y, and for a gradient dY that arrives, dX: each entry of dY is shared out evenly.

    What divides is ``divisor``; or how many taps are within so much padding (``counted``);
    or all taps, or those inside.
    """
    x = channels_first(x, layout)
    size = x.shape[2:]
    out = output_size(size, window)
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    dx = np.zeros_like(x)
    dy = np.zeros_like(y) if dy is None else channels_first(dy, layout)
    everything = (slice(None), slice(None))
    for i in positions(out):
        seen = seen_from(i, window, size)
        n = math.prod(window.kernel_size) if count_include_pad else len(seen)
        if counted is not None:
            n = number_within(counted, i, window, size)
        n = n if divisor is None else divisor
        for k in seen:
            y[(*everything, *i)] += x[(*everything, *k)] / n
            dx[(*everything, *k)] += dy[(*everything, *i)] / n
    return in_layout(y, layout), in_layout(dx, layout)


def number_within(counted, i, window, input_size):
    """How many taps meet the input, or so much (low, high) of the padding around it."""
    lows, highs = zip(*counted, strict=True)
    whole = [h + a + b for h, a, b in zip(input_size, lows, highs, strict=True)]
    met = (met_at(i, m, window) for m in positions(window.kernel_size))
    return sum(is_inside(map(operator.add, k, lows), whole) for k in met)


# --- The same through XLA -------------------------------------------------------------


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


# --- Central differences --------------------------------------------------------------


def central_difference(f, arguments, directions, step=1e-4):
    """The derivative of the scalar function f along a direction, without derivatives.

    In float64 the error is about step² from the third derivative, and 1e-16/step from
    rounding: some 1e-8 and 1e-12 for step = 1e-4.
    """

    def at(t):
        moved = (x + t * v for x, v in zip(arguments, directions, strict=True))
        return np.float64(f(*map(jnp.asarray, moved)))

    return (at(step) - at(-step)) / (2 * step)


def along(gradients, directions):
    """What the central difference must be: ⟨gradient, direction⟩."""
    return sum(map(np.vdot, gradients, directions))


# --- A whole network ------------------------------------------------------------------


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
