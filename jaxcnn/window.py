"""A sliding window, and the two things one can do with each of its positions.

A window of kernel size K, stride s, dilation d and padding p slides over an input
of size H. Kernel element m (a *tap*) then meets, at output position i, the input at

    s·i + d·m − p,      i = 0 … H_out − 1,      H_out = ⌊(H + 2p − d·(K−1) − 1)/s⌋ + 1

(for d = 1 the usual ``H_out = ⌊(H + 2p − K)/s⌋ + 1``). Two linear maps follow:

    tap(x, m)[i]            = x[s·i + d·m − p]         zero outside the input
    untap(y, m)[s·i+d·m−p]  = y[i]                     zero everywhere else

and they are each other's transpose: ⟨tap(x, m), y⟩ = ⟨x, untap(y, m)⟩ for all x, y.
Input position k receives from tap m only where (k + p − d·m)/s is a whole number i, and
that is exactly where ``untap`` puts y[i].

Convolution, pooling and all of their gradients are sums of these over m. This is the
only index arithmetic that the equations need; the engines that order the same sums in
another way add their own.

Dimension key: H input size, K kernel size, s stride, d dilation, p padding (low before
the first element, high after the last), m tap, i output position; each of them once
for every spatial dimension.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import max_dim, min_dim
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from jaxcnn.layout import (
    Anything,
    Integers,
    Length,
    is_known,
    spatial_axes,
    spatial_size,
    with_spatial,
)

Tap = Sequence[int] | Int[np.ndarray, " dimensions"] | Int[Array, " dimensions"]
"""In a loop a tap may be a traced array; a tap that is known compiles to better code."""
Pairs = tuple[tuple[Length, Length], ...]
"""(low, high), before and after the input, for each spatial dimension."""
Edges = tuple[Length, Length, int]
"""What ``lax.pad`` adds along an axis: low, high, and between two entries."""
PADDING_NAMES = ("SAME", "SAME_LOWER", "VALID", "CAUSAL")


@dataclass(frozen=True)
class Window:
    """A sliding window over any number of spatial dimensions; hashable, so static.

    Every field has one entry for each spatial dimension. ``window_over`` in
    :mod:`jaxcnn.arguments` builds one from what a user writes (a single int, ``"SAME"``).

    Attributes:
      kernel_size: K, the number of taps.
      stride: s, the step from one output position to the next.
      padding: (low, high), zeros before and after the input; negative values crop it.
      dilation: d, the distance between neighbouring taps.

    Raises:
      ValueError: when the fields differ in length, or a kernel size, a stride or a
        dilation is not positive.

    >>> Window((3,), (2,), ((1, 1),), (1,)).output_size((7,))
    (4,)
    """

    kernel_size: tuple[Length, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("stride", "padding", "dilation"):
            if len(getattr(self, name)) != len(self.kernel_size):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but kernel_size "
                    f"{self.kernel_size} has {len(self.kernel_size)} spatial dimensions: "
                    f"give one entry for each"
                )
        for name in ("kernel_size", "stride", "dilation"):
            if any(entry < 1 for entry in getattr(self, name)):
                raise ValueError(
                    f"{name} is {getattr(self, name)}: every entry must be at least 1"
                )

    @property
    def extent(self) -> tuple[Length, ...]:
        """d·(K−1) + 1: how many input elements the window spans, end to end."""
        return tuple(
            d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)
        )

    @property
    def number_of_taps(self) -> Length:
        return math.prod(self.kernel_size)

    def along(self, dimensions: slice) -> "Window":
        """The window over some of its spatial dimensions.

        >>> Window((3, 5), (1, 2), ((0, 0), (1, 1)), (1, 1)).along(slice(1, 2))
        Window(kernel_size=(5,), stride=(2,), padding=((1, 1),), dilation=(1,))
        """
        return Window(
            self.kernel_size[dimensions],
            self.stride[dimensions],
            self.padding[dimensions],
            self.dilation[dimensions],
        )

    def only(self, *dimensions: int) -> "Window":
        """The window in these spatial dimensions; in the others, one that changes nothing.

        >>> Window((3, 5), (1, 2), ((0, 0), (1, 1)), (1, 1)).only(0).kernel_size
        (3, 1)
        """

        def one_for_each(field: tuple, idle: Any) -> tuple:
            return tuple(each if k in dimensions else idle for k, each in enumerate(field))

        return Window(
            one_for_each(self.kernel_size, 1),
            one_for_each(self.stride, 1),
            one_for_each(self.padding, (0, 0)),
            one_for_each(self.dilation, 1),
        )

    def within(
        self, counted: Pairs, input_size: Sequence[Length]
    ) -> tuple["Window", tuple[Length, ...]]:
        """The same window, over an input that already holds the ``counted`` padding.

        >>> Window((3,), (1,), ((1, 2),), (1,)).within(((1, 1),), (5,))
        (Window(kernel_size=(3,), stride=(1,), padding=((0, 1),), dilation=(1,)), (7,))
        """
        pairs = list(zip(self.padding, counted, strict=True))
        left = tuple((low - a, high - b) for (low, high), (a, b) in pairs)
        sizes = zip(input_size, counted, strict=True)
        return replace(self, padding=left), tuple(size + a + b for size, (a, b) in sizes)

    @property
    def is_padded(self) -> bool:
        return any(pad != (0, 0) for pad in self.padding)

    def padded_size(self, input_size: Sequence[Length]) -> tuple[Length, ...]:
        """H + p_low + p_high."""
        return tuple(
            h + low + high for h, (low, high) in zip(input_size, self.padding, strict=True)
        )

    def output_size(self, input_size: Sequence[Length]) -> tuple[Length, ...]:
        """H_out = ⌊(H + p_low + p_high − d·(K−1) − 1)/s⌋ + 1, never below zero.

        >>> Window((5, 5), (1, 1), ((2, 2), (0, 0)), (1, 1)).output_size((28, 28))
        (28, 24)
        """
        return tuple(
            max(0, (padded - extent) // s + 1)
            for padded, extent, s in zip(
                self.padded_size(input_size), self.extent, self.stride, strict=True
            )
        )

    def sees_only_padding(self, input_size: Sequence[Length]) -> bool:
        """Whether at some output position every tap lies, or may lie, outside the input."""
        if not self.is_padded:
            return False
        sizes = zip(
            self.kernel_size,
            self.stride,
            self.dilation,
            self.padding,
            input_size,
            self.output_size(input_size),
            strict=True,
        )
        for k, s, d, (low, _), size, out in sizes:
            if not isinstance(out, int):
                if not _always_meets(k, s, d, low, size, out):
                    return True
                continue
            if low > d * (k - 1) or s * (out - 1) - low >= size:
                return True  # the first window, or the last one
            # Of a window that begins before the input, the first tap that does not lie
            # before it: where that is repeats itself.
            period = d // math.gcd(s, d)
            first_taps = (start % d for start in range(-low, 0, s)[: min(out, period)])
            if d > size and any(each >= size for each in first_taps):
                return True
        return False

    def bounded(self, input_size: Sequence[Length]) -> "Window":
        """The same window, without a stride or a dilation that it has no use for.

        A step over the whole input is never taken, and a single tap has no neighbour. What
        an engine allocates may grow with both.

        >>> Window((1,), (9,), ((1, 0),), (7,)).bounded((3,))
        Window(kernel_size=(1,), stride=(4,), padding=((1, 0),), dilation=(1,))
        """
        if set(self.stride + self.dilation) <= {1}:
            return self
        sizes = zip(self.stride, self.padded_size(input_size), strict=True)
        stride = tuple(min(s, max(h, 1)) if isinstance(h, int) else s for s, h in sizes)
        taps = zip(self.kernel_size, self.dilation, strict=True)
        dilation = tuple(1 if k == 1 else d for k, d in taps)
        if stride == self.stride and dilation == self.dilation:
            return self
        return replace(self, stride=stride, dilation=dilation)

    def offsets(self) -> np.ndarray:
        """Every tap m, in row-major order: an int32 array of shape (taps, dimensions).

        >>> Window((2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)).offsets().tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
        """
        taps = np.indices(self.kernel_size, np.int32)
        return taps.reshape(len(self.kernel_size), self.number_of_taps).T


def tap(
    x: Anything,
    m: Tap,
    window: Window,
    layout: str,
) -> Anything:
    """What kernel element m sees: ``x[s·i + d·m − p]`` for every output position i.

    Args:
      x: the input, laid out as ``layout`` says.
      m: the tap, one offset for each spatial dimension; may be traced, so that a
        ``lax`` loop can run over taps.
      window: the sliding window.
      layout: such as ``"NCHW"`` or ``"NHWC"``; the axes N, G and C stay as they are.

    Returns:
      An array like x whose spatial dimensions have the window's output size.

    >>> w = Window((3,), (2,), ((1, 1),), (1,))
    >>> x = jnp.arange(1, 6).reshape(1, 1, 5)
    >>> tap(x, (0,), w, "NCW")[0, 0], tap(x, (2,), w, "NCW")[0, 0]
    (Array([0, 2, 4], dtype=int32), Array([2, 4, 0], dtype=int32))
    """
    whole = _pad(x, window, layout)
    span = with_spatial(x.shape, _span(spatial_size(x, layout), window), layout)
    strides = with_spatial([1] * x.ndim, window.stride, layout)
    if isinstance(m, Array):
        start = _start(x.ndim, m, window, layout)
        seen = lax.dynamic_slice(whole, start, span)
        return lax.slice(seen, [0] * x.ndim, span, strides)
    start = with_spatial([0] * x.ndim, _first(m, window), layout)
    end = [first + length for first, length in zip(start, span, strict=True)]
    return lax.slice(whole, start, end, strides)


def untap(
    y: Anything,
    m: Tap,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
) -> Anything:
    """The transpose of :func:`tap`: put ``y[i]`` back at ``s·i + d·m − p``.

    Args:
      y: an array over the window's output positions.
      m: the tap, as for :func:`tap`.
      window: the sliding window.
      input_size: the spatial size of the input that the window slid over.
      layout: such as ``"NCHW"`` or ``"NHWC"``.

    Returns:
      An array like y whose spatial dimensions are ``input_size``: y's entries where tap
      m met the input, zero everywhere else.

    >>> w = Window((3,), (2,), ((1, 1),), (1,))
    >>> untap(jnp.array([[[7, 8, 9]]]), (2,), w, (5,), "NCW")[0, 0]
    Array([0, 7, 0, 8, 0], dtype=int32)
    """
    zero = jnp.zeros((), y.dtype)
    if not isinstance(m, Array):
        # For a known tap, one pad. Cropping is another, since XLA cannot pad and crop a
        # sharded image at once.
        place = [
            (first - low, size - span - (first - low), s - 1)
            for first, (low, _), size, span, s in zip(
                _first(m, window),
                window.padding,
                input_size,
                _span(input_size, window),
                window.stride,
                strict=True,
            )
        ]
        crop = [(_cropped(low), _cropped(high), 0) for low, high, _ in place]
        around = [
            (low - before, high - after, between)
            for (low, high, between), (before, after, _) in zip(place, crop, strict=True)
        ]
        placed = lax.pad(y, zero, _config(y.ndim, around, layout))
        return lax.pad(placed, zero, _config(y.ndim, crop, layout))
    spread = lax.pad(
        y, zero, _config(y.ndim, [(0, 0, s - 1) for s in window.stride], layout)
    )
    padded_shape = with_spatial(y.shape, window.padded_size(input_size), layout)
    placed = lax.dynamic_update_slice(
        jnp.zeros(padded_shape, y.dtype), spread, _start(y.ndim, m, window, layout)
    )
    crop = [(-low, -high, 0) for low, high in window.padding]
    return lax.pad(placed, zero, _config(y.ndim, crop, layout))


def padded(
    x: Anything, window: Window, layout: str, fill: ArrayLike = 0
) -> tuple[Anything, Window]:
    """x with its padding around it, and the same window without padding."""
    return _pad(x, window, layout, fill), unpadded(window)


def unpadded(window: Window) -> Window:
    return replace(window, padding=((0, 0),) * len(window.padding))


def without_padding(window: Window, dimension: int) -> Window:
    """The window whose padding in this dimension is already around the input."""
    padding = list(window.padding)
    padding[dimension] = (0, 0)
    return replace(window, padding=tuple(padding))


EXTENSIONS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""What may stand in the padding instead of zeros, and ``jnp.pad``'s word for it."""


def extended(
    x: Anything, window: Window, layout: str, mode: str
) -> tuple[Anything, Window]:
    """As :func:`padded`, with pixels of x in the padding.

    * ``"reflect"``: x mirrored at its first and last pixels;
    * ``"replicate"``: the nearest pixel;
    * ``"circular"``: the pixels of the other end.

    >>> w = Window((3,), (1,), ((1, 2),), (1,))
    >>> x = jnp.arange(4).reshape(1, 1, 4)
    >>> [extended(x, w, "NCW", mode)[0][0, 0].tolist() for mode in EXTENSIONS]
    [[1, 0, 1, 2, 3, 2, 1], [0, 0, 1, 2, 3, 3, 3], [3, 0, 1, 2, 3, 0, 1]]
    """
    pads = with_spatial([(0, 0)] * x.ndim, window.padding, layout)
    return jnp.pad(x, pads, EXTENSIONS[mode]), unpadded(window)


def positions(winner: Integers, window: Window, layout: str) -> list[Integers]:
    """Where in the input the winners are: s·i + d·m − p, for each spatial dimension.

    Args:
      winner: the row-major number of a tap, at every output position.
      window: the sliding window.
      layout: of winner.

    >>> w = Window((2,), (2,), ((1, 1),), (1,))
    >>> positions(jnp.array([[[1, 0, 1]]]), w, "NCW")[0][0, 0].tolist()
    [0, 1, 4]
    """
    m = jnp.unravel_index(winner.astype(jnp.int32), window.kernel_size)
    axes = spatial_axes(layout)
    return [
        s * lax.broadcasted_iota(jnp.int32, winner.shape, axis) + d * m_k - low
        for axis, m_k, s, d, (low, _) in zip(
            axes, m, window.stride, window.dilation, window.padding, strict=True
        )
    ]


def valid_positions(
    m: Tap,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
) -> Anything:
    """True at the output positions whose tap m lies inside the input, not in padding.

    The result has length 1 along the others, so that it broadcasts.
    """
    inside = jnp.ones(with_spatial([1] * len(layout), input_size, layout), bool)
    return tap(inside, m, window, layout)


def named_padding(name: str, window: Window, input_size: Sequence[Length]) -> Pairs:
    """The padding that a name asks for.

    * ``"VALID"``: none;
    * ``"SAME"``: so much that H_out = ⌈H/s⌉; an odd zero goes to the high side;
    * ``"SAME_LOWER"``: likewise; an odd zero goes to the low side;
    * ``"CAUSAL"``: d·(K − 1) before the input, so that no output sees what comes later.

    Args:
      name: one of the four.
      window: the window; its own padding is ignored.
      input_size: H, one entry for each spatial dimension.

    >>> w = Window((3, 4), (2, 2), ((0, 0), (0, 0)), (1, 1))
    >>> named_padding("SAME", w, (5, 5)), named_padding("SAME_LOWER", w, (5, 5))
    (((1, 1), (1, 2)), ((1, 1), (2, 1)))
    """
    if name == "VALID":
        return ((0, 0),) * len(input_size)
    if name == "CAUSAL":
        return tuple((extent - 1, 0) for extent in window.extent)
    totals = [
        max_dim(0, (-(-h // s) - 1) * s + extent - h)
        for h, s, extent in zip(input_size, window.stride, window.extent, strict=True)
    ]
    smaller_first = tuple((total // 2, total - total // 2) for total in totals)
    if name == "SAME":
        return smaller_first
    return tuple((high, low) for low, high in smaller_first)


def rounded_up(window: Window, input_size: Sequence[Length]) -> Window:
    """The window with one more position where the last one leaves a part unseen.

    H_out = ⌈(H + p_low + p_high − d·(K−1) − 1)/s⌉ + 1, but no window begins in the padding
    after the input: PyTorch's and Keras's ``ceil_mode``. Only the padding after the input
    changes; it must not be negative.

    >>> w = Window((2,), (2,), ((0, 0),), (1,))
    >>> rounded_up(w, (5,)).padding, rounded_up(w, (5,)).output_size((5,))
    (((0, 1),), (3,))
    """
    padding = []
    sizes = zip(
        window.extent,
        window.stride,
        window.padding,
        input_size,
        window.padded_size(input_size),
        strict=True,
    )
    for extent, s, (low, _), size, padded in sizes:
        steps = min_dim(-(-(padded - extent) // s), (size + low - 1) // s)
        padding.append((low, max_dim(0, steps * s + extent - size - low)))
    return replace(window, padding=tuple(padding))


def _always_meets(
    k: Length, s: int, d: int, low: Length, size: Length, out: Length
) -> bool:
    """Whether a window meets an input, wherever it is and whatever the symbols are."""
    first, last = -low, s * (out - 1) - low  # where it begins
    return is_known(lambda: first + d * (k - 1) >= 0 and last < size and d <= size)


def _cropped(edge: Length) -> int:
    """What is cut off where so much is added; nothing where that is a symbol."""
    return min(edge, 0) if isinstance(edge, int) else 0


def _config(ndim: int, spatial: Sequence[Edges], layout: str) -> list[Edges]:
    """A ``lax.pad`` configuration that leaves the other axes alone."""
    return with_spatial([(0, 0, 0)] * ndim, spatial, layout)


def _pad(x: Anything, window: Window, layout: str, fill: ArrayLike = 0) -> Anything:
    pads = [(low, high, 0) for low, high in window.padding]
    return lax.pad(x, jnp.asarray(fill, x.dtype), _config(x.ndim, pads, layout))


def _first(m: Tap, window: Window) -> list[int]:
    """Where tap m meets the padded input first: d·m."""
    return [int(each) * d for each, d in zip(m, window.dilation, strict=True)]


def _start(ndim: int, m: Integers, window: Window, layout: str) -> list[Integers]:
    """d·m for a traced m, as ``lax.dynamic_slice`` wants it."""
    first = [jnp.asarray(m[k] * d, jnp.int32) for k, d in enumerate(window.dilation)]
    return with_spatial([jnp.int32(0)] * ndim, first, layout)


def _span(input_size: Sequence[Length], window: Window) -> list[Length]:
    """s·(H_out − 1) + 1: from the first output position to the last, in input steps."""
    return [
        s * (out - 1) + 1 if out else 0
        for out, s in zip(window.output_size(input_size), window.stride, strict=True)
    ]
