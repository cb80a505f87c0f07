"""How JAX differentiates and maps a convolution.

**The gradient rule.** The document's three sums

    forward          Y = Σ_m tap(X, m) · W[m]
    weight gradient  dW[m] = Σ tap(X, m) ⊗ dY
    input gradient   dX = Σ_m untap(dY · W[m], m)

are one product of three arrays, T(X, W, dY) = ⟨forward(X, W), dY⟩, differentiated by one
of them in turn. So each is linear in both of its arguments, and the gradients of each are
the other two: the set is closed, and gradients of gradients, to any order, go through the
rules in this file.

**The mapping rule.** ``vmap`` adds an axis to one of the arguments or to both. Folding it
into an axis that the sum has already makes of many small sums a large one:

    which argument is mapped              the axis is folded into
    one; it shares with the result only   b, the batch (X and Y)
                                          i, the input channels (X and W)
                                          o, the output channels (Y and W)
    both                                  g, the groups (all three)
"""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from jaxcnn import equations, plan
from jaxcnn.layout import merge_axes, split_axis, weight_layout
from jaxcnn.problem import ROLES, Problem, loops_by_default
from jaxcnn.sharding import automatically, spread_like

Operand = Float[Array, "..."]


# --- The gradient rule ----------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolution(x: Operand, w: Operand, b: Operand | None, problem: Problem) -> Operand:
    """Y = b + Σ_m tap(X, m) · W[m]"""
    y = _mapped("forward", x, w, problem)
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def _convolution_fwd(x, w, b, problem):
    return convolution(x, w, b, problem), (x, w, b)


def _convolution_bwd(problem, residuals, dy):
    x, w, b = residuals
    dx = input_gradient(dy, w, problem)
    dw = weight_gradient(x, dy, problem)
    return _for(x, dx), _for(w, dw), _bias_gradient_for(b, dy, problem)


convolution.defvjp(_convolution_fwd, _convolution_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def transposed_convolution(
    x: Operand, w: Operand, b: Operand | None, problem: Problem
) -> Operand:
    """Y = b + Σ_m untap(X · W[m], m): the input gradient, as a forward operation"""
    y = _mapped("input_gradient", x, w, problem)
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def _transposed_convolution_fwd(x, w, b, problem):
    return transposed_convolution(x, w, b, problem), (x, w, b)


def _transposed_convolution_bwd(problem, residuals, dy):
    x, w, b = residuals
    arriving = replace(problem, preferred=x.dtype)
    dx = convolution(dy, w, None, arriving)
    dw = weight_gradient(dy, x, problem)
    return _for(x, dx), _for(w, dw), _bias_gradient_for(b, dy, problem)


transposed_convolution.defvjp(_transposed_convolution_fwd, _transposed_convolution_bwd)


def _bias_gradient_for(b, dy, problem):
    if b is None:
        return None
    return _for(b, bias_gradient(dy, dy.shape, problem.layout))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def weight_gradient(x: Operand, dy: Operand, problem: Problem) -> Operand:
    """dW[m] = Σ tap(X, m) ⊗ dY"""
    return _rounded(_mapped("weight_gradient", x, dy, problem), x.dtype)


def _weight_gradient_fwd(x, dy, problem):
    return weight_gradient(x, dy, problem), (x, dy)


def _weight_gradient_bwd(problem, residuals, ddw):
    x, dy = residuals
    dx = input_gradient(dy, ddw, problem)
    ddy = convolution(x, ddw, None, problem)
    return _for(x, dx), _for(dy, ddy)


weight_gradient.defvjp(_weight_gradient_fwd, _weight_gradient_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def input_gradient(dy: Operand, w: Operand, problem: Problem) -> Operand:
    """dX = Σ_m untap(dY · W[m], m)"""
    return _rounded(_mapped("input_gradient", dy, w, problem), w.dtype)


def _input_gradient_fwd(dy, w, problem):
    return input_gradient(dy, w, problem), (dy, w)


def _input_gradient_bwd(problem, residuals, ddx):
    dy, w = residuals
    ddy = convolution(ddx, w, None, problem)
    dw = weight_gradient(ddx, dy, problem)
    return _for(dy, ddy), _for(w, dw)


input_gradient.defvjp(_input_gradient_fwd, _input_gradient_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bias_gradient(dy: Operand, shape: tuple, layout: str) -> Operand:
    """db = Σ_{batch, positions} dY, for dY of this shape (whose batch may be symbolic)"""
    return _rounded(equations.bias_gradient(dy, layout=layout), dy.dtype)


def _bias_gradient_fwd(dy, shape, layout):
    return bias_gradient(dy, shape, layout), None


def _bias_gradient_bwd(shape, layout, residuals, ddb):
    return (jnp.broadcast_to(_over_channels(ddb, layout), shape),)


bias_gradient.defvjp(_bias_gradient_fwd, _bias_gradient_bwd)


def _plus_bias(y, b, problem):
    return y if b is None else y + _over_channels(b.astype(y.dtype), problem.layout)


def _over_channels(b, layout):
    """(C,) with length 1 along every other axis, so that it broadcasts."""
    return b.reshape([-1 if letter == "C" else 1 for letter in layout])


def _output_dtype(x, problem):
    return x.dtype if problem.preferred is None else problem.preferred


def _rounded(total, dtype):
    """A sum in the dtype of what was summed, or of what was asked for."""
    return total.astype(dtype)


def _for(operand, gradient):
    """A gradient in the dtype of its operand, and spread over devices as that is."""
    return spread_like(gradient.astype(operand.dtype), operand)


# --- The same without the rules: what ``derivatives="autodiff"`` means ----------------


def convolution_autodiff(x, w, b, problem):
    y = plan.compute("forward", loops_by_default(problem), *_alike(x, w, problem))
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def transposed_convolution_autodiff(x, w, b, problem):
    y = plan.compute("input_gradient", loops_by_default(problem), *_alike(x, w, problem))
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def weight_gradient_autodiff(x, dy, problem):
    dw = plan.compute("weight_gradient", loops_by_default(problem), x, dy)
    return _rounded(dw, x.dtype)


def input_gradient_autodiff(dy, w, problem):
    dx = plan.compute("input_gradient", loops_by_default(problem), dy, w)
    return _rounded(dx, w.dtype)


def bias_gradient_autodiff(dy, shape, layout):
    del shape
    return _rounded(equations.bias_gradient(dy, layout=layout), dy.dtype)


# --- The mapping rule -----------------------------------------------------------------

LETTERS = {"x": {"b", "i"}, "w": {"o", "i"}, "y": {"b", "o"}}
"""The indices of each array, the groups' g aside, which all three have."""


def _alike(first, second, problem):
    """Two operands in one dtype: the wider of theirs.

    They differ where the output's preferred dtype is wider than the input's: then its
    gradient is, too. For a result in float64 all sums are computed in it.
    """
    dtypes = [first.dtype, second.dtype]
    if problem.preferred is not None and jnp.dtype(problem.preferred).itemsize > 4:
        dtypes.append(jnp.dtype(problem.preferred))
    widest = max(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize)
    return first.astype(widest), second.astype(widest)


def _mapped(sum_name, first, second, problem):
    first, second = _alike(first, second, problem)
    plan.record(sum_name, problem, first, second)
    *of_operands, of_result = ROLES[sum_name]
    return automatically(
        _with_mapping_rule(sum_name, problem),
        [_indices(role, problem) for role in of_operands],
        _indices(of_result, problem),
        *(first, second),
    )


def _indices(role, problem):
    """The index b, i or o of every axis of an array; None for spatial ones.

    And for the input channels of the weights, where they are those of one group of many.
    """
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    known = {"N": "b", "C": "i" if role == "x" else "o", "O": "o"}
    if problem.groups == 1:
        known["I"] = "i"
    return [known.get(letter) for letter in layout]


@lru_cache(maxsize=4096)
def _with_mapping_rule(sum_name: str, problem: Problem):
    """One of the three sums as a function of two arrays that ``vmap`` folds.

    Compiled and remembered, so that calls outside of ``jit`` do not trace it anew.
    """

    @custom_vmap
    def the_sum(first, second):
        return plan.compute(sum_name, problem, first, second)

    @the_sum.def_vmap
    def fold_the_mapped_axis(axis_size, is_mapped, first, second):
        first_role, second_role, result_role = ROLES[sum_name]
        first_mapped, second_mapped = is_mapped
        letter, folded = "g", replace(problem, groups=problem.groups * axis_size)
        if not (first_mapped and second_mapped):
            folded = problem
            mapped, other = (
                (first_role, second_role) if first_mapped else (second_role, first_role)
            )
            (letter,) = LETTERS[mapped] & LETTERS[result_role] - LETTERS[other]
        if first_mapped:
            first = _fold(first, first_role, letter, problem)
        if second_mapped:
            second = _fold(second, second_role, letter, problem)
        result = _mapped(sum_name, first, second, folded)
        return _unfold(result, axis_size, result_role, letter, problem), True

    return jax.jit(the_sum)


def _fold(array, role, letter, problem):
    """(V, …) to (…): the mapped axis V becomes part of the axis that holds ``letter``."""
    axis, outer = _place(role, letter, problem)
    array = split_axis(array, axis + 1, outer, array.shape[axis + 1] // outer)
    return merge_axes(jnp.moveaxis(array, 0, axis + 1), axis, 3)


def _unfold(array, axis_size, role, letter, problem):
    """The inverse of :func:`_fold`."""
    axis, outer = _place(role, letter, problem)
    inner = array.shape[axis] // (outer * axis_size)
    array = split_axis(array, axis, outer, axis_size, inner)
    return merge_axes(jnp.moveaxis(array, axis + 1, 0), axis + 1, 2)


def _place(role, letter, problem):
    """Which axis holds an index, and how many groups stand outside of it there."""
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    if letter == "b":
        return layout.index("N"), 1
    if role == "w" and letter == "i":
        return layout.index("I"), 1
    return layout.index("O" if role == "w" else "C"), problem.groups
