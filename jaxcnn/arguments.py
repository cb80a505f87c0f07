"""From what a user writes to what the library computes with.

Every public function hands its arguments to this file before anything is computed, and
this file answers with arrays and a static description, or with an exception that names
the argument, what it got and what it wants. Sizes of windows are checked in
:mod:`jaxcnn.window`.
"""

import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn.layout import LAYOUTS, weight_layout
from jaxcnn.plan import ENGINES, Problem
from jaxcnn.window import Padding, window_over

Operand = Float[Array, "..."]

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


def one_rule(derivatives: str, custom: Callable, autodiff: Callable) -> Callable:
    """The function with the hand-written rule, or the one that JAX differentiates."""
    one_of("derivatives", derivatives, ("custom", "autodiff"))
    return custom if derivatives == "custom" else autodiff


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
