"""What the random cases mean to XLA: the answers of ``jax.lax`` and its autodiff.

As :mod:`tests.oracles.with_torch`, whose functions have the same names. Everything is
computed in float64 and channels first.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.layout import LAYOUTS
from tests import oracles
from tests.random_cases.cases import Answer, Window, arrays


def answer(formula, case):
    """What a formula gives for the case's operands, and its gradients."""

    @jax.jit
    def computed(dy, *operands):
        y, pullback = jax.vjp(formula, *operands)
        return y, pullback(dy)

    operands, dy = arrays(case)
    y, gradients = computed(dy, *operands)
    return Answer(np.asarray(y), tuple(map(np.asarray, gradients)))


def layout(x):
    return LAYOUTS[x.ndim - 2][0]


# --- Convolutions ---------------------------------------------------------------------


def extended(x, case):
    """x with its own pixels around it, and the window that slides over that unpadded."""
    if case.padding_mode == "zeros":
        return x, case.window
    mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[
        case.padding_mode
    ]
    for k, (size, pair) in enumerate(zip(x.shape[2:], case.window.padding, strict=True)):
        x = jnp.take(x, np.pad(np.arange(size), pair, mode), k + 2)
    return x, case.window._replace(padding=((0, 0),) * (x.ndim - 2))


def convolution(case):
    def formula(x, w, b=None):
        x, window = extended(x, case)
        return oracles.lax_convolution(x, w, b, window, case.groups, layout(x))

    return answer(formula, case)


def separable_convolution(case):
    def formula(x, w_depthwise, w_pointwise, b=None):
        y = oracles.lax_convolution(
            x, w_depthwise, None, case.window, case.groups, layout(x)
        )
        n = x.ndim - 2
        point = Window((1,) * n, (1,) * n, ((0, 0),) * n, (1,) * n)
        return oracles.lax_convolution(y, w_pointwise, b, point, 1, layout(x))

    return answer(formula, case)


def transposed_convolution(case):
    """The transpose of a convolution, as JAX transposes it."""

    def formula(x, w, b=None):
        def convolution(y):
            return oracles.lax_convolution(y, w, None, case.window, case.groups, layout(x))

        (y,) = jax.linear_transpose(convolution, jnp.zeros(case.out_shape))(x)
        return y if b is None else y + b.reshape(-1, *[1] * (x.ndim - 2))[None]

    return answer(formula, case)


# --- Poolings -------------------------------------------------------------------------


def reduced(x, case, fill, combine):
    """XLA's reduction of what the window sees, over an input padded (or cropped) before."""
    window = case.window
    around = [(0, 0, 0)] * 2 + [(low, high, 0) for low, high in window.padding]
    fill = np.float64(fill)
    return lax.reduce_window(
        lax.pad(x, fill, around),
        fill,
        combine,
        (1, 1, *window.kernel_size),
        (1, 1, *window.stride),
        "VALID",
        window_dilation=(1, 1, *window.dilation),
    )


def max_pooling(case):
    if set(case.window.dilation) != {1}:  # whose gradient XLA lacks
        (x,), dy = arrays(case)
        y, dx = oracles.max_pool(x, case.window, layout(x), dy)
        return Answer(y, (dx,))
    return answer(lambda x: reduced(x, case, -np.inf, lax.max), case)


def max_unpooling(case):
    """Every input that wins a window stays, and has as much gradient as it wins windows."""
    (x,), dy = arrays(case)

    @jax.jit
    def wins_of(x):
        y, pullback = jax.vjp(lambda x: reduced(x, case, -np.inf, lax.max), x)
        return pullback(jnp.ones_like(y))[0]

    wins = np.asarray(wins_of(x))
    return Answer(np.where(wins > 0, x, 0), (wins * dy,))


def number_counted(case):
    """How many elements of the window at each position are in the input, or counted."""
    out = case.out_shape[2:]
    numbers = [
        oracles.number_within(case.counted, i, case.window, case.size)
        for i in oracles.positions(out)
    ]
    return np.reshape(np.array(numbers, np.float64), (1, 1, *out))


def average_pooling(case):
    divisor = case.written.get("divisor_override") or number_counted(case)
    return answer(lambda x: reduced(x, case, 0, lax.add) / divisor, case)


def power_pooling(case):
    p = float(case.written["norm_type"])
    scale = np.prod(case.window.kernel_size) / number_counted(case)
    return answer(lambda x: (reduced(x**p, case, 0, lax.add) * scale) ** (1 / p), case)


def seen(size, out, i):
    """What output i sees: from ⌊i·H/H_out⌋ to ⌈(i+1)·H/H_out⌉."""
    return slice(math.floor(i * size / out), math.ceil((i + 1) * size / out))


def adaptive_average_pooling(case):
    """Along each dimension a matrix, with 1/n where an output sees an input."""

    def formula(x):
        for k, (size, out) in enumerate(zip(case.size, case.out_shape[2:], strict=True)):
            matrix = np.zeros((out, size))
            for i in range(out):
                n = len(range(size)[seen(size, out, i)])
                matrix[i, seen(size, out, i)] = 1 / n
            x = jnp.moveaxis(jnp.tensordot(x, matrix, (k + 2, 1)), -1, k + 2)
        return x

    return answer(formula, case)


def adaptive_max_pooling(case):
    """By loops over the outputs, each with a slice of the input."""
    (x,), dy = arrays(case)
    places = np.arange(math.prod(case.size)).reshape(case.size)
    indices = np.zeros(case.out_shape, int)
    for b, c, *i in oracles.positions(case.out_shape):
        part = tuple(map(seen, case.size, case.out_shape[2:], i))
        first = x[(b, c, *part)].argmax()
        indices[(b, c, *i)] = places[part].ravel()[first]
    images, flat = (*x.shape[:2], -1), indices.reshape(*x.shape[:2], -1)
    y = np.take_along_axis(x.reshape(images), flat, -1).reshape(case.out_shape)
    dx = np.zeros_like(x.reshape(images))
    batch, channel = np.ogrid[: x.shape[0], : x.shape[1]]
    np.add.at(dx, (batch[..., None], channel[..., None], flat), dy.reshape(images))
    return Answer(y, (dx.reshape(x.shape),), indices)


# --- Patches --------------------------------------------------------------------------


def patches_of(x, case):
    window = case.window
    p = lax.conv_general_dilated_patches(
        x,
        window.kernel_size,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        precision=lax.Precision.HIGHEST,
    )
    return p.reshape(*x.shape[:2], math.prod(window.kernel_size), -1)


def unfolding(case):
    return answer(lambda x: patches_of(x, case), case)


def folding(case):
    def formula(p):
        images = jnp.zeros(case.out_shape)
        return jax.linear_transpose(lambda x: patches_of(x, case), images)(p)[0]

    return answer(formula, case)
