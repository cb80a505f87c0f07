"""How JAX differentiates a convolution, and maps it.

The three sums

    forward          Y = Σ_m tap(X, m) · W[m]
    weight gradient  dW[m] = Σ tap(X, m) ⊗ dY
    input gradient   dX = Σ_m untap(dY · W[m], m)

are one product of three arrays, T(X, W, dY) = ⟨forward(X, W), dY⟩, differentiated by each
of them in turn. So each sum is linear in both of its operands, and its two transposes are
the other two sums. The set is closed: tangents of gradients of tangents, to any order, are
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

from jaxcnn import equations, plan
from jaxcnn.layout import (
    Floats,
    Length,
    Numbers,
    merge_axes,
    over_channels,
    split_axis,
    weight_layout,
)
from jaxcnn.primitives import formula, product, window_sum
from jaxcnn.problem import (
    CONVOLUTIONS,
    ROLES,
    Problem,
    loops_by_default,
    result_shape,
)
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import in_auto_axes, varying_alike

# --- The sums -------------------------------------------------------------------------


def convolution(
    x: Floats,
    w: Floats,
    b: Floats | None,
    problem: Problem,
    dtype: DTypeLike | None = None,
) -> Floats:
    """Y = b + Σ_m tap(X, m) · W[m], rounded once: to x's dtype, or to another"""
    bind, operands = _ready("forward", problem, x, w, b)
    return bind(*operands, problem=problem, dtype=dtype or x.dtype)


def weight_gradient(
    x: Floats, dy: Floats, problem: Problem, dtype: DTypeLike | None = None
) -> Floats:
    """dW[m] = Σ tap(X, m) ⊗ dY"""
    bind, operands = _ready("weight_gradient", problem, x, dy)
    return bind(*operands, problem=problem, dtype=dtype or x.dtype)


def input_gradient(
    dy: Floats, w: Floats, problem: Problem, dtype: DTypeLike | None = None
) -> Floats:
    """dX = Σ_m untap(dY · W[m], m)"""
    return transposed_convolution(dy, w, None, problem, dtype)


def transposed_convolution(
    x: Floats,
    w: Floats,
    b: Floats | None,
    problem: Problem,
    dtype: DTypeLike | None = None,
) -> Floats:
    """Y = b + Σ_m untap(X · W[m], m): the input gradient, as a forward operation"""
    bind, operands = _ready("input_gradient", problem, x, w, b)
    return bind(*operands, problem=problem, dtype=dtype or x.dtype)


def bias_gradient(dy: Floats, layout: str) -> Floats:
    """db = Σ_{batch, positions} dY"""
    return BIAS_GRADIENT.bind(dy, layout=layout)


def at_every_position(b: Floats, shape: Sequence[Length], layout: str) -> Floats:
    """b for every image and position: the transpose of the bias gradient"""
    return BIAS.bind(b, shape=tuple(shape), layout=layout)


def _ready(
    name: str, problem: Problem, *operands: Floats | None
) -> tuple[Callable[..., Floats], Sequence[Floats]]:
    """What binds a sum, and its operands: a bias only if there is one."""
    arrays = varying_alike([x for x in operands if x is not None])

    def names() -> list[list[str | None]]:
        first, second, result = (_indices(role, problem) for role in ROLES[name])
        of_bias = [result[problem.layout.index("C")]]
        return [*[first, second, of_bias][: len(arrays)], result]

    return in_auto_axes(SUMS[name].bind, arrays, names), arrays


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
    if any(is_bias) and (letter == "b" or not (is_first or is_second)):
        # The images of a batch share their bias, and so does what is computed once.
        wide = sum_dtype(dtype)
        alone = partial(primitive.bind, problem=problem, dtype=wide)
        if is_first or is_second:
            alone = jax.vmap(alone, [0 if each else None for each in (is_first, is_second)])
        channels = jax.vmap(partial(over_channels, layout=problem.layout))(bias[0])
        y = alone(first, second)
        y = y if is_first or is_second else y[None]
        return (y + channels.astype(wide)).astype(dtype), 0
    if is_first:
        first = _fold(first, of_first, letter, problem)
    if is_second:
        second = _fold(second, of_second, letter, problem)
    if bias and letter != "b":
        (b,) = (
            bias if any(is_bias) else jnp.broadcast_to(bias[0], (1, size, *bias[0].shape))
        )
        b = split_axis(b, 1, problem.groups, b.shape[1] // problem.groups)
        bias = [merge_axes(jnp.moveaxis(b, 0, 1), 0, 3)]
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


def _bias_formula(b: Floats, *, shape: Sequence[Length], layout: str) -> Floats:
    ones = [1 if letter != "C" else b.shape[-1] for letter in layout]
    leading = b.shape[:-1]
    return jnp.broadcast_to(b.reshape(*leading, *ones), (*leading, *shape))


def bias_gradient_autodiff(dy: Floats, layout: str) -> Floats:
    return equations.bias_gradient(dy, layout=layout).astype(dy.dtype)


BIAS = formula(_bias_formula, "conv_bias")
BIAS_GRADIENT = formula(bias_gradient_autodiff, "conv_bias_gradient")


def _moved_by_bias(db: Floats, y: Floats, problem: Problem) -> Floats:
    return at_every_position(db.astype(y.dtype), y.shape, problem.layout)


def _of_bias(dy: Floats, *_: Any, problem: Problem, **__: Any) -> Floats:
    return bias_gradient(dy, problem.layout)


product(
    SUMS["forward"],
    lambda dy, x, w, *b, problem, dtype: input_gradient(dy, w, problem, x.aval.dtype),
    lambda dy, x, w, *b, problem, dtype: weight_gradient(x, dy, problem, w.aval.dtype),
    plus=(_moved_by_bias, _of_bias),
)
product(
    SUMS["weight_gradient"],
    lambda dw, x, dy, problem, dtype: input_gradient(dy, dw, problem, x.aval.dtype),
    lambda dw, x, dy, problem, dtype: convolution(x, dw, None, problem, dy.aval.dtype),
)
product(
    SUMS["input_gradient"],
    lambda dx, dy, w, *b, problem, dtype: convolution(dx, w, None, problem, dy.aval.dtype),
    lambda dx, dy, w, *b, problem, dtype: weight_gradient(dx, dy, problem, w.aval.dtype),
    plus=(_moved_by_bias, _of_bias),
)
product(
    BIAS,
    lambda dy, b, shape, layout: bias_gradient(dy, layout),
)
product(
    BIAS_GRADIENT,
    lambda db, dy, layout: at_every_position(db, dy.aval.shape, layout),
)


# --- The same without the rules: what ``derivatives="autodiff"`` means ----------------


def _by_loops(
    name: str,
    *operands: Floats | None,
    problem: Problem,
    dtype: DTypeLike | None,
) -> Floats:
    arrays = [x for x in operands if x is not None]
    dtype = dtype or arrays[0].dtype
    return plan.compute(name, loops_by_default(problem), *arrays, dtype=dtype)


def convolution_autodiff(
    x: Floats,
    w: Floats,
    b: Floats | None,
    problem: Problem,
    dtype: DTypeLike | None = None,
) -> Floats:
    return _by_loops("forward", x, w, b, problem=problem, dtype=dtype)


def transposed_convolution_autodiff(
    x: Floats,
    w: Floats,
    b: Floats | None,
    problem: Problem,
    dtype: DTypeLike | None = None,
) -> Floats:
    return _by_loops("input_gradient", x, w, b, problem=problem, dtype=dtype)


def weight_gradient_autodiff(x: Floats, dy: Floats, problem: Problem) -> Floats:
    return _by_loops("weight_gradient", x, dy, problem=problem, dtype=None)


def input_gradient_autodiff(dy: Floats, w: Floats, problem: Problem) -> Floats:
    return _by_loops("input_gradient", dy, w, problem=problem, dtype=None)
