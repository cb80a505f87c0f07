"""How JAX differentiates a convolution.

The three sums

    forward          Y = Σ_m tap(X, m) · W[m]
    weight gradient  dW[m] = Σ tap(X, m) ⊗ dY
    input gradient   dX = Σ_m untap(dY · W[m], m)

are one product of three arrays, T(X, W, dY) = ⟨forward(X, W), dY⟩, differentiated by each
of them in turn. So each sum is linear in both of its arguments, and its gradients are the
other two. The set is closed: gradients of gradients, to any order, go through the rules in
this file.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn import equations, plan
from jaxcnn.layout import Cotangent, Floats, over_channels
from jaxcnn.mapping import common_dtype, mapped_convolution
from jaxcnn.problem import Problem, loops_by_default
from jaxcnn.sharding import sharded_like

Operands = tuple[Floats, Floats, Floats | None]
"""x, w and b, which a rule keeps; or their gradients, which it returns."""
Pair = tuple[Floats, Floats]
"""A sum's two operands, likewise."""

# --- The rules ------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolution(x: Floats, w: Floats, b: Floats | None, problem: Problem) -> Floats:
    """Y = b + Σ_m tap(X, m) · W[m]"""
    y = mapped_convolution("forward", x, w, problem)
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def _convolution_fwd(
    x: Floats, w: Floats, b: Floats | None, problem: Problem
) -> tuple[Floats, Operands]:
    return convolution(x, w, b, problem), (x, w, b)


def _convolution_bwd(problem: Problem, residuals: Operands, dy: Cotangent) -> Operands:
    x, w, b = residuals
    dx: Floats = input_gradient(dy, w, problem)
    dw: Floats = weight_gradient(x, dy, problem)
    return _cast_like(dx, x), _cast_like(dw, w), _bias_gradient_for(b, dy, problem)


convolution.defvjp(_convolution_fwd, _convolution_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def transposed_convolution(
    x: Floats, w: Floats, b: Floats | None, problem: Problem
) -> Floats:
    """Y = b + Σ_m untap(X · W[m], m): the input gradient, as a forward operation"""
    y = mapped_convolution("input_gradient", x, w, problem)
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def _transposed_convolution_fwd(
    x: Floats, w: Floats, b: Floats | None, problem: Problem
) -> tuple[Floats, Operands]:
    return transposed_convolution(x, w, b, problem), (x, w, b)


def _transposed_convolution_bwd(
    problem: Problem, residuals: Operands, dy: Cotangent
) -> Operands:
    x, w, b = residuals
    arriving = replace(problem, preferred=x.dtype)
    dx: Floats = convolution(dy, w, None, arriving)
    dw: Floats = weight_gradient(dy, x, problem)
    return _cast_like(dx, x), _cast_like(dw, w), _bias_gradient_for(b, dy, problem)


transposed_convolution.defvjp(_transposed_convolution_fwd, _transposed_convolution_bwd)


def _bias_gradient_for(b: Floats | None, dy: Cotangent, problem: Problem) -> Floats | None:
    if b is None:
        return None
    return _cast_like(bias_gradient(dy, dy.shape, problem.layout), b)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def weight_gradient(x: Floats, dy: Floats, problem: Problem) -> Floats:
    """dW[m] = Σ tap(X, m) ⊗ dY"""
    return _rounded(mapped_convolution("weight_gradient", x, dy, problem), x.dtype)


def _weight_gradient_fwd(x: Floats, dy: Floats, problem: Problem) -> tuple[Floats, Pair]:
    return weight_gradient(x, dy, problem), (x, dy)


def _weight_gradient_bwd(problem: Problem, residuals: Pair, ddw: Cotangent) -> Pair:
    x, dy = residuals
    dx: Floats = input_gradient(dy, ddw, problem)
    ddy: Floats = convolution(x, ddw, None, problem)
    return _cast_like(dx, x), _cast_like(ddy, dy)


weight_gradient.defvjp(_weight_gradient_fwd, _weight_gradient_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def input_gradient(dy: Floats, w: Floats, problem: Problem) -> Floats:
    """dX = Σ_m untap(dY · W[m], m)"""
    return _rounded(mapped_convolution("input_gradient", dy, w, problem), w.dtype)


def _input_gradient_fwd(dy: Floats, w: Floats, problem: Problem) -> tuple[Floats, Pair]:
    return input_gradient(dy, w, problem), (dy, w)


def _input_gradient_bwd(problem: Problem, residuals: Pair, ddx: Cotangent) -> Pair:
    dy, w = residuals
    ddy: Floats = convolution(ddx, w, None, problem)
    dw: Floats = weight_gradient(ddx, dy, problem)
    return _cast_like(ddy, dy), _cast_like(dw, w)


input_gradient.defvjp(_input_gradient_fwd, _input_gradient_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bias_gradient(dy: Floats, shape: tuple, layout: str) -> Floats:
    """db = Σ_{batch, positions} dY, for dY of this shape (whose batch may be symbolic)"""
    return _rounded(equations.bias_gradient(dy, layout=layout), dy.dtype)


def _bias_gradient_fwd(dy: Floats, shape: tuple, layout: str) -> tuple[Floats, None]:
    return bias_gradient(dy, shape, layout), None


def _bias_gradient_bwd(shape: tuple, layout: str, _: None, ddb: Floats) -> tuple[Floats]:
    return (jnp.broadcast_to(over_channels(ddb, layout), shape),)


bias_gradient.defvjp(_bias_gradient_fwd, _bias_gradient_bwd)


def _plus_bias(y: Floats, b: Floats | None, problem: Problem) -> Floats:
    return y if b is None else y + over_channels(b.astype(y.dtype), problem.layout)


def _output_dtype(x: Floats, problem: Problem) -> DTypeLike:
    return x.dtype if problem.preferred is None else problem.preferred


def _rounded(total: Floats, dtype: DTypeLike) -> Floats:
    """A sum in the dtype of what was summed, or of what was asked for."""
    return total.astype(dtype)


def _cast_like(gradient: Floats, operand: Floats) -> Floats:
    """A gradient in the dtype of its operand, and sharded as that is."""
    return sharded_like(gradient.astype(operand.dtype), operand)


# --- The same without the rules: what ``derivatives="autodiff"`` means ----------------


def convolution_autodiff(
    x: Floats, w: Floats, b: Floats | None, problem: Problem
) -> Floats:
    y = plan.compute("forward", loops_by_default(problem), *common_dtype(x, w, problem))
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def transposed_convolution_autodiff(
    x: Floats, w: Floats, b: Floats | None, problem: Problem
) -> Floats:
    y = plan.compute(
        "input_gradient", loops_by_default(problem), *common_dtype(x, w, problem)
    )
    return _rounded(_plus_bias(y, b, problem), _output_dtype(x, problem))


def weight_gradient_autodiff(x: Floats, dy: Floats, problem: Problem) -> Floats:
    dw = plan.compute("weight_gradient", loops_by_default(problem), x, dy)
    return _rounded(dw, x.dtype)


def input_gradient_autodiff(dy: Floats, w: Floats, problem: Problem) -> Floats:
    dx = plan.compute("input_gradient", loops_by_default(problem), dy, w)
    return _rounded(dx, w.dtype)


def bias_gradient_autodiff(dy: Floats, shape: tuple, layout: str) -> Floats:
    del shape
    return _rounded(equations.bias_gradient(dy, layout=layout), dy.dtype)
