"""Pooling to a size that is asked for, and over whole images, as public functions.

Where it divides the size of x, every window has H/H_out elements. Where it does not, there
are windows of two sizes (:mod:`jaxcnn.pooling.adaptive_rule`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.arguments import Options
from jaxcnn.layout import Floats, Integers, are_known, spatial_axes, spatial_size
from jaxcnn.pooling import adaptive_rule, rule
from jaxcnn.pooling.adaptive_rule import Adaptive, Windows, along_axis
from jaxcnn.pooling.maximum import Pooled, flat_index
from jaxcnn.pooling.rule import Winner
from jaxcnn.problem import Problem
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window, positions

Size = int | None | Sequence[int | None]


# --- Maximum --------------------------------------------------------------------------


def adaptive_max_pool2d(
    x: ArrayLike,
    output_size: Size,
    *,
    return_indices: bool = False,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Pooled:
    r"""Max pooling to a size that is asked for.

    .. math::

        Y_{b,c,i,j} = \max_{k,l} X_{b,c,k,l}, \qquad
        \lfloor i H / H_{out} \rfloor \le k < \lceil (i+1) H / H_{out} \rceil

    and likewise for l. The gradient goes to the first maximum, as in
    :func:`jaxcnn.max_pool2d`.

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last. One of float32, float64, bfloat16, float16.
      output_size: (H_out, W_out), or one int for both; None for the size of x.
      return_indices, layout, engine, derivatives: as for :func:`jaxcnn.max_pool2d`.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none;
      with ``return_indices`` a pair of them and the places of the maxima.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when x's rank or the size does not fit, or an option is unknown.

    Derivatives: as for :func:`jaxcnn.max_pool2d`.

    Cost: one comparison for each element of each window. Sizes that divide those of x cost
    what :func:`jaxcnn.max_pool2d` does; others a copy of x besides.

    Source: ``torch.nn.functional.adaptive_max_pool2d``.

    >>> adaptive_max_pool2d(jnp.arange(15.0).reshape(1, 3, 5), (1, 3))
    Array([[[11., 13., 14.]]], dtype=float32)
    """
    return _adaptive_max_pool(
        dimensions=2,
        x=x,
        output_size=output_size,
        layout=layout,
        return_indices=return_indices,
        engine=engine,
        derivatives=derivatives,
    )


def adaptive_max_pool1d(
    x: ArrayLike,
    output_size: Size,
    *,
    return_indices: bool = False,
    layout: str = "NCW",
    **options: Unpack[Options],
) -> Pooled:
    """Max pooling of sequences to a length: :func:`adaptive_max_pool2d` in 1-D.

    >>> adaptive_max_pool1d(jnp.arange(5.0).reshape(1, 5), 3)
    Array([[1., 3., 4.]], dtype=float32)
    """
    return _adaptive_max_pool(
        1, x, output_size, layout, return_indices=return_indices, **options
    )


def adaptive_max_pool3d(
    x: ArrayLike,
    output_size: Size,
    *,
    return_indices: bool = False,
    layout: str = "NCDHW",
    **options: Unpack[Options],
) -> Pooled:
    """Max pooling of volumes to a size: :func:`adaptive_max_pool2d` in 3-D.

    >>> adaptive_max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1))
    Array([[[[3.]],
    <BLANKLINE>
            [[7.]]]], dtype=float32)
    """
    return _adaptive_max_pool(
        3, x, output_size, layout, return_indices=return_indices, **options
    )


def _adaptive_max_pool(
    dimensions: int,
    x: ArrayLike,
    output_size: Size,
    layout: str,
    *,
    return_indices: bool = False,
    engine: str = "auto",
    derivatives: str | None = None,
    **unknown: Any,
) -> Pooled:
    arguments.only(unknown, Options)
    arguments.flag("return_indices", return_indices)
    x, is_batch, adaptive = _described(dimensions, x, output_size, layout, engine)
    # Where windows share pixels, their gradients are added: as wide as sums are.
    wide = x.astype(sum_dtype(x.dtype))
    y, winner = adaptive_rule.maxima(wide, adaptive, derivatives)
    y = y.astype(x.dtype)
    if not return_indices:
        return y if is_batch else y[0]
    at = flat_index(list(_places(winner, adaptive)), spatial_size(x, layout))
    return (y, at) if is_batch else (y[0], at[0])


def _places(winner: Winner, adaptive: Adaptive) -> Iterator[Integers]:
    """Where in the image the winners are, for each spatial dimension."""
    side_by_side = positions(winner, adaptive.side_by_side.window, adaptive.layout)
    for (axis, windows), place in zip(adaptive.along_axes, side_by_side, strict=True):
        to_first = windows.first - windows.width * np.arange(windows.output_size)
        yield place + jnp.asarray(along_axis(to_first, axis, winner.ndim), "int32")


# --- Average --------------------------------------------------------------------------


def adaptive_avg_pool2d(
    x: ArrayLike,
    output_size: Size,
    *,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""Average pooling to a size that is asked for.

    .. math::

        Y_{b,c,i,j} = \frac{1}{n_{i,j}} \sum_{k,l} X_{b,c,k,l}, \qquad
        \lfloor i H / H_{out} \rfloor \le k < \lceil (i+1) H / H_{out} \rceil

    and likewise for l; n is how many they are. Each of them receives 1/n of the gradient.

    Args:
      x, output_size, layout, engine, derivatives: as for :func:`adaptive_max_pool2d`.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError, ValueError: as for :func:`adaptive_max_pool2d`.

    Derivatives, cost: as for :func:`jaxcnn.avg_pool2d`, and a copy of x where a size does
    not divide that of x.

    Source: ``torch.nn.functional.adaptive_avg_pool2d``.

    >>> adaptive_avg_pool2d(jnp.arange(15.0).reshape(1, 3, 5), (1, 3))
    Array([[[5.5, 7. , 8.5]]], dtype=float32)
    """
    return _adaptive_avg_pool(
        2, x, output_size, layout, engine=engine, derivatives=derivatives
    )


def adaptive_avg_pool1d(
    x: ArrayLike,
    output_size: Size,
    *,
    layout: str = "NCW",
    **options: Unpack[Options],
) -> Floats:
    """Average pooling of sequences to a length: :func:`adaptive_avg_pool2d` in 1-D.

    >>> adaptive_avg_pool1d(jnp.arange(5.0).reshape(1, 5), 3)
    Array([[0.5, 2. , 3.5]], dtype=float32)
    """
    return _adaptive_avg_pool(1, x, output_size, layout, **options)


def adaptive_avg_pool3d(
    x: ArrayLike,
    output_size: Size,
    *,
    layout: str = "NCDHW",
    **options: Unpack[Options],
) -> Floats:
    """Average pooling of volumes to a size: :func:`adaptive_avg_pool2d` in 3-D.

    >>> adaptive_avg_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).ravel()
    Array([1.5, 5.5], dtype=float32)
    """
    return _adaptive_avg_pool(3, x, output_size, layout, **options)


def _adaptive_avg_pool(
    dimensions: int,
    x: ArrayLike,
    output_size: Size,
    layout: str,
    *,
    engine: str = "auto",
    derivatives: str | None = None,
    **unknown: Any,
) -> Floats:
    arguments.only(unknown, Options)
    x, is_batch, adaptive = _described(dimensions, x, output_size, layout, engine)
    sums = adaptive_rule.sums(x.astype(sum_dtype(x.dtype)), adaptive, derivatives)
    n = math.prod(
        jnp.asarray(along_axis(windows.sizes, axis, sums.ndim), sums.dtype)
        for axis, windows in adaptive.along_axes
    )
    y = (sums / n).astype(x.dtype)
    return y if is_batch else y[0]


# --- Whole images ---------------------------------------------------------------------


def global_max_pool(
    x: ArrayLike,
    *,
    keepdims: bool = False,
    layout: str = "NCHW",
    **options: Unpack[Options],
) -> Floats:
    """The largest value of every channel.

    Args:
      x: a batch in ``layout``, or one image without its N.
      keepdims: whether to keep the spatial dimensions, each of size 1.
      layout: of one, two or three spatial dimensions, such as ``"NWC"`` or ``"NCDHW"``.
      options: engine, derivatives: as for :func:`jaxcnn.max_pool2d`.

    Returns:
      ``(B, C)``, or ``(C,)`` for one image.

    Raises:
      TypeError, ValueError: as for :func:`adaptive_max_pool2d`.

    >>> global_max_pool(jnp.arange(12.0).reshape(1, 2, 2, 3))
    Array([[ 5., 11.]], dtype=float32)
    """
    y, _ = _globally(rule.max_pooling, x, keepdims, layout, **options)
    return y


def global_avg_pool(
    x: ArrayLike,
    *,
    keepdims: bool = False,
    layout: str = "NCHW",
    **options: Unpack[Options],
) -> Floats:
    """The average of every channel: what a network without dense layers ends with.

    Args:
      x, keepdims, layout: as for :func:`global_max_pool`.
      options: as for :func:`adaptive_avg_pool2d`, of which this is the size 1.

    Returns:
      ``(B, C)``, or ``(C,)`` for one image.

    Raises:
      TypeError, ValueError: as for :func:`adaptive_avg_pool2d`.

    Source: Lin, Chen and Yan, "Network in network" (2014).

    >>> global_avg_pool(jnp.arange(12.0).reshape(1, 2, 2, 3))
    Array([[2.5, 8.5]], dtype=float32)
    """
    return _globally(rule.average_pooling, x, keepdims, layout, **options)


def _globally(
    pool: Callable,
    x: ArrayLike,
    keepdims: bool,
    layout: str,
    *,
    engine: str = "auto",
    derivatives: str | None = None,
    **unknown: Any,
) -> Any:
    """A pooling whose window is as large as the image, all its results."""
    arguments.only(unknown, Options)
    arguments.one_of("layout", layout, arguments.EVERY_LAYOUT)
    arguments.flag("keepdims", keepdims)
    arguments.one_engine(engine)
    x, is_batch = arguments.images("x", x, layout)
    axes, size = spatial_axes(layout), spatial_size(x, layout)
    arguments.has_entries("x", x, axes)
    window = Window(size, (1,) * len(size), ((0, 0),) * len(size), (1,) * len(size))

    def as_asked(y: Floats) -> Floats:
        y = y if keepdims else jnp.squeeze(y, axes)
        return y if is_batch else y[0]

    results = pool(x, Problem(window, size, layout, engine), derivatives)
    return jax.tree.map(as_asked, results)


# --- What they share ------------------------------------------------------------------


def _described(
    dimensions: int, x: ArrayLike, output_size: Size, layout: str, engine: str
) -> tuple[Floats, bool, Adaptive]:
    """The batch, whether it was one, and the static description of its pooling."""
    arguments.one_layout(layout, dimensions)
    arguments.one_engine(engine)
    x, is_batch = arguments.images("x", x, layout)
    size = spatial_size(x, layout)
    arguments.has_entries("x", x, spatial_axes(layout))
    if not are_known(size):
        raise ValueError(
            f"x has shape {x.shape}; its positions must be numbers for a pooling to a size "
            f"that is asked for: use them, or global_max_pool or global_avg_pool"
        )
    several = arguments.is_sequence(output_size)
    entries: Sequence[Any] = output_size if several else (output_size,) * dimensions
    # A None beyond x's dimensions stays, as an entry too many.
    wanted = [
        (*size, -1)[min(k, dimensions)] if entry is None else entry
        for k, entry in enumerate(entries)
    ]
    wanted = arguments.size("output_size", wanted, dimensions)
    windows = tuple(Windows(*each) for each in zip(size, wanted, strict=True))
    return x, is_batch, Adaptive(windows, layout, engine)
