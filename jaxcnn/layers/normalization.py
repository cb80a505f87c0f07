"""Normalization over a batch, a layer, groups of channels or instances.

All four subtract a mean and divide by a standard deviation, by one rule (see
:mod:`jaxcnn.layers.normalization_rule`). What differs is what they are taken over:

    batch_norm     the batch and all positions: a mean for each channel
    layer_norm     the last axes: a mean for each example
    group_norm     all positions and a group of channels: a mean for each image and group
    instance_norm  all positions: a mean for each image and channel
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxcnn import arguments, differentiation
from jaxcnn.layers.normalization_rule import applied, normalize
from jaxcnn.layout import LAYOUTS as LAYOUTS_OF_IMAGES
from jaxcnn.layout import (
    Floats,
    Length,
    axes_but,
    grouped,
    merge_channels,
    over_channels,
    spatial_size,
    split_channels,
)
from jaxcnn.rounding import sum_dtype, widened

LAYOUTS = ("NC", *itertools.chain.from_iterable(LAYOUTS_OF_IMAGES.values()))


def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    w: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis_name: str | None = None,
    layout: str = "NCHW",
    derivatives: str | None = None,
) -> tuple[Floats, Floats | None, Floats | None]:
    r"""Give every channel mean 0 and variance 1 over the batch, then scale and shift it.

    .. math::

        Y = w \hat X + b \qquad
        \hat X = \frac{X - \mu}{\sqrt{\sigma^2 + \varepsilon}} \qquad
        \frac{\partial L}{\partial w} = \sum \frac{\partial L}{\partial Y} \hat X \qquad
        \frac{\partial L}{\partial b} = \sum \frac{\partial L}{\partial Y}

        \frac{\partial L}{\partial X} = \frac{1}{\sqrt{\sigma^2 + \varepsilon}} \Big(
            \frac{\partial L}{\partial \hat X}
            - \operatorname{mean} \frac{\partial L}{\partial \hat X} - \hat X
            \operatorname{mean} \Big( \frac{\partial L}{\partial \hat X} \hat X \Big) \Big)
        \qquad \frac{\partial L}{\partial \hat X} = w \frac{\partial L}{\partial Y}

    In training μ and σ² are those of this batch. Afterwards they are the running ones,
    averages over the batches that training saw. Those are constants, so that
    ∂L/∂X = w/√(σ² + ε) ∂L/∂Y.

    A function cannot keep running statistics to itself, as a module of PyTorch does. They
    come in and their successors go out. The training loop carries these to the next step,
    beside the parameters, and the last ones go to inference::

        y, mean, var = batch_norm(x, mean, var, w, b, training=True)
        y, _, _ = batch_norm(x, mean, var, w, b)

    Args:
      x: a batch, ``(B, C, H, W)`` or as ``layout`` says; float32, float64, bfloat16 or
        float16. Half precisions are computed in float32 and rounded once, gradients
        included.
      running_mean, running_var: ``(C,)``, of x's dtype, or float32 where x is of a half
        precision. In training, None for none.
      w, b: scale and shift, likewise; None for 1 and 0.
      training: whether to use, and to average, the statistics of this batch.
      momentum: the share of this batch in the average, from 0 to 1.
      eps: ε, positive.
      axis_name: inside ``shard_map`` or ``vmap``, the axis along which the batch is split:
        in training, mean and variance are then those of the whole batch, not of a part of
        it. Outside, and with automatic or explicit sharding, they always are.
      layout: ``"NC"``, ``"NCW"``, ``"NWC"``, ``"NCHW"``, ``"NHWC"``, ``"NCDHW"`` or
        ``"NDHWC"``.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.relu`.

    Returns:
      Y, of x's shape and dtype, and the running mean and variance: in training their
      successors, or None for None; otherwise those that were given. The running variance
      averages the unbiased estimate, σ² n/(n − 1) with n elements in a channel.

    Raises:
      TypeError: when an array is not of a supported float dtype, dtypes do not go
        together, running statistics are missing, or an option is of another type.
      NameError: when there is no axis called ``axis_name``.
      ValueError: when the shapes do not fit, a channel has less than two elements in
        training, or an option is out of its range.

    Derivatives: x, w and the statistics are kept. X̂ is computed again, which takes less
    time than writing and reading it. No gradient flows into or out of the running
    statistics.

    Cost: x is read once for each of μ, σ² and Y; x and dY once for the three gradients'
    sums and once for ∂L/∂X.

    Source: Ioffe and Szegedy (2015), arXiv:1502.03167;
    :func:`torch.nn.functional.batch_norm`.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> y, mean, var = batch_norm(x, jnp.zeros(1), jnp.ones(1), training=True, layout="NC")
    >>> print(y.T.round(3), mean, var)
    [[-1.  1.]] [0.2] [1.1]
    """
    x = _batch(x, layout)
    channels = (x.shape[layout.index("C")],)
    w, b = (
        over_channels(each, layout)
        for each in _scale_and_shift(w, b, x, channels, CHANNELS)
    )
    training = arguments.flag("training", training)
    if not training or running_mean is not None:
        running_mean = _vector("running_mean", running_mean, x, channels, CHANNELS)
    if not training or running_var is not None:
        running_var = _vector("running_var", running_var, x, channels, CHANNELS)
    momentum = arguments.fraction("momentum", momentum)
    eps = arguments.positive("eps", eps)
    if not training:
        mean, var = (_constant(each, layout) for each in (running_mean, running_var))
        # No rule of its own: JAX has a product and a sum to differentiate.
        y = differentiation.choose(derivatives, applied, applied)(x, w, b, mean, var, eps)
        return y, running_mean, running_var
    axes = axes_but("C", layout)
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    n = devices * math.prod(x.shape[axis] for axis in axes)
    n = _at_least_two(x, n, "channel")
    y, mean, var = normalize(derivatives)(x, w, b, axes, eps, axis_name)
    unbiased = var * n / (n - 1)
    return (
        y,
        _averaged(running_mean, mean, momentum),
        _averaged(running_var, unbiased, momentum),
    )


def _constant(running: Any, layout: str) -> Floats:
    return over_channels(lax.stop_gradient(widened(running)), layout)


def _averaged(
    running: Floats | None, of_this_batch: Floats, momentum: float
) -> Floats | None:
    """The next running statistic; no gradient flows through it."""
    if running is None:
        return None
    of_this_batch = of_this_batch.reshape(running.shape)
    average = (1 - momentum) * widened(running) + momentum * of_this_batch
    return lax.stop_gradient(average).astype(running.dtype)


def layer_norm(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    w: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    derivatives: str | None = None,
) -> Floats:
    r"""Give every example mean 0 and variance 1, then scale and shift each feature.

    The equations are those of :func:`batch_norm`, with mean and variance over the last
    axes of x, and with entries of w and b for each element of these.

    Args:
      x: ``(…, *normalized_shape)``; float32, float64, bfloat16 or float16. Half precisions
        are computed in float32 and rounded once, gradients included.
      normalized_shape: the sizes of the last axes, or of the last one.
      w, b: scale and shift, of shape ``normalized_shape``, of x's dtype, or float32 where x
        is of a half precision; None for 1 and 0.
      eps, derivatives: as for :func:`batch_norm`.

    Returns:
      Y, of x's shape and dtype.

    Raises:
      TypeError: when an array is not of a supported float dtype, dtypes do not go
        together, or an option is of another type.
      ValueError: when the shapes do not fit, or an option is out of its range.

    Derivatives: as for :func:`batch_norm`.

    Source: Ba, Kiros and Hinton (2016), arXiv:1607.06450;
    :func:`torch.nn.functional.layer_norm`.

    >>> print(layer_norm(jnp.array([[1.0, 3.0], [0.0, 8.0]]), 2).round(3))
    [[-1.  1.]
     [-1.  1.]]
    """
    x = arguments.float_array("x", x)
    several = arguments.is_sequence(normalized_shape)
    count = len(normalized_shape) if several else 1
    shape = arguments.one_for_each("normalized_shape", normalized_shape, count)
    if not 0 < count <= x.ndim or x.shape[x.ndim - count :] != shape:
        raise ValueError(
            f"normalized_shape is {normalized_shape!r}; it must be the sizes of the last "
            f"axes of x, which has shape {x.shape}"
        )
    w, b = (
        each.reshape((1,) * (x.ndim - count) + shape)
        for each in _scale_and_shift(w, b, x, shape, "which is normalized_shape")
    )
    axes = tuple(range(-count, 0))
    y, _, _ = normalize(derivatives)(x, w, b, axes, arguments.positive("eps", eps))
    return y


def group_norm(
    x: ArrayLike,
    groups: int,
    w: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
    derivatives: str | None = None,
) -> Floats:
    r"""Give groups of channels of every image mean 0 and variance 1, then scale and shift.

    The equations are those of :func:`batch_norm`, with mean and variance over all positions
    and a run of C/groups channels.

    Args:
      x, w, b, eps, layout, derivatives: as for :func:`batch_norm`.
      groups: how many; they divide the channels.

    Returns:
      Y, of x's shape and dtype.

    Raises:
      TypeError: when an array is not of a supported float dtype, dtypes do not go
        together, or an option is of another type.
      ValueError: when the shapes do not fit, or an option is out of its range.

    Derivatives: as for :func:`batch_norm`.

    Source: Wu and He (2018), arXiv:1803.08494; :func:`torch.nn.functional.group_norm`.

    >>> x = jnp.array([[1.0, 3.0, 0.0, 8.0]])
    >>> print(group_norm(x, 2, layout="NC").round(3))
    [[-1.  1. -1.  1.]]
    """
    x = _batch(x, layout)
    channels = x.shape[layout.index("C")]
    groups = arguments.number_of_groups(groups)
    arguments.groups_divide(groups, "x", channels)
    w, b = (
        split_channels(over_channels(each, layout), groups, layout)
        for each in _scale_and_shift(w, b, x, (channels,), CHANNELS)
    )
    eps = arguments.positive("eps", eps)
    split = split_channels(x, groups, layout)
    axes = axes_but("NG", grouped(layout))
    y, _, _ = normalize(derivatives)(split, w, b, axes, eps)
    return merge_channels(y, layout)


def instance_norm(
    x: ArrayLike,
    w: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    layout: str = "NCHW",
    derivatives: str | None = None,
) -> Floats:
    r"""Give every channel of every image mean 0 and variance 1, then scale and shift.

    It is :func:`group_norm` with a group for each channel.

    Args:
      x, w, b, eps, layout, derivatives: as for :func:`batch_norm`.

    Returns:
      Y, of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`group_norm`, and when an image has only one
        position.

    Derivatives: as for :func:`batch_norm`.

    Source: Ulyanov, Vedaldi and Lempitsky (2016), arXiv:1607.08022;
    :func:`torch.nn.functional.instance_norm`.

    >>> print(instance_norm(jnp.array([[[1.0, 3.0], [0.0, 8.0]]]), layout="NCW").round(3))
    [[[-1.  1.]
      [-1.  1.]]]
    """
    x = _batch(x, layout)
    groups = max(1, x.shape[layout.index("C")])
    _at_least_two(x, math.prod(spatial_size(x, layout)), "channel of an image")
    return group_norm(x, groups, w, b, eps=eps, layout=layout, derivatives=derivatives)


# --- Arguments ------------------------------------------------------------------------

CHANNELS = "one entry for each channel of x"


def _batch(value: ArrayLike, layout: str) -> Floats:
    arguments.one_of("layout", layout, LAYOUTS)
    x = arguments.float_array("x", value)
    if x.ndim != len(layout):
        raise ValueError(
            f"x has shape {x.shape}; with layout {layout!r} it must be a batch, "
            f"({', '.join(layout)})"
        )
    return x


def _vector(
    name: str, value: ArrayLike | None, x: Floats, shape: tuple[int, ...], because: str
) -> Floats:
    """w, b or a statistic, which may be float32 where x is of a half precision."""
    array = arguments.float_array(name, value)
    if array.dtype != sum_dtype(x.dtype):
        arguments.same_dtype(name, array, "x", x)
    arguments.shape_is(name, array, shape, because)
    return array


def _scale_and_shift(
    w: ArrayLike | None,
    b: ArrayLike | None,
    x: Floats,
    shape: tuple[int, ...],
    because: str,
) -> tuple[Floats, Floats]:
    """w and b, or ones and zeros, in the dtype in which x is summed."""
    dtype = sum_dtype(x.dtype)
    w = jnp.ones(shape, dtype) if w is None else _vector("w", w, x, shape, because)
    b = jnp.zeros(shape, dtype) if b is None else _vector("b", b, x, shape, because)
    return widened(w), widened(b)


def _at_least_two(x: Floats, n: Length, each: str) -> Length:
    if n < 2:
        raise ValueError(
            f"x has shape {x.shape}, where every {each} has {n} element(s); it must have "
            f"at least 2, since one alone is its own mean"
        )
    return n
