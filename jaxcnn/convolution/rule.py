"""How JAX differentiates a convolution, and maps it.

The three sums

    forward          Y = Σ_m tap(X, m) · W[m]
    weight gradient  dW[m] = Σ tap(X, m) ⊗ dY
    input gradient   dX = Σ_m untap(dY · W[m], m)

are one product of three arrays, T(X, W, dY) = ⟨forward(X, W), dY⟩, differentiated by each
of them in turn. So each sum is linear in both of its operands, and its two transposes are
the other two sums. The set is closed: gradients of tangents of gradients, to any order, are
sums of this file.

``vmap`` adds an axis to one of the operands or to both. Folded into an axis that the sum
already has, it turns many small sums into a large one:

    which operand is mapped               the axis is folded into
    one; it shares with the result only   b, the batch (X and Y)
                                          i, the input channels (X and W)
                                          o, the output channels (Y and W)
    both                                  g, the groups (all three)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.typing import DTypeLike

from jaxcnn import equations
from jaxcnn.layout import (
    Floats,
    Length,
    Numbers,
    Operand,
    merge_axes,
    over_channels,
    split_axis,
    weight_layout,
)
from jaxcnn.primitives import computing, formula, product, window_sum
from jaxcnn.problem import CONVOLUTIONS, ROLES, Problem, result_shape
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import in_auto_axes, varying_alike

# --- The sums -------------------------------------------------------------------------


def convolution(
    x: Operand,
    w: Operand,
    problem: Problem,
    dtype: DTypeLike | None = None,
    derivatives: str | None = "custom",
    b: Operand | None = None,
) -> Floats:
    """Y = b + Σ_m tap(X, m) · W[m], rounded once: to x's dtype, or to another"""
    compute, operands = _ready("forward", problem, derivatives, x, w, b)
    return compute(*operands, problem=problem, dtype=dtype or x.dtype)


def weight_gradient(
    x: Operand,
    dy: Operand,
    problem: Problem,
    dtype: DTypeLike | None = None,
    derivatives: str | None = "custom",
) -> Floats:
    """dW[m] = Σ tap(X, m) ⊗ dY"""
    compute, operands = _ready("weight_gradient", problem, derivatives, x, dy)
    return compute(*operands, problem=problem, dtype=dtype or x.dtype)


def input_gradient(
    dy: Operand,
    w: Operand,
    problem: Problem,
    dtype: DTypeLike | None = None,
    derivatives: str | None = "custom",
    b: Operand | None = None,
) -> Floats:
    """dX = b + Σ_m untap(dY · W[m], m); with a bias it is a transposed convolution"""
    compute, operands = _ready("input_gradient", problem, derivatives, dy, w, b)
    return compute(*operands, problem=problem, dtype=dtype or dy.dtype)


def bias_gradient(dy: Operand, layout: str, derivatives: str | None = "custom") -> Floats:
    """db = Σ_{batch, positions} dY"""
    return computing(BIAS_GRADIENT, derivatives)(dy, layout=layout)


def at_every_position(b: Operand, images: Any, layout: str) -> Floats:
    """b for every position of such images: the transpose of the bias gradient"""
    shape = tuple(images.shape)
    return BIAS.bind(b.astype(images.dtype), shape=shape, layout=layout)


def _ready(
    name: str, problem: Problem, derivatives: str | None, *operands: Operand | None
) -> tuple[Callable[..., Floats], Sequence[Operand]]:
    """What computes a sum, and its operands: a bias only if there is one."""
    arrays = varying_alike([x for x in operands if x is not None])

    def names() -> list[list[str | None]]:
        first, second, result = (_indices(role, problem) for role in ROLES[name])
        of_bias = [result[problem.layout.index("C")]]
        return [*[first, second, of_bias][: len(arrays)], result]

    return in_auto_axes(computing(SUMS[name], derivatives), arrays, names), arrays


def _indices(role: str, problem: Problem) -> list[str | None]:
    """The index b, i or o of every axis of an array; None for spatial ones.

    With several groups it is None for the input channels of the weights, too: those are
    the channels of one group.
    """
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    known = {"N": "b", "C": "i" if role == "x" else "o", "O": "o"}
    if problem.groups == 1:
        known["I"] = "i"
    return [known.get(letter) for letter in layout]


# --- How vmap folds them --------------------------------------------------------------

LETTERS = {"x": {"b", "i"}, "w": {"o", "i"}, "y": {"b", "o"}}
"""The indices of each array, the groups' g aside, which all three have."""


def _mapped(
    name: str,
    primitive: Primitive,
    operands: Sequence[Numbers],
    axes: Sequence[int | None],
    *,
    problem: Problem,
    dtype: DTypeLike,
) -> tuple[Numbers, int]:
    size = next(x.shape[k] for x, k in zip(operands, axes, strict=True) if k is not None)
    first, second, *bias = (
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    )
    of_first, of_second, of_result = ROLES[name]
    is_first, is_second, *is_bias = (axis is not None for axis in axes)
    if size == 0:  # which no axis can be divided by
        alone = first.shape[is_first:], second.shape[is_second:]
        return jnp.zeros((0, *result_shape(name, problem, *alone)), dtype), 0
    letter, folded = "g", replace(problem, groups=problem.groups * size)
    if not (is_first and is_second):
        kept, other = (of_second, of_first) if is_second else (of_first, of_second)
        (letter,) = LETTERS[kept] & LETTERS[of_result] - LETTERS[other]
        folded = problem
    if bias and (any(is_bias) or letter != "b"):
        # Added to what is mapped. Only the images of a batch share their bias in the sum.
        wide, (b,) = sum_dtype(dtype), bias
        alone = partial(primitive.bind, problem=problem, dtype=wide)
        if is_first or is_second:
            alone = jax.vmap(alone, [0 if each else None for each in (is_first, is_second)])
        y = alone(first, second) if is_first or is_second else alone(first, second)[None]
        per_image = jax.vmap(partial(over_channels, layout=problem.layout))
        b = per_image(b if any(is_bias) else b[None]).astype(wide)
        return (y + b).astype(dtype), 0
    if is_first:
        first = _fold(first, of_first, letter, problem)
    if is_second:
        second = _fold(second, of_second, letter, problem)
    result = primitive.bind(first, second, *bias, problem=folded, dtype=dtype)
    return _unfold(result, size, of_result, letter, problem), 0


def _fold(array: Numbers, role: str, letter: str, problem: Problem) -> Numbers:
    """(V, …) to (…): the mapped axis V becomes part of the axis that holds ``letter``."""
    axis, outer = _place(role, letter, problem)
    array = split_axis(array, axis + 1, outer, array.shape[axis + 1] // outer)
    return merge_axes(jnp.moveaxis(array, 0, axis + 1), axis, 3)


def _unfold(
    array: Numbers, axis_size: Length, role: str, letter: str, problem: Problem
) -> Numbers:
    """The inverse of :func:`_fold`."""
    axis, outer = _place(role, letter, problem)
    inner = array.shape[axis] // (outer * axis_size)
    array = split_axis(array, axis, outer, axis_size, inner)
    return merge_axes(jnp.moveaxis(array, axis + 1, 0), axis + 1, 2)


def _place(role: str, letter: str, problem: Problem) -> tuple[int, int]:
    """Which axis holds an index, and how many groups that axis is split into first."""
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    if letter == "b":
        return layout.index("N"), 1
    if role == "w" and letter == "i":
        return layout.index("I"), 1
    return layout.index("O" if role == "w" else "C"), problem.groups


# --- The primitives, and which sum is whose transpose ---------------------------------

SUMS = {
    name: window_sum(name, partial(_mapped, name), called=f"conv_{name}")
    for name in CONVOLUTIONS
}


def _bias(b: Floats, *, shape: Sequence[Length], layout: str) -> Floats:
    ones = [1 if letter != "C" else b.shape[-1] for letter in layout]
    leading = b.shape[:-1]
    return jnp.broadcast_to(b.reshape(*leading, *ones), (*leading, *shape))


def _bias_gradient(dy: Floats, *, layout: str) -> Floats:
    return equations.bias_gradient(dy, layout=layout).astype(dy.dtype)


BIAS = formula(_bias, "conv_bias")
BIAS_GRADIENT = formula(_bias_gradient, "conv_bias_gradient")


OF_A_BIAS = (
    lambda b_dot, y, *, problem, dtype: at_every_position(b_dot, y, problem.layout),
    lambda dy, *_, problem, dtype: bias_gradient(dy, problem.layout),
)
product(
    SUMS["forward"],
    lambda dy, x, w, *b, problem, dtype: input_gradient(dy, w, problem, x.aval.dtype),
    lambda dy, x, w, *b, problem, dtype: weight_gradient(x, dy, problem, w.aval.dtype),
    plus=OF_A_BIAS,
)
product(
    SUMS["weight_gradient"],
    lambda dw, x, dy, problem, dtype: input_gradient(dy, dw, problem, x.aval.dtype),
    lambda dw, x, dy, problem, dtype: convolution(x, dw, problem, dy.aval.dtype),
)
product(
    SUMS["input_gradient"],
    lambda dx, dy, w, *b, problem, dtype: convolution(dx, w, problem, dy.aval.dtype),
    lambda dx, dy, w, *b, problem, dtype: weight_gradient(dx, dy, problem, w.aval.dtype),
    plus=OF_A_BIAS,
)
product(BIAS, lambda dy, b, shape, layout: bias_gradient(dy, layout))
product(BIAS_GRADIENT, lambda db, dy, layout: at_every_position(db, dy.aval, layout))
