"""From what a user writes to what the library computes with.

Every public function hands its arguments to this file before anything is computed, and
this file answers with arrays and a static description, or with an exception that names
the argument, what it got and what it wants. What passes for what is decided here, once, so
that a call means the same under ``jit`` and outside of it:

    arrays      what JAX's own functions take for one: JAX's and NumPy's, and numbers; not
                lists, and not what another library calls an array. A float64 array of
                NumPy's is float32, unless jax_enable_x64 is on, as everywhere in JAX.
    ints        Python's and NumPy's, and neither True nor an array of one
    numbers     likewise, and not NaN
    several     a sequence, but neither text nor bytes
    flags       True and False, and neither 1 nor an array
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypedDict, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool

from jaxcnn.engines import ENGINES
from jaxcnn.layout import (
    LAYOUTS,
    Floats,
    Integers,
    Length,
    are_known,
    is_known,
    spatial_axes,
    weight_layout,
)
from jaxcnn.problem import Problem
from jaxcnn.sharding import replicated_along
from jaxcnn.window import (
    PADDING_NAMES,
    Pairs,
    Window,
    named_padding,
    rounded_up,
)

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

MOST_POSITIONS = np.iinfo(np.int32).max
"""So many an int32 counts, by which the positions of a channel are indexed."""

DTYPES = ("float32", "float64", "bfloat16", "float16")
_DTYPES = tuple(map(jnp.dtype, DTYPES))
_FLOATS = ", ".join(DTYPES)


EVERY_LAYOUT = tuple(layout for layouts in LAYOUTS.values() for layout in layouts)


class Options(TypedDict, total=False):
    """The options of every operation that engines compute, in any number of dimensions."""

    engine: str
    derivatives: str | None


class ConvolvingOptions(Options, total=False):
    """Those of every convolution and of its gradients."""

    stride: int | Sequence[int]
    padding: Padding
    dilation: int | Sequence[int]
    precision: PrecisionLike


class PoolingOptions(Options, total=False):
    """Those of every pooling by a window that slides."""

    dilation: int | Sequence[int]
    ceil_mode: bool


SAY_HOW_LARGE = (
    ", or say how large a symbol is, as in jax.export.symbolic_shape('b, h, w', "
    "constraints=['h >= 8', 'w >= 8'])"
)


_ARRAYS = (np.ndarray, np.generic, bool, int, float, complex)
"""What becomes an array, besides those of JAX's: what JAX's own functions take for one."""


def _array(name: str, value: Any, wanted: str = "an array") -> jax.Array:
    """``value`` as a JAX array.

    An array of NumPy's gets the dtype that it has everywhere in JAX: float64 becomes
    float32, unless ``jax_enable_x64`` is on.
    """
    if isinstance(value, jax.Array):
        return value
    is_one = isinstance(value, _ARRAYS) and not isinstance(value, np.ma.MaskedArray)
    if is_one or hasattr(value, "__jax_array__"):
        try:
            return jnp.asarray(value)
        except (TypeError, OverflowError):
            pass  # strings, objects, dates, and ints of any size, which JAX has not
    of_dtype = f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
    raise TypeError(
        f"{name} is a {type(value).__name__}{of_dtype}; it must be {wanted}: jnp.asarray "
        f"makes one"
    )


def float_array(name: str, value: ArrayLike | None) -> Floats:
    """``value`` as a JAX array of one of the float dtypes."""
    array = _array(name, value)
    if array.dtype not in _DTYPES:
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be one of {_FLOATS}: "
            f"convert it first, as in {name}.astype(jnp.float32)"
        )
    return array


def integers(name: str, value: ArrayLike, wanted: str = "integers") -> Integers:
    """``value`` as a JAX array of integers."""
    array = _array(name, value, f"an array of {wanted}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} has dtype {array.dtype}; it must be {wanted}")
    return array


def truths(
    name: str, value: ArrayLike, shape: Sequence[int], because: str
) -> Bool[Array, "..."]:
    """``value`` as a JAX array of truth values, of this shape."""
    array = _array(name, value, "an array of truth values")
    if array.dtype != jnp.bool:
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be truth values, as in {name} > 0"
        )
    shape_is(name, array, shape, because)
    return array


def in_range(name: str, array: Integers, end: int, of_what: str) -> None:
    """Refuse integers outside 0 … end − 1. Under ``jit`` they cannot be looked at."""
    if isinstance(array, Tracer) or not array.size:
        return
    values = np.asarray(array)  # under jit, np.min(array) would be traced
    smallest, largest = values.min(), values.max()
    if smallest < 0 or largest >= end:
        raise ValueError(
            f"{name} run from {smallest} to {largest}; {of_what} 0 to {end - 1}"
        )


def same_dtype(name: str, array: Floats, other_name: str, other: Floats) -> None:
    if array.dtype != other.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {other_name} has {other.dtype}: "
            f"convert one of them, as in {name}.astype({other_name}.dtype)"
        )


def whole(name: str, value: Any, wanted: str = "an int") -> int:
    """An int of Python's or of NumPy's, and neither a truth value nor an array."""
    if type(value) is int:  # what most calls have, and no abstract class to ask
        return value
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be {wanted}")
    return int(value)


def number(name: str, value: float) -> float:
    """A number, and neither a truth value, an array nor a NaN."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a number, and not an array")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.nan
    if math.isnan(converted):
        raise ValueError(f"{name} is {value!r}; it must be a number that floats have")
    return converted


def positive(name: str, value: float) -> int | float:
    """A positive, finite number; an int where it is whole: powers by ints are exact."""
    checked = number(name, value)
    if not 0 < checked < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a positive, finite number")
    return int(checked) if checked.is_integer() and checked < 2**31 else checked


def fraction(name: str, value: float) -> float:
    """A number from 0 to 1."""
    checked = number(name, value)
    if not 0 <= checked <= 1:
        raise ValueError(f"{name} is {value!r}; it must lie between 0 and 1")
    return checked


def flag(name: str, value: bool) -> bool:
    """True or False, and not traced."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; it must be True or False, and not traced")
    return bool(value)


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}"
        )
    return value


def only(options: Mapping[str, Any], known: type) -> None:
    """Refuse an option that is none of a function's, whose options a TypedDict names."""
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(
                f"{name} is no option of this function; its options are "
                f"{', '.join(known.__annotations__)}, and what its signature names"
            )


@lru_cache(maxsize=256)
def _is_precision(value: Any) -> bool:
    one = jax.ShapeDtypeStruct((1, 1), "float32")
    try:
        jax.eval_shape(lambda x: jax.lax.dot(x, x, precision=value), one)
    except (TypeError, ValueError):
        return False
    return True


def precision_of_products(value: Any) -> PrecisionLike:
    """What :func:`jax.lax.dot_general` takes for a precision."""
    value = tuple(value) if isinstance(value, list) else value
    try:
        if value is None or _is_precision(value):
            return value
    except TypeError:  # not hashable
        pass
    raise ValueError(
        f"precision is {value!r}; it must be None, 'default', 'high' or 'highest', a pair "
        f"of these, or what else jax.lax.dot_general takes"
    )


def one_engine(engine: str) -> str:
    """The name of an engine, or ``"auto"``."""
    return one_of("engine", engine, ("auto", *ENGINES))


def one_layout(layout: str, dimensions: int = 2) -> str:
    return one_of("layout", layout, LAYOUTS[dimensions])


def images(name: str, value: ArrayLike, layout: str) -> tuple[Floats, bool]:
    """An image or a batch of images, as a batch, and whether it was a batch."""
    array = float_array(name, value)
    batched = _letters_of(layout)
    if array.ndim not in (len(layout), len(layout) - 1):
        raise ValueError(
            f"{name} has shape {array.shape}; with layout {layout!r} it must be "
            f"{batched}, or {batched.replace('N, ', '')} for a single image"
        )
    is_batch = array.ndim == len(layout)
    array = array if is_batch else array[None]
    # The batch and the channels may be sharded; spatial dimensions may not.
    return replicated_along(array, spatial_axes(layout)), is_batch


def weights(name: str, value: ArrayLike, layout: str) -> Floats:
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
    input_size: Sequence[Length],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    *,
    ceil_mode: bool = False,
) -> Window:
    """The window that a user's arguments mean for an input of this size.

    Args:
      input_size: H, one entry for each spatial dimension.
      kernel_size, stride, dilation: an int for every dimension, or one for each.
      padding: an int for every side, one for each dimension, a (low, high) pair for
        each dimension, or a name (see :func:`jaxcnn.window.named_padding`).
      ceil_mode: whether the last window may reach beyond the padded input.

    Raises:
      TypeError, ValueError: when an argument is of another form, or the window is
        larger than the padded input, or the padding is more than int32 counts.

    >>> window_over((5, 6), 3, stride=2, padding="SAME").padding
    ((1, 1), (0, 1))
    """
    n = len(input_size)
    kernel_size = one_for_each("kernel_size", kernel_size, n)
    stride = one_for_each("stride", stride, n)
    dilation = one_for_each("dilation", dilation, n)
    unpadded = Window(kernel_size, stride, ((0, 0),) * n, dilation)
    pairs = _padding_pairs(padding, input_size, unpadded)
    window = Window(kernel_size, stride, pairs, dilation).bounded(input_size)
    padded = window.padded_size(input_size)
    if ceil_mode:
        if any(high < 0 for _, high in window.padding):
            raise ValueError(
                f"padding is {padding!r}, which crops the end of the input: with ceil_mode "
                f"the last window would see it all the same; use padding of 0 or more there"
            )
        window = rounded_up(window, input_size)
    fits = is_known(lambda: 0 not in window.output_size(input_size))
    if not fits and 0 not in input_size:
        numbers = are_known(input_size)
        raise ValueError(
            f"kernel_size {kernel_size} with dilation {dilation} spans {window.extent}, "
            f"{'' if numbers else 'perhaps '}more than the input of size "
            f"{tuple(input_size)} with padding {window.padding}, which is {padded}: use a "
            f"smaller kernel_size or more padding"
            f"{'' if numbers else SAY_HOW_LARGE}"
        )
    _few_enough(
        f"padding is {padding!r}, kernel_size {kernel_size} and dilation {dilation}",
        window,
        input_size,
        input_size,
    )
    return window


def transposed_window(
    output_size: Sequence[Length],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
) -> tuple[Window, tuple[Length, ...]]:
    """The window that has an output of this size, and the size of its input.

    That size is s·(H_out − 1) + d·(K−1) + 1 − p_low − p_high + ``output_padding``. The last
    is less than s, since the window would take another step otherwise. With a named padding
    it is the largest H for which that padding makes ⌈H/s⌉ = H_out, and with ``"VALID"``
    that of :func:`jax.lax.conv_transpose`.

    Raises:
      TypeError, ValueError: when an argument is of another form, or no input is left, or
        it has more positions than int32 counts.

    >>> transposed_window((5, 5), 3, stride=2, padding=1, output_padding=(0, 1))[1]
    (9, 10)
    >>> transposed_window((5, 5), 3, stride=2, padding="SAME")[1]
    (10, 10)
    """
    n = len(output_size)
    kernel_size = one_for_each("kernel_size", kernel_size, n)
    stride = one_for_each("stride", stride, n)
    dilation = one_for_each("dilation", dilation, n)
    extra = one_for_each("output_padding", output_padding, n)
    window = Window(kernel_size, stride, ((0, 0),) * n, dilation)
    if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"output_padding is {output_padding!r}; it must not be negative, and smaller "
            f"than stride {stride} or dilation {dilation}"
        )
    if isinstance(padding, str):
        sizes = zip(output_size, stride, window.extent, strict=True)
        if padding.upper() == "VALID":
            size = tuple(out * s + max(extent - s, 0) for out, s, extent in sizes)
        else:
            size = tuple(out * s for out, s, _ in sizes)
        pairs = _padding_pairs(padding, size, window)
    else:
        pairs = _padding_pairs(padding, output_size, window)
        sizes = zip(output_size, stride, window.extent, pairs, strict=True)
        size = tuple(
            s * (out - 1) + extent - low - high for out, s, extent, (low, high) in sizes
        )
    size = tuple(h + e for h, e in zip(size, extra, strict=True))
    smallest = 0 if 0 in output_size else 1
    if not is_known(lambda: all(h >= smallest for h in size)):
        raise ValueError(
            f"padding is {padding!r}, which leaves nothing of the result: its size would "
            f"be {size}{'' if are_known(size) else SAY_HOW_LARGE}"
        )
    # The padding after the input that leaves room for exactly these positions.
    sums = zip(output_size, size, stride, window.extent, pairs, strict=True)
    pairs = tuple(
        (low, s * (out - 1) + extent - low - h) for out, h, s, extent, (low, _) in sums
    )
    window = Window(kernel_size, stride, pairs, dilation).bounded(size)
    _few_enough(
        f"stride is {stride}, padding {padding!r}, kernel_size {kernel_size} and dilation "
        f"{dilation}",
        window,
        size,
        output_size,
    )
    return window, size


def _few_enough(
    what: str, window: Window, size: Sequence[Length], given: Sequence[Length]
) -> None:
    """Refuse what adds more positions to a channel, padding included, than can be indexed.

    Engines allocate them, or a table of them, and XLA ends the process where their number
    does not fit its own integers.
    """
    padded = window.padded_size(size)
    edges = [edge for pair in window.padding for edge in pair]
    if not are_known([*padded, *size, *given, *edges]):
        return
    larger = max(math.prod(max(each, 0) for each in whole) for whole in (size, padded))
    added = larger - math.prod(given)
    if max(added, *map(abs, edges)) > MOST_POSITIONS:
        raise ValueError(
            f"{what}, which would make a channel of size {tuple(given)} one of "
            f"{tuple(size)}, and {padded} with its padding: at most {MOST_POSITIONS} "
            f"positions, which int32 counts, may be added"
        )


def one_for_each(name: str, value: int | Sequence[int], n: int) -> tuple[int, ...]:
    """An int repeated for n spatial dimensions, or a sequence of n ints."""
    wanted = f"{name} is {value!r}; it must be an int or {n} ints"
    try:
        entries = tuple(whole(name, entry) for entry in _repeated(value, n))
    except TypeError:
        raise TypeError(wanted) from None
    if len(entries) != n:
        raise ValueError(wanted)
    return entries


def size(
    name: str, value: int | Sequence[int], n: int, at_least: int = 1
) -> tuple[int, ...]:
    """The size of n spatial dimensions."""
    entries = one_for_each(name, value, n)
    if min(entries) < at_least:
        raise ValueError(f"{name} is {entries}: every entry must be at least {at_least}")
    if math.prod(entries) > MOST_POSITIONS:
        raise ValueError(
            f"{name} is {entries}, {math.prod(entries)} positions in a channel; they must "
            f"be at most {MOST_POSITIONS}, which int32 counts"
        )
    return entries


def _padding_pairs(padding: Padding, input_size: Sequence[Length], window: Window) -> Pairs:
    n = len(input_size)
    names = PADDING_NAMES if n == 1 else PADDING_NAMES[:-1]  # time is one-dimensional
    wanted = (
        f"padding is {padding!r}; it must be an int, {n} ints, {n} (low, high) pairs, or "
        f"one of {', '.join(map(repr, names))}"
    )
    if isinstance(padding, str):
        name = padding.upper()
        if name not in names:
            raise ValueError(wanted)
        return named_padding(name, window, input_size)
    try:
        pairs = tuple(_low_and_high(entry) for entry in _repeated(padding, n))
    except TypeError:
        raise TypeError(wanted) from None
    except ValueError:
        raise ValueError(wanted) from None
    if len(pairs) != n:
        raise ValueError(wanted)
    return pairs


def _low_and_high(entry: int | Sequence[int]) -> tuple[int, int]:
    low, high = _repeated(entry, 2)
    return whole("padding", low), whole("padding", high)


def is_sequence(value: Any) -> TypeGuard[Sequence]:
    """Whether it is several: neither text, nor bytes, whose entries would pass for ints."""
    if isinstance(value, int):
        return False
    several = isinstance(value, Sequence)
    return several and not isinstance(value, str | bytes | bytearray | memoryview)


def _repeated(value: Any, n: int) -> Sequence:
    return value if is_sequence(value) else (value,) * n


def convolution_problem(
    input_size: Sequence[Length],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    *,
    layout: str,
    engine: str = "auto",
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Problem:
    """The static description of a convolution."""
    one_engine(engine)
    groups = number_of_groups(groups)
    precision = precision_of_products(precision)
    window = window_over(input_size, kernel_size, stride, padding, dilation)
    return Problem(
        window, tuple(input_size), layout, engine, groups=groups, precision=precision
    )


def number_of_groups(groups: int) -> int:
    groups = whole("groups", groups, "a positive int")
    if groups < 1:
        raise ValueError(f"groups is {groups}; it must be a positive int")
    return groups


def result_dtype(preferred: DTypeLike | None, x: Floats) -> DTypeLike:
    """The dtype that is asked for the result, or that of x."""
    if preferred is None:
        return x.dtype
    wanted = f"preferred_element_type is {preferred!r}; it must be one of {_FLOATS}"
    try:
        dtype = jnp.dtype(preferred)
    except (TypeError, ValueError):
        raise TypeError(wanted) from None
    if dtype not in _DTYPES:
        raise TypeError(wanted)
    if dtype != jax.dtypes.canonicalize_dtype(dtype):
        raise ValueError(f"preferred_element_type is {dtype}, which wants jax_enable_x64")
    if dtype.itemsize < x.dtype.itemsize:
        raise ValueError(
            f"preferred_element_type is {dtype}, narrower than x's {x.dtype}: convert the "
            f"result instead, as in y.astype({str(dtype)!r})"
        )
    return dtype


def padding_mode_fits(mode: str, problem: Problem) -> None:
    """Refuse padding that the input has too few pixels to fill."""
    window, size = problem.window, problem.input_size
    most = [h - 1 if mode == "reflect" else h for h in size]
    if mode == "replicate":
        most = [math.inf if h else 0 for h in size]
    if mode == "circular" and not are_known(size):
        raise ValueError(
            f"padding_mode is {mode!r}, for which the size of the input must be known, and "
            f"it is {size}: use numbers, or another mode"
        )
    pairs = list(zip(window.padding, most, strict=True))
    if not is_known(lambda: all(0 <= pad <= h for pair, h in pairs for pad in pair)):
        raise ValueError(
            f"padding is {window.padding}, which padding_mode {mode!r} cannot fill from an "
            f"input of size {size}: use padding between 0 and {most}"
        )


def pooling_problem(
    input_size: Sequence[Length],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | float | None = None,
    engine: str = "auto",
) -> Problem:
    """The static description of a pooling, whose stride is its kernel size by default."""
    one_engine(engine)
    flag("ceil_mode", ceil_mode)
    flag("count_include_pad", count_include_pad)
    stride = kernel_size if stride is None else stride
    window = window_over(
        input_size, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode
    )
    if window.sees_only_padding(input_size):
        raise ValueError(
            f"padding is {padding!r}, so that a window of kernel_size "
            f"{window.kernel_size} can lie wholly in the padding of an input of size "
            f"{tuple(input_size)}: use less padding"
        )
    counted = window.padding if count_include_pad else ((0, 0),) * len(input_size)
    if count_include_pad and ceil_mode:
        # Only the padding that was asked for counts, and nothing that ceil_mode adds.
        counted = _padding_pairs(padding, input_size, window)
    return Problem(
        window,
        tuple(input_size),
        layout,
        engine,
        counted=None if counted == window.padding else counted,
        divisor=divisor,
    )


def groups_divide(groups: int, name: str, channels: int) -> None:
    if channels % groups:
        raise ValueError(
            f"groups is {groups}, which does not divide the {channels} channels "
            f"of {name}: use a divisor of {channels}"
        )


def output_channels(w: Floats, problem: Problem) -> int:
    """C_out, the channels that the weights make."""
    c_out = w.shape[weight_layout(problem.layout).index("O")]
    groups_divide(problem.groups, "the output of w", c_out)
    return c_out


def input_channels_fit(x: Floats, w: Floats, problem: Problem) -> None:
    """Refuse weights for another number of channels than x has."""
    c_in = x.shape[problem.layout.index("C")]
    per_group = weight_layout(problem.layout).index("I")
    wanted = list(w.shape)
    wanted[per_group] = c_in // problem.groups
    shape_is(
        "w",
        w,
        wanted,
        f"because x has {c_in} channels in {problem.groups} group(s) "
        f"(w is laid out as {weight_layout(problem.layout)})",
    )


def bias(b: ArrayLike | None, x: Floats, length: int, of_what: str) -> Floats | None:
    """A bias, if there is one: as many entries as there are output channels."""
    if b is None:
        return None
    array = float_array("b", b)
    same_dtype("b", array, "x", x)
    shape_is("b", array, (length,), f"one entry for each {of_what}")
    return array


def shape_is(name: str, array: Floats, wanted: Sequence[int], because: str) -> None:
    if array.shape != tuple(wanted):
        raise ValueError(
            f"{name} has shape {array.shape}; it must be {tuple(wanted)}, {because}"
        )


def has_entries(name: str, array: Floats, axes: Sequence[int]) -> None:
    """Refuse an array that is empty along one of these axes."""
    if any(array.shape[axis] == 0 for axis in axes):
        raise ValueError(
            f"{name} has shape {array.shape}; the sizes of its axes {tuple(axes)} must be "
            f"at least 1"
        )


def _letters_of(layout: str) -> str:
    return f"({', '.join(layout)})"
