"""The equations in plain NumPy, with a Python loop for every index.

Nothing of jaxcnn is used here: every index is computed anew, as docs/equations.md has it.

A ``window`` is anything with ``kernel_size``, ``stride``, ``padding`` (low, high) and
``dilation``, one entry for each spatial dimension. Arrays are in any layout; the loops are
written for channels-first arrays, as the equations are.

Dimension key: B batch, C channels, H input size, K kernel size, m tap, i output position,
k input position, o output channel, c input channel within its group.
"""

import itertools
import math
import operator

import numpy as np

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
        input_size,
        window.kernel_size,
        window.stride,
        window.padding,
        window.dilation,
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
