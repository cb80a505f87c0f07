"""How exact results must be on the platform at hand: docs/accelerators.md promises it.

On a CPU, halves are summed in float32 and rounded once. Elsewhere so are all but
convolutions and their gradients, which are rounded twice.
"""

import jax
import jax.numpy as jnp
import numpy as np


def of_halves(dtype, atol, *, convolved=None):
    """The tolerances of a half beside its value in float32, itself as exact as ``atol``.

    One rounding is off by at most half a unit in the last place (eps/2, and a hundredth
    more for float32's own): a second one would exceed it.

    Args:
      convolved: what a convolution or its gradient should give; else nothing is rounded
        twice.
    """
    once = 1.01 * float(jnp.finfo(dtype).eps) / 2
    again = _half_a_unit_again(dtype, convolved)
    return {"rtol": once + again["rtol"], "atol": atol + again["atol"]}


def of_halves_alike(dtype, convolved):
    """Those of a half that a convolution gives beside what was rounded once.

    Both are halves: what is not a unit apart is equal.
    """
    again = _half_a_unit_again(dtype, convolved)
    return {"rtol": 2 * again["rtol"], "atol": again["atol"]}


def _half_a_unit_again(dtype, convolved):
    """What a second rounding may add, of something as large as the largest of all."""
    if convolved is None or jax.default_backend() == "cpu":
        return {"rtol": 0.0, "atol": 0.0}
    half_a_unit = 1.01 * float(jnp.finfo(dtype).eps) / 2
    largest = float(np.max(np.abs(np.asarray(convolved, np.float64)), initial=0))
    return {"rtol": half_a_unit, "atol": half_a_unit * largest}


def of_sums():
    """Those of a few ones that are added in float64: exactly, but on a GPU.

    There they are multiplied by a number and by its reciprocal.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"rtol": 0.0 if on_cpu else 2 * float(np.finfo(np.float64).eps), "atol": 0.0}


def of_xlas_maxima(tolerance, order):
    """The tolerance of a gradient of this order, in float64, beside XLA's of a maximum.

    From the second on that is computed in float32 on a GPU: some hundred terms there.
    """
    if order > 1 and jax.default_backend() != "cpu":
        return max(tolerance, 100 * float(np.finfo(np.float32).eps))
    return tolerance
