"""Differences that know how far off they are.

Each entry of x is moved by many steps, to both sides. :func:`best_of` makes a derivative of
what an entry of f does then, and says how well it is known: by what two extrapolations
disagree, and by what rounding adds. How much f rounds is measured close to x, by
:func:`noise_of`. Whether f has a derivative there at all, :func:`note_on` says.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LEVELS = 12  # steps for one entry, from 1/8 of its array's largest to 2^-36 of its own size
SAMPLES = 16  # of f close to x
NOISE = 8.0  # how many times its rounding, as it was measured, a value of f may be off
FAR_AND_NEAR = [3, 6]  # of the steps, those that tell a kink from a curve


def steps_for(
    x: Float[np.ndarray, " n"], largest: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n levels"]:
    """By how much each entry is moved, the largest first.

    They are powers of two: x + h and x − h are rounded alike, or not at all.
    """
    scale = np.maximum(largest, 1)
    first, last = np.log2(scale / 8), np.log2(2.0**-36 * _sizes(x, scale))
    return 2.0 ** np.linspace(first, last, LEVELS, axis=1).round()


def close_to(
    x: Float[np.ndarray, " n"], largest: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "samples n"]:
    """Points on a line that begins at x, so close that a smooth f is a polynomial there."""
    weights = np.random.default_rng(0).uniform(0.5, 1, x.size)
    apart = 2.0**-24 * weights * _sizes(x, np.maximum(largest, 1))
    return x + np.arange(1, SAMPLES + 1)[:, None] * apart


def _sizes(
    x: Float[np.ndarray, " n"], scale: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Of each entry; of its array's largest, if it is zero or tiny beside that."""
    is_number = np.isfinite(x) & (x != 0)
    return np.where(is_number, np.maximum(abs(x), 2.0**-40 * scale), scale)


def noise_of(
    samples: Float[np.ndarray, "samples m"], largest: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """How far off rounding may be in each entry of f, from its values close to x.

    Differences of high order are zero for what is smooth; what they show is rounding.
    """
    order = SAMPLES // 2
    with np.errstate(invalid="ignore", over="ignore"):
        rough = abs(np.diff(samples, order, axis=0)).max(axis=0)
    rough = np.where(np.isfinite(rough), rough, 0) / math.sqrt(math.comb(2 * order, order))
    return NOISE * (rough + np.finfo(np.float64).eps * largest)


@jax.jit
def best_of(
    central: Float[Array, "levels m"],
    steps: Float[Array, " levels"],
    noise: Float[Array, " m"],
) -> tuple[Float[Array, " m"], Float[Array, " m"], Int[Array, " m"]]:
    """The derivative that central differences know best.

    Args:
      central: (f(x + h) − f(x − h)) / 2h, for each step h.
      steps: the steps, the largest first.
      noise: how far off an entry of f may be.

    Returns:
      The derivative, NaN where there is none; how far off it may be; and the number of the
      largest of the three steps that it is made of.
    """
    orders = (steps[:-1] / steps[1:])[:, None] ** 2
    extrapolated = central[1:] + (central[1:] - central[:-1]) / (orders - 1)
    values, rounding = extrapolated[1:], noise[None] / steps[2:, None]
    distances = 2 * abs(jnp.diff(extrapolated, axis=0))
    # What neither settles nor is rounding is no derivative: f jumps there, has a pole, or
    # makes many waves within a step.
    settled = (distances < 0.1 * abs(values)) | (distances <= 10 * rounding)
    errors = jnp.where(settled, distances + rounding, jnp.inf)
    values = jnp.where(settled, values, jnp.nan)
    # Large steps may agree with each other, and yet not with small ones.
    last = len(values) - 1
    value, error, level = values[last], errors[last], jnp.full(noise.shape, last, jnp.int8)
    agree = jnp.ones(noise.shape, bool)
    for i in reversed(range(last)):
        agree &= ~(abs(values[i] - value) > errors[i] + error)
        better = agree & (errors[i] < error)
        value = jnp.where(better, values[i], value)
        error = jnp.where(better, errors[i], error)
        level = jnp.where(better, i, level)
    return value, error, level


def around(
    x: Float[np.ndarray, " n"], steps: Float[np.ndarray, " levels"], number: int
) -> Float[np.ndarray, "samples n"]:
    """x, and x with one entry moved: up far and near, down far and near; and x again."""
    moved = np.repeat(x[None], SAMPLES, axis=0)
    far, near = steps[FAR_AND_NEAR]
    moved[1:5, number] += far, near, -far, -near
    return moved


def note_on(
    y: Float[np.ndarray, " samples"], steps: Float[np.ndarray, " levels"], noise: float
) -> str:
    """Why an entry of f may have no derivative, by its values :func:`around` x."""
    if not np.isfinite(y[0]):
        return f". f is {y[0]} there: check it at another point"
    steps = steps[FAR_AND_NEAR]
    with np.errstate(invalid="ignore", over="ignore"):
        right, left = (y[1:3] - y[0]) / steps, (y[0] - y[3:5]) / steps
        far, near = abs(right - left)
    # The slopes of a smooth function come together as steps become small.
    if near > max(far / 16, 4 * noise / steps[1]):
        return (
            f". f has a kink there, with a slope of {left[1]:.4g} on its left and of "
            f"{right[1]:.4g} on its right: check it at another point"
        )
    return ""
