"""jaxcnn behind the signatures of other libraries, for code that is written already.

    jax.lax.conv_general_dilated       conv_general_dilated
    jax.lax.reduce_window              reduce_window
    flax.linen.max_pool, avg_pool      max_pool, avg_pool

Nothing is computed here. A call becomes a window, a layout and a number of groups, and goes
where jaxcnn's own functions go: to :mod:`jaxcnn.convolution.rule` and
:mod:`jaxcnn.pooling.rule`. What these do not compute (integers and complex numbers, minima
…) JAX computes itself: :func:`jaxcnn.patching.lax_arguments.served` decides.
:mod:`jaxcnn.patching.patch` puts these functions in the place of JAX's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.lax import PrecisionLike
from jax.typing import DTypeLike

from jaxcnn import originals
from jaxcnn.convolution import rule as convolution_rule
from jaxcnn.engines.rotation import rotated
from jaxcnn.layout import are_known, channels_last, spatial_size, with_spatial
from jaxcnn.patching.lax_arguments import (
    IDLE,
    LETTERS,
    batch_groups_as_channels,
    entries,
    layout_of_images,
    layout_of_pooled,
    served,
    transpose_of,
    window_over,
)
from jaxcnn.pooling import rule as pooling_rule
from jaxcnn.problem import Problem
from jaxcnn.window import Window

Padding = str | Sequence[tuple[int, int]]


# --- Convolution ----------------------------------------------------------------------


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    r"""What :func:`jax.lax.conv_general_dilated` computes, by jaxcnn's rules.

    .. math::

        Y_{b, o, i} = \sum_c \sum_m W_{o, c, m} \; \tilde X_{b, c,\, s i + d m - p}
        \qquad
        \frac{\partial L}{\partial W_{o, c, m}} = \sum_{b, i}
            \frac{\partial L}{\partial Y_{b, o, i}} \; \tilde X_{b, c,\, s i + d m - p}

    where :math:`\tilde X` is X with t − 1 zeros between its pixels, t the ``lhs_dilation``.
    With t > 1 and s = 1 it is a transposed convolution, which multiplies none of the zeros.

    The arguments are JAX's, as it describes them, for any number of spatial dimensions.

    Returns:
      What JAX's function returns, to within rounding: half precisions are summed in
      float32 and rounded once.

    Raises:
      TypeError, ValueError: JAX's own, where its function raises them.

    Derivatives: those of :func:`jaxcnn.conv2d` and :func:`jaxcnn.conv_transpose2d`.

    Cost: images with channels first (``NCHW``) or last (``NHWC``) are taken as they are,
    others are transposed to channels last and back. Zeros are multiplied only where some s
    and some t are greater than 1.

    JAX computes it itself for integers and complex numbers, sizes other than the batch's
    that are symbols, more than eight spatial dimensions, and arrays whose sharding is
    explicit.

    Source: ``jax.lax.conv_general_dilated``.

    >>> x, w = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 3, 8))
    >>> numbers = ("NHWC", "HWIO", "NHWC")
    >>> conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=numbers).shape
    (1, 3, 3, 8)
    """
    jax_own = partial(
        originals.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    result = served(jax_own, lhs, rhs) if out_sharding is None else None
    if result is None:
        return jax_own(lhs, rhs)
    axes = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    kernel_size = tuple(rhs.shape[axis] for axis in axes.rhs_spec[2:])
    _, c_in, *size = (lhs.shape[axis] for axis in axes.lhs_spec)
    n = len(size)
    stride, spread, dilation = (
        entries(each, n) for each in (window_strides, lhs_dilation, rhs_dilation)
    )
    fits = len(spread) == len(dilation) == n <= len(LETTERS)
    if (
        not fits
        or min((1, *stride, *kernel_size)) < 1
        or not are_known((c_in, *size, *rhs.shape))
    ):
        return jax_own(lhs, rhs)
    window = window_over(kernel_size, stride, padding, dilation, size)
    if n == 0:  # no dimension is the same as one of size 1
        lhs, rhs, window, spread = lhs[..., None], rhs[..., None], IDLE, (1,)
        axes = lax.ConvDimensionNumbers(*((*spec, 2) for spec in axes))
    y = _convolution(
        lhs=jnp.asarray(lhs),
        rhs=jnp.asarray(rhs),
        axes=axes,
        window=window,
        spread=spread,
        batch_groups=batch_group_count,
        groups=feature_group_count,
        precision=precision,
        dtype=result.dtype,
    )
    return y[..., 0] if n == 0 else y


def _convolution(
    lhs: jax.Array,
    rhs: jax.Array,
    axes: lax.ConvDimensionNumbers,
    window: Window,
    spread: tuple[int, ...],
    batch_groups: int,
    groups: int,
    precision: PrecisionLike,
    dtype: DTypeLike,
) -> jax.Array:
    """The convolution of lhs, spread by ``spread``; ``axes`` says what each axis is."""
    layout, order = layout_of_images(axes)
    x = lhs.transpose([axes.lhs_spec[k] for k in order])
    w = rhs.transpose([axes.rhs_spec[k] for k in (*range(2, rhs.ndim), 1, 0)])  # …IO
    if batch_groups > 1:
        x, groups = batch_groups_as_channels(x, batch_groups, layout), batch_groups
    operation, size = convolution_rule.convolution, spatial_size(x, layout)
    if max(spread) > 1:
        transposed = transpose_of(window, spread, size)
        if max(window.stride) == 1 and all((*size, *transposed[1])):
            operation, w = convolution_rule.input_gradient, rotated(w, groups)
            window, size = transposed
        else:
            between = [(0, 0, t - 1) for t in spread]
            between = with_spatial([(0, 0, 0)] * x.ndim, between, layout)
            x = lax.pad(x, jnp.zeros((), x.dtype), between)
            size = spatial_size(x, layout)
    if not channels_last(layout):
        w = w.transpose(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))  # OI…
    problem = Problem(window, size, layout, groups=groups, precision=precision)
    y = operation(x, w, problem, dtype, derivatives=None)
    return y.transpose(np.argsort([axes.out_spec[k] for k in order]))


# --- Pooling --------------------------------------------------------------------------


def reduce_window(
    operand: Any,
    init_value: Any,
    computation: Callable,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:
    r"""What :func:`jax.lax.reduce_window` computes, maxima and sums by jaxcnn's rules.

    .. math::

        Y_i = \max_m X_{s i + d m - p} \quad\text{or}\quad Y_i = \sum_m X_{s i + d m - p}

    over windows along any of the axes. The gradient of a maximum goes to its place, that of
    a sum to everything that was summed.

    The arguments are JAX's, as it describes them. jaxcnn computes with ``jax.lax.max`` or
    ``jnp.maximum`` from −∞ and with ``jax.lax.add`` or ``jnp.add`` from 0, both known when
    traced; JAX itself computes the rest, and all that :func:`conv_general_dilated` leaves
    to it.

    Returns:
      What JAX's function returns, sums to within rounding.

    Raises:
      TypeError, ValueError: JAX's own, where its function raises them.

    Derivatives: those of :func:`jaxcnn.max_pool2d` and :func:`jaxcnn.avg_pool2d`; JAX has
    none for ``jnp.maximum`` and ``jnp.add``.

    Source: ``jax.lax.reduce_window``.

    >>> x = jnp.array([[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 2.0]])
    >>> reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (2, 2))
    Array([[5., 2.]], dtype=float32)
    """
    if isinstance(init_value, jax.Array) and not isinstance(init_value, Tracer):
        init_value = np.asarray(init_value)  # stays concrete while JAX traces
    jax_own = partial(
        originals.reduce_window,
        init_value=init_value,
        computation=computation,
        window_dimensions=window_dimensions,
        window_strides=window_strides,
        padding=padding,
        base_dilation=base_dilation,
        window_dilation=window_dilation,
    )
    pool = _pooling_of(computation, init_value)
    if pool is None or served(jax_own, operand) is None:
        return jax_own(operand)
    strides, spread, dilations = (
        entries(each, operand.ndim)
        for each in (window_strides, base_dilation, window_dilation)
    )
    windows = window_over(
        tuple(window_dimensions),
        strides,
        padding,
        dilations,
        operand.shape,
    )
    axes = [k for k in range(operand.ndim) if windows.along(slice(k, k + 1)) != IDLE]
    if not axes or max(spread) > 1:
        return jax_own(operand)
    spatial = slice(axes[0], axes[-1] + 1)  # with all axes between these
    window, size = windows.along(spatial), operand.shape[spatial]
    if len(size) > len(LETTERS) or not are_known(size):
        return jax_own(operand)
    layout, shape = layout_of_pooled(operand.shape, spatial)
    y = pool(jnp.asarray(operand).reshape(shape), Problem(window, size, layout))
    whole = list(operand.shape)
    whole[spatial] = window.output_size(size)
    return y.reshape(whole)


def _pooling_of(
    computation: Callable, init_value: Any
) -> Callable[[jax.Array, Problem], jax.Array] | None:
    """The maximum or the sum, if a reduction from this value is one; else None."""
    if not isinstance(init_value, int | float | np.generic | np.ndarray):
        return None
    if np.ndim(init_value) == 0 and init_value == -np.inf:
        return _maxima if computation in (lax.max, jnp.maximum) else None
    if np.ndim(init_value) == 0 and init_value == 0:
        return _sums if computation in (lax.add, jnp.add) else None
    return None


def _maxima(x: jax.Array, problem: Problem) -> jax.Array:
    y, _ = pooling_rule.max_pooling(x, problem, derivatives=None)
    return y


def _sums(x: jax.Array, problem: Problem) -> jax.Array:
    return pooling_rule.average_pooling(x, replace(problem, divisor=1), derivatives=None)


def max_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """What ``flax.linen.max_pool`` computes: channels last, any number of axes before.

    The equation and its derivative are those of :func:`reduce_window`.

    Args:
      inputs: images ``(…, H, W, C)``, for a window of two dimensions.
      window_shape: (K_h, K_w), one entry for each spatial dimension.
      strides: s, one entry for each; as in flax all are 1 by default, unlike those of
        :func:`jaxcnn.max_pool2d`.
      padding: ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, or a (low, high) pair for each
        dimension.

    Returns:
      Images ``(…, H_out, W_out, C)`` of the same dtype. Where a window sees nothing but
      padding, the maximum is −∞.

    Raises:
      ValueError: when there are not as many strides or pairs as entries of
        ``window_shape``, or ``inputs`` has no axis for each of these and the channels.

    Derivatives, cost: those of :func:`jaxcnn.max_pool2d`.

    Source: ``flax.linen.max_pool``.

    >>> max_pool(jnp.arange(6.0).reshape(2, 3, 1), (2, 2)).tolist()
    [[[4.0], [5.0]]]
    """
    windows = _over_images(inputs.ndim, window_shape, strides, padding)
    return reduce_window(inputs, -np.inf, lax.max, *windows)


def avg_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """What ``flax.linen.avg_pool`` computes: channels last, any number of axes before.

    The sums, whose equation and derivative are those of :func:`reduce_window`, divided by
    how many elements were summed.

    Args:
      inputs, window_shape, strides, padding: as for :func:`max_pool`.
      count_include_pad: whether zeros of the padding count as elements.

    Returns:
      Images ``(…, H_out, W_out, C)`` of the same dtype (float32 for integers).

    Raises:
      ValueError: as for :func:`max_pool`.

    Derivatives, cost: those of :func:`jaxcnn.avg_pool2d`.

    Source: ``flax.linen.avg_pool``.

    >>> avg_pool(jnp.arange(6.0).reshape(2, 3, 1), (2, 2)).tolist()
    [[[2.0], [3.0]]]
    """
    windows = _over_images(inputs.ndim, window_shape, strides, padding)
    sums = reduce_window(inputs, 0, lax.add, *windows)
    if count_include_pad:
        return sums / math.prod(window_shape)
    n = len(window_shape)
    one_image = [1] * (inputs.ndim - n - 1) + [*inputs.shape[-n - 1 : -1], 1]
    return sums / reduce_window(jnp.ones(one_image, sums.dtype), 0, lax.add, *windows)


def _over_images(
    ndim: int,
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
) -> tuple[tuple[int, ...], tuple[int, ...], Padding]:
    """Windows and strides for all axes, and padding, as :func:`reduce_window` has them."""
    n = len(window_shape)
    strides = entries(strides, n)
    for name, given in (("strides", strides), ("padding", padding)):
        if not isinstance(given, str) and len(given) != n:
            raise ValueError(
                f"{name} is {given!r}; it must have {n} entries, one for each of "
                f"window_shape {tuple(window_shape)}"
            )
    if ndim <= n:
        raise ValueError(
            f"inputs has {ndim} axes; for window_shape {tuple(window_shape)} it must have "
            f"at least {n + 1}, the last of them the channels"
        )
    batch = ndim - n - 1
    pads = padding if isinstance(padding, str) else [(0, 0)] * batch + [*padding, (0, 0)]
    return (1,) * batch + (*window_shape, 1), (1,) * batch + (*strides, 1), pads
