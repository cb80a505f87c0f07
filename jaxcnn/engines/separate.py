"""Grouped convolution as what it is: a dense convolution for each group.

XLA's own grouped convolution is a naive loop nest on a CPU, 20 to 200 times slower than the
dense ones that it consists of. Each group goes through the engine that its number of channels
calls for; many groups go through it in a loop, so that compiling takes no longer for them.
"""

import jax.numpy as jnp
from jax import lax

from jaxcnn.engines import banded, canonical
from jaxcnn.layout import merge_axes, split_axis

FEW_GROUPS = 16
"""So many are written out one after the other."""

FEW_CHANNELS = 8
"""With fewer in a group, matrix products of runs are quicker than a convolution."""


def refuses(description) -> str | None:
    return canonical.refuses(description)


def forward(X, W, *, window, layout, groups=1, precision=None):
    """Y, group by group."""
    known = {"window": window, "layout": layout, "precision": precision}
    engine = _engine(W.shape[-2], W.shape[-1] // groups)
    return _each_group(lambda X, W: engine.forward(X, W, **known), groups, X, W)


def weight_gradient(X, dY, *, window, layout, groups=1, precision=None):
    """dW, group by group."""
    known = {"window": window, "layout": layout, "precision": precision}
    engine = _engine(X.shape[-1] // groups, dY.shape[-1] // groups)
    return _each_group(lambda X, dY: engine.weight_gradient(X, dY, **known), groups, X, dY)


def input_gradient(dY, W, *, window, input_size, layout, groups=1, precision=None):
    """dX, group by group."""
    known = {"window": window, "layout": layout, "precision": precision}
    known["input_size"] = input_size
    engine = _engine(W.shape[-2], W.shape[-1] // groups)
    return _each_group(lambda dY, W: engine.input_gradient(dY, W, **known), groups, dY, W)


def _engine(c_in, c_out):
    return banded if min(c_in, c_out) < FEW_CHANNELS else canonical


def _each_group(function, groups, *operands):
    """The last axis of every array is cut into groups, and the results are put together."""
    if groups <= FEW_GROUPS:
        parts = zip(*(jnp.split(each, groups, -1) for each in operands), strict=True)
        return jnp.concatenate([function(*part) for part in parts], -1)
    split = (split_axis(each, each.ndim - 1, groups, -1) for each in operands)
    mapped = [jnp.moveaxis(each, -2, 0) for each in split]
    result = lax.map(lambda part: function(*part), mapped)
    return merge_axes(jnp.moveaxis(result, 0, -2), result.ndim - 2, 2)
