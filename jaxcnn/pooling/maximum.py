"""Max pooling and its inverse, as public functions.

Each checks its arguments, describes the problem statically and hands its array to
:mod:`jaxcnn.pooling.rule`, where JAX is told how to differentiate and to map it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.arguments import Padding, PoolingOptions
from jaxcnn.layout import (
    Floats,
    Integers,
    channels_last,
    merge_axes,
    spatial_axes,
    spatial_size,
    with_spatial,
)
from jaxcnn.pooling import rule
from jaxcnn.primitives import computing, formula, into_the_batch, transposes_of_each_other
from jaxcnn.window import positions

Pooled = Any
"""Float[Array, "..."], or with ``return_indices`` a pair of it and Int[Array, "..."]."""


class MaxOptions(PoolingOptions, total=False):
    """The options of :func:`max_pool2d` that do not depend on the number of dimensions."""

    return_indices: bool


def max_pool2d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Pooled:
    r"""Keep the largest value of every window: two-dimensional max pooling.

    .. math::

        Y_{b,c,i,j} = \max_{m,n} X_{b,\, c,\; s i + d m - p,\; s j + d n - p}
        \qquad
        \frac{\partial L}{\partial X_{b,c,k,l}} = \sum_{i,j}
            \frac{\partial L}{\partial Y_{b,c,i,j}}
            \big[(k, l) \text{ is the maximum of window } (i, j)\big]

    Of several equal maxima the first in row-major order receives the gradient, as in
    PyTorch and in XLA. A NaN beats every number. Padding never wins.

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last. One of float32, float64, bfloat16, float16.
      kernel_size: (K_h, K_w), or one int for both.
      stride: s, an int or one for each dimension; by default the kernel size.
      padding: p, an int, one for each dimension, a (low, high) pair for each dimension,
        or ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, as for :func:`jaxcnn.conv2d`.
      dilation: d, the distance between the elements of a window.
      ceil_mode: whether a last window that reaches beyond the padded image counts, if it
        begins before the padding after the image.
      return_indices: whether to return, too, where each maximum was.
      layout: ``"NCHW"`` or ``"NHWC"``.
      engine: how it is computed: ``"auto"`` lets the plan choose.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the loops itself. By default ``"custom"``, or what ``with``
        :func:`jaxcnn.derivatives` says.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none;
      with ``return_indices`` a pair of them and, in the same shape, the places of the
      maxima in a flattened channel: row · W + column, as int32.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when x's rank or the window does not fit, a window could lie wholly in
        padding, or an option is unknown.

    Derivatives: the winner of each window is kept, one byte where a window has at most 128
    elements, and not x. Tangents are taken where the winners are, and gradients placed
    there.

    Cost: B · C · H_out · W_out · K_h · K_w comparisons.

    Source: docs/equations.md, "Max pooling".

    >>> x = jnp.array([[[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 2.0]]])
    >>> max_pool2d(x, 2)
    Array([[[5., 2.]]], dtype=float32)
    >>> max_pool2d(x, 2, return_indices=True)[1]
    Array([[[1, 2]]], dtype=int32)
    >>> jax.grad(lambda x: max_pool2d(x, 2).sum())(x)
    Array([[[0., 1., 1., 0.],
            [0., 0., 0., 0.]]], dtype=float32)
    """
    return _max_pool(
        dimensions=2,
        x=x,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        layout=layout,
        dilation=dilation,
        ceil_mode=ceil_mode,
        return_indices=return_indices,
        engine=engine,
        derivatives=derivatives,
    )


def max_pool1d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCW",
    **options: Unpack[MaxOptions],
) -> Pooled:
    """Keep the largest value of every window: one-dimensional max pooling.

    Arguments, results and errors are those of :func:`max_pool2d`, for sequences
    ``(B, C, W)`` or ``(C, W)``; with ``layout="NWC"``, channels last.

    >>> max_pool1d(jnp.array([[1.0, 5.0, 2.0, 4.0, 3.0]]), 2, ceil_mode=True)
    Array([[5., 4., 3.]], dtype=float32)
    """
    return _max_pool(1, x, kernel_size, stride, padding, layout, **options)


def max_pool3d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCDHW",
    **options: Unpack[MaxOptions],
) -> Pooled:
    """Keep the largest value of every window: three-dimensional max pooling.

    Arguments, results and errors are those of :func:`max_pool2d`, for volumes
    ``(B, C, D, H, W)`` or ``(C, D, H, W)``; with ``layout="NDHWC"``, channels last.

    >>> max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 2)
    Array([[[[7.]]]], dtype=float32)
    """
    return _max_pool(3, x, kernel_size, stride, padding, layout, **options)


def _max_pool(
    dimensions: int,
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    *,
    return_indices: bool = False,
    derivatives: str | None = None,
    **options: Any,
) -> Pooled:
    arguments.only(options, MaxOptions)
    arguments.one_layout(layout, dimensions)
    arguments.flag("return_indices", return_indices)
    x, is_batch = arguments.images("x", x, layout)
    problem = arguments.pooling_problem(
        spatial_size(x, layout), kernel_size, stride, padding, layout, **options
    )
    y, winner = rule.max_pooling(x, problem, derivatives)
    if not return_indices:
        return y if is_batch else y[0]
    at = flat_index(positions(winner, problem.window, layout), problem.input_size)
    return (y, at) if is_batch else (y[0], at[0])


def flat_index(position: Sequence[Integers], size: Sequence[int]) -> Integers:
    """The row-major number of a position in a grid of this size."""
    index = jnp.zeros_like(position[0])
    for each, length in zip(position, size, strict=True):
        index = index * length + each
    return index


# --- Its inverse ----------------------------------------------------------------------


def _unpool(x: Floats, indices: Integers, *, length: int, axis: int) -> Floats:
    """Y[indices] = X, in images (B, C, positions), or with these along axis 1"""

    def put(x, at):
        return jnp.zeros(length, x.dtype).at[at].set(x, mode="drop")

    return _for_each_channel(put, axis)(x, indices)


def _unpool_gradient(dy: Floats, indices: Integers, *, length: int, axis: int) -> Floats:
    """dX = dY[indices]"""
    del length

    def take(dy, at):
        return dy.at[at].get(mode="fill", fill_value=0)

    return _for_each_channel(take, axis)(dy, indices)


def _for_each_channel(function: Callable, axis: int) -> Callable:
    channels = 2 - axis  # of the two axes of one image, the one that is left
    return jax.vmap(jax.vmap(function, channels, channels))


UNPOOL = formula(_unpool, "max_unpool", mapped=into_the_batch)
UNPOOL_GRADIENT = formula(_unpool_gradient, "max_unpool_gradient", mapped=into_the_batch)
transposes_of_each_other(UNPOOL, UNPOOL_GRADIENT)


class UnpoolOptions(TypedDict, total=False):
    """The options of :func:`max_unpool2d`, whatever the number of dimensions."""

    output_size: int | Sequence[int] | None
    derivatives: str | None


def max_unpool2d(
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    output_size: int | Sequence[int] | None = None,
    layout: str = "NCHW",
    derivatives: str | None = None,
) -> Floats:
    r"""Put the maxima back where they were: the partial inverse of :func:`max_pool2d`.

    .. math::

        Y_{b,c,\, \text{indices}_{b,c,i,j}} = X_{b,c,i,j} \qquad
        \frac{\partial L}{\partial X_{b,c,i,j}} =
            \frac{\partial L}{\partial Y_{b,c,\, \text{indices}_{b,c,i,j}}}

    and zero everywhere else. Where several windows had the same maximum, one of the
    entries of x for it is put there.

    Args:
      x: pooled images ``(B, C, H_out, W_out)``, or one, ``(C, H_out, W_out)``; with
        ``layout="NHWC"``, channels last.
      indices: integers of x's shape, as :func:`max_pool2d` returns them.
      kernel_size, stride, padding: those of the pooling, which tell the size of its input
        where the windows covered it exactly: s·(H_out − 1) + K − 2p.
      output_size: (H, W), the size of the pooling's input where it was another, or its
        whole shape.
      layout: ``"NCHW"`` or ``"NHWC"``.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`max_pool2d`.

    Returns:
      Images ``(B, C, H, W)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError: when x is not of a supported float dtype, or indices are no integers.
      ValueError: when the shapes do not fit, or an index lies outside the output. Indices
        can only be looked at where they are concrete: under ``jit``, those outside are
        left out.

    Derivatives: the indices are kept, which have no gradient. Where several windows
    had the same maximum, each of their entries gets the gradient of its place, as in
    PyTorch; by autodiff only the entry that was put there does.

    Source: ``torch.nn.functional.max_unpool2d``.

    >>> x = jnp.array([[[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 2.0]]])
    >>> max_unpool2d(*max_pool2d(x, 2, return_indices=True), kernel_size=2)
    Array([[[0., 5., 2., 0.],
            [0., 0., 0., 0.]]], dtype=float32)
    """
    return _max_unpool(
        dimensions=2,
        x=x,
        indices=indices,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        layout=layout,
        output_size=output_size,
        derivatives=derivatives,
    )


def max_unpool1d(
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCW",
    **options: Unpack[UnpoolOptions],
) -> Floats:
    """Put the maxima back where they were: the partial inverse of :func:`max_pool1d`.

    Arguments, results and errors are those of :func:`max_unpool2d`, for sequences.

    >>> y, indices = jnp.array([[5.0, 4.0]]), jnp.array([[1, 3]])
    >>> max_unpool1d(y, indices, 2)
    Array([[0., 5., 0., 4.]], dtype=float32)
    """
    return _max_unpool(1, x, indices, kernel_size, stride, padding, layout, **options)


def max_unpool3d(
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCDHW",
    **options: Unpack[UnpoolOptions],
) -> Floats:
    """Put the maxima back where they were: the partial inverse of :func:`max_pool3d`.

    Arguments, results and errors are those of :func:`max_unpool2d`, for volumes.

    >>> y, indices = jnp.array([[[[9.0]]]]), jnp.array([[[[6]]]])
    >>> max_unpool3d(y, indices, 2)[0, 1]
    Array([[0., 0.],
           [9., 0.]], dtype=float32)
    """
    return _max_unpool(3, x, indices, kernel_size, stride, padding, layout, **options)


def _max_unpool(
    dimensions: int,
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    *,
    output_size: int | Sequence[int] | None = None,
    derivatives: str | None = None,
    **unknown: Any,
) -> Floats:
    arguments.only(unknown, UnpoolOptions)
    arguments.one_layout(layout, dimensions)
    x, is_batch = arguments.images("x", x, layout)
    indices = arguments.integers("indices", indices)
    indices = indices if is_batch else indices[None]
    arguments.shape_is("indices", indices, x.shape, "that of x")
    stride = kernel_size if stride is None else stride
    if output_size is None:
        _, size = arguments.transposed_window(
            spatial_size(x, layout), kernel_size, stride, padding
        )
    else:
        size = _size_of_output(output_size, x, is_batch, layout)
        arguments.window_over(size, kernel_size, stride, padding, ceil_mode=True)
    length = math.prod(size)
    arguments.in_range(
        "indices", indices, length, f"an output of size {size} has the places"
    )
    if indices.dtype.itemsize < 4:
        indices = indices.astype("int32")
    if length > jnp.iinfo(indices.dtype).max:
        raise ValueError(
            f"kernel_size is {kernel_size!r}, stride {stride!r} and output_size "
            f"{output_size!r}: the output of size {size} has {length} places, more than "
            f"indices of {indices.dtype} can name"
        )
    indices = jnp.where(indices < 0, length, indices)  # which would count from the end
    axis = 1 if channels_last(layout) else 2
    y = computing(UNPOOL, derivatives)(
        merge_axes(x, axis, dimensions),
        merge_axes(indices, axis, dimensions),
        length=length,
        axis=axis,
    )
    y = y.reshape(with_spatial(x.shape, size, layout))
    return y if is_batch else y[0]


def _size_of_output(
    output_size: int | Sequence[int], x: Floats, is_batch: bool, layout: str
) -> tuple[int, ...]:
    """(H, W), given as such or within the whole shape of the output."""
    letters = layout if is_batch else layout.replace("N", "")
    if not arguments.is_sequence(output_size) or len(output_size) != len(letters):
        return arguments.size("output_size", output_size, len(layout) - 2)
    axes = spatial_axes(letters)
    size = arguments.size("output_size", [output_size[axis] for axis in axes], len(axes))
    pooled = x.shape if is_batch else x.shape[1:]
    wanted = tuple(with_spatial(pooled, size, letters))
    if tuple(output_size) != wanted:
        raise ValueError(
            f"output_size is {output_size!r}; for x of shape {pooled} it must be {size} "
            f"or {wanted}"
        )
    return size
