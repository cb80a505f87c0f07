"""From what a user writes to what the library computes with.

Every public function hands its arguments to this file before anything is computed, and
this file answers with arrays and a static description, or with an exception that names
the argument, what it got and what it wants.
"""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn.layout import LAYOUTS, weight_layout
from jaxcnn.plan import ENGINES, Problem
from jaxcnn.window import PADDING_NAMES, Window, named_padding

Operand = Float[Array, "..."]

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

DTYPES = ("float32", "float64", "bfloat16", "float16")


def float_array(name: str, value: ArrayLike) -> Operand:
    """``value`` as a JAX array of one of the float dtypes."""
    if isinstance(value, list | tuple | str) or value is None:
        raise TypeError(
            f"{name} is a {type(value).__name__}; it must be an array: "
            f"jnp.asarray makes one"
        )
    array = jnp.asarray(value)
    if array.dtype not in map(jnp.dtype, DTYPES):
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be one of {', '.join(DTYPES)}: "
            f"convert it first, as in {name}.astype(jnp.float32)"
        )
    return array


def same_dtype(name: str, array: Operand, other_name: str, other: Operand) -> None:
    if array.dtype != other.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {other_name} has {other.dtype}: "
            f"convert one of them, as in {name}.astype({other_name}.dtype)"
        )


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(
            f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}"
        )
    return value


def one_layout(layout: str, dimensions: int = 2) -> str:
    return one_of("layout", layout, LAYOUTS[dimensions])


def images(name: str, value: ArrayLike, layout: str) -> tuple[Operand, bool]:
    """An image or a batch of images, as a batch, and whether it was a batch."""
    array = float_array(name, value)
    batched = _letters_of(layout)
    if array.ndim not in (len(layout), len(layout) - 1):
        raise ValueError(
            f"{name} has shape {array.shape}; with layout {layout!r} it must be "
            f"{batched}, or {batched.replace('N, ', '')} for a single image"
        )
    is_batch = array.ndim == len(layout)
    return (array if is_batch else array[None]), is_batch


def weights(name: str, value: ArrayLike, layout: str) -> Operand:
    """The weights that go with images in ``layout``."""
    array = float_array(name, value)
    letters = weight_layout(layout)
    if array.ndim != len(letters):
        raise ValueError(
            f"{name} has shape {array.shape}; with layout {layout!r} it must be "
            f"{_letters_of(letters)}: C_out, C_in/groups and the kernel size"
        )
    return array


def window_over(
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Window:
    """The window that a user's arguments mean for an input of this size.

    Args:
      input_size: H, one entry for each spatial dimension.
      kernel_size, stride, dilation: an int for every dimension, or one for each.
      padding: an int for every side, one for each dimension, a (low, high) pair for
        each dimension, or a name (see :func:`jaxcnn.window.named_padding`).

    Raises:
      TypeError, ValueError: when an argument is of another form, or the window is
        larger than the padded input.

    >>> window_over((5, 6), 3, stride=2, padding="SAME").padding
    ((1, 1), (0, 1))
    """
    n = len(input_size)
    kernel_size = one_for_each("kernel_size", kernel_size, n)
    stride = one_for_each("stride", stride, n)
    dilation = one_for_each("dilation", dilation, n)
    unpadded = Window(kernel_size, stride, ((0, 0),) * n, dilation)
    window = Window(
        kernel_size, stride, _padding_pairs(padding, input_size, unpadded), dilation
    )
    padded = window.padded_size(input_size)
    if any(extent > size for extent, size in zip(window.extent, padded, strict=True)):
        raise ValueError(
            f"kernel_size {kernel_size} with dilation {dilation} spans {window.extent}, "
            f"more than the input of size {tuple(input_size)} with padding "
            f"{window.padding}, which is {padded}: use a smaller kernel_size or more "
            f"padding"
        )
    return window


def one_for_each(name: str, value: int | Sequence[int], n: int) -> tuple[int, ...]:
    """An int repeated for n spatial dimensions, or a sequence of n ints."""
    wanted = f"{name} is {value!r}; it must be an int or {n} ints"
    try:
        entries = tuple(map(operator.index, _repeated(value, n)))
    except TypeError:
        raise TypeError(wanted) from None
    if len(entries) != n:
        raise ValueError(wanted)
    return entries


def _padding_pairs(padding, input_size, window):
    n = len(input_size)
    wanted = (
        f"padding is {padding!r}; it must be an int, {n} ints, {n} (low, high) pairs, or "
        f"one of {', '.join(map(repr, PADDING_NAMES))}"
    )
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise ValueError(wanted)
        return named_padding(padding, window, input_size)
    try:
        pairs = tuple(_low_and_high(entry) for entry in _repeated(padding, n))
    except (TypeError, ValueError) as error:
        raise type(error)(wanted) from None
    if len(pairs) != n:
        raise ValueError(wanted)
    return pairs


def _low_and_high(entry):
    low, high = entry if isinstance(entry, Sequence) else (entry, entry)
    return operator.index(low), operator.index(high)


def _repeated(value, n):
    return value if isinstance(value, Sequence) else (value,) * n


def convolution_problem(
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
    layout: str,
    precision: jax.lax.PrecisionLike,
    engine: str,
) -> Problem:
    """The static description of a convolution."""
    one_of("engine", engine, ("auto", *ENGINES))
    try:
        groups = operator.index(groups)
    except TypeError:
        raise TypeError(f"groups is {groups!r}; it must be a positive int") from None
    if groups < 1:
        raise ValueError(f"groups is {groups}; it must be a positive int")
    window = window_over(input_size, kernel_size, stride, padding, dilation)
    return Problem(
        window, tuple(input_size), layout, engine, groups=groups, precision=precision
    )


def pooling_problem(
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    engine: str,
    **options,
) -> Problem:
    """The static description of a pooling, whose stride is its kernel size by default."""
    one_of("engine", engine, ("auto", *ENGINES))
    stride = kernel_size if stride is None else stride
    window = window_over(input_size, kernel_size, stride, padding)
    if window.sees_only_padding(input_size):
        raise ValueError(
            f"padding is {padding!r}, so that a window of kernel_size "
            f"{window.kernel_size} can lie wholly in the padding of an input of size "
            f"{tuple(input_size)}: use less padding"
        )
    return Problem(window, tuple(input_size), layout, engine, **options)


def groups_divide(problem: Problem, name: str, channels: int) -> None:
    if channels % problem.groups:
        raise ValueError(
            f"groups is {problem.groups}, which does not divide the {channels} channels "
            f"of {name}: use a divisor of {channels}"
        )


def shape_is(name: str, array: Operand, wanted: Sequence[int], because: str) -> None:
    if array.shape != tuple(wanted):
        raise ValueError(
            f"{name} has shape {array.shape}; it must be {tuple(wanted)}, {because}"
        )


def _letters_of(layout):
    return f"({', '.join(layout)})"
