"""Which engine computes what.

An engine (see :mod:`jaxcnn.engines`) is a module with functions that have the names and
the signatures of those in :mod:`jaxcnn.equations`. The plan chooses one for each sum, from
a static description of it and of how it is being lowered: the first of ON_CPU, or of
ON_ACCELERATORS, that fits. It looks at no array and asks for no device: a primitive's
lowering rule (:mod:`jaxcnn.primitives`) tells it for which platform a program is made.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.typing import DTypeLike

from jaxcnn.engines import ENGINES
from jaxcnn.engines.loops.library import at_hand as loops_at_hand
from jaxcnn.layout import (
    Numbers,
    channels_last,
    grouped,
    is_known,
    over_channels,
    turned,
    weight_layout,
    with_channels_last,
)
from jaxcnn.problem import (
    ROLES,
    STATIC_ARGUMENTS,
    Description,
    Problem,
    describe,
)

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Lowering:
    """How a program is made of what was traced.

    Attributes:
      platform: for which: one of PLATFORMS.
      is_exported: whether it is stored, to run in another process.
      is_partitioned: whether XLA may spread arrays over several devices.
      has_loops: whether the compiled loops are at hand.
    """

    platform: str = "cpu"
    is_exported: bool = False
    is_partitioned: bool = False
    has_loops: bool = False

    @property
    def refuses_loops(self) -> str | None:
        """Why a program made so cannot call machine code of this process."""
        if self.platform != "cpu":
            return f"computes on CPUs, and this program is for {self.platform!r}"
        if self.is_exported:
            return "is compiled for this machine, and an exported program runs on others"
        if self.is_partitioned:
            return "computes on one device; let each of several call it, in jax.shard_map"
        return None if self.has_loops else loops_at_hand() or "is not at hand"

    @property
    def refuses_layouts(self) -> str | None:
        """Why in a program made so nobody says how an array lies in memory."""
        if self.is_exported:
            return "says how arrays lie in memory, which an exported program does not keep"
        if self.is_partitioned:
            return (
                "says how arrays lie in memory, by which jax 0.10 gathers them on every "
                "device; let each of several call it, in jax.shard_map"
            )
        return None

    @property
    def is_for_gpu(self) -> bool:
        return self.platform in ("cuda", "rocm")


@dataclass(frozen=True)
class Choice:
    """An engine, when it is chosen, and why.

    Attributes:
      engine: its name.
      when: whether it fits a description.
      why: in words, for :func:`jaxcnn.explain`.
    """

    engine: str
    when: Callable[[Description], bool]
    why: str


def _has_short_floats(description: Description) -> bool:
    dtype = jnp.dtype(description.dtype)
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4


PATCHES = ("unfold", "fold")
POOLS = ("max_pool", "max_pool_gradient", "average_pool", "average_pool_gradient")

NO_DIMENSIONS = Choice(
    "equations",
    lambda d: d.is_convolution and not d.window.kernel_size,
    "without positions it is one matrix product",
)

ON_CPU = (
    Choice("equations", lambda d: d.is_empty, "there is nothing to compute"),
    NO_DIMENSIONS,
    Choice(
        "pooled",
        lambda d: (
            _has_short_floats(d)
            and d.name.startswith("average_pool")
            and d.has_one_position
        ),
        "one sum for each image, and one number for all its pixels",
    ),
    Choice(
        "pooled",
        lambda d: d.dtype == jnp.float32 and d.name in POOLS and d.has_tiles,
        "windows that lie side by side are one loop, which XLA fuses with what is around",
    ),
    Choice(
        "banded",
        lambda d: (
            d.name == "input_gradient"
            and not d.has_symbols
            and d.dtype == jnp.float32
            and d.groups == 1
            and d.c_in <= 4
            and d.c_out >= 6 * d.c_in
            and set(d.window.dilation) == {1}
        ),
        "so few input channels fill no vector, and runs of pixels do",
    ),
    Choice("loops", lambda d: True, "compiled loops, which reach the machine's speed"),
    Choice(
        "equations",
        lambda d: not jnp.issubdtype(d.dtype, jnp.floating),
        "the other engines are for floats",
    ),
    Choice(
        "canonical",
        lambda d: d.is_convolution and d.has_symbols,
        "one convolution of XLA's is for images of any size",
    ),
    Choice(
        "xla",
        lambda d: (
            d.name.startswith("average_pool")
            and not d.has_symbols
            and d.window.number_of_taps <= 4
            and set(d.window.stride) == {1}
            and (d.window.is_padded or d.name.endswith("gradient"))
        ),
        "two dimensions of two taps are no more work together than one after the other",
    ),
    Choice(
        "pooled",
        lambda d: not d.is_convolution and d.name not in PATCHES,
        "one pass over the input, or over each dimension",
    ),
    Choice(
        "patches",
        lambda d: d.name in PATCHES,
        "each tap's patch is written, or added, once",
    ),
    Choice(
        "unrolled",
        lambda d: d.c_in == 1 and d.groups > 1 and d.c_out <= 4,
        "so little is done with each number that reading it once is what counts",
    ),
    Choice(
        "banded",
        lambda d: (
            d.c_in < 4
            and set(d.window.dilation) == {1}
            and (d.c_in * d.window.number_of_taps < 64 or d.c_out < 16)
        ),
        "so few input channels fill no vector, and runs of pixels do",
    ),
    Choice(
        "canonical",
        lambda d: (
            _has_short_floats(d)
            and d.name == "forward"
            and len(d.window.kernel_size) <= 2
            and d.c_out >= 16
            and (d.c_in < 4 or (d.c_in >= 16 and 1 < d.window.number_of_taps <= 25))
        ),
        "XLA's convolution is good at many outputs of a pixel",
    ),
    Choice(
        "canonical",
        lambda d: (
            _has_short_floats(d)
            and d.name == "input_gradient"
            and len(d.window.kernel_size) <= 2
            and set(d.window.stride + d.window.dilation) == {1}
            and 1 < d.window.number_of_taps <= 25
            and d.c_in >= 16
            and 16 <= d.c_out < 2 * d.c_in
        ),
        "XLA's convolution is good at many outputs of a pixel",
    ),
    Choice(
        "banded",
        lambda d: (
            d.name == "input_gradient"
            and set(d.window.stride) != {1}
            and (d.window.number_of_taps == 1 or min(d.c_in, d.c_out) >= 16)
        ),
        "one product of dY, without the zeros between its entries",
    ),
    Choice(
        "patches",
        lambda d: True,
        "XLA's matrix products are the quickest that it has",
    ),
    Choice(
        "canonical",
        _has_short_floats,
        "XLA's channels-last convolution needs no patches in memory",
    ),
    Choice("equations", lambda d: True, "a loop over taps computes anything"),
)
"""For CPUs; the first that fits, and whose engine does not refuse, is taken."""

ON_ACCELERATORS = (
    NO_DIMENSIONS,
    Choice("xla", lambda d: d.is_convolution, "the vendor's own convolution"),
    Choice(
        "equations",
        lambda d: d.is_convolution and len(d.window.kernel_size) > 3,
        "a loop over taps is right in any number of dimensions",
    ),
    Choice(
        "xla",
        lambda d: d.name.startswith("average_pool") and not d.has_one_position,
        "one pass over the input, and no slices of it",
    ),
)
"""For GPUs and TPUs; where none fits, the choices for CPUs follow."""

ON_GPUS = (
    Choice(
        "reductions",
        lambda d: (
            d.name == "weight_gradient"
            and d.c_in == 1
            and d.groups > 1
            and len(d.window.kernel_size) <= 3
            and is_known(lambda: d.window.number_of_taps > 25)
        ),
        "with so many taps sums are quicker than a convolution",
    ),
)
"""For GPUs, before those for all accelerators."""


def chosen(description: Description, lowering: Lowering | None = None) -> Choice:
    """The engine, and why.

    Args:
      description: of a sum.
      lowering: how its program is made; by default, as for a CPU without the loops, and an
        engine that was asked for is taken at its word.

    Raises:
      ValueError: when the user named an engine that refuses.
    """
    asked = description.problem.engine
    if asked == "auto":
        lowering = lowering or Lowering()
        choices = ON_CPU if lowering.platform == "cpu" else (*ON_ACCELERATORS, *ON_CPU)
        if lowering.is_for_gpu:
            choices = (*ON_GPUS, *choices)
        return next(
            choice
            for choice in choices
            if choice.when(description)
            and not refusal(choice.engine, description, lowering)
        )
    reason = refusal(asked, description, lowering)
    if reason:
        able = (name for name in ENGINES if not refusal(name, description, lowering))
        raise ValueError(
            f"engine is {asked!r}, which {reason}: use 'auto', or one of "
            + ", ".join(map(repr, able))
        )
    return Choice(asked, lambda d: True, "it was asked for")


def refusal(
    engine: str, description: Description, lowering: Lowering | None = None
) -> str | None:
    """Why an engine does not compute this in such a program; None if it does."""
    module = ENGINES[engine]
    if description.is_empty and engine not in ("equations", "xla"):
        return "wants arrays with entries"
    if description.has_symbols and not getattr(module, "ANY_SIZE", False):
        return "wants sizes that are known"
    if engine != "pooled" and not isinstance(description.window.number_of_taps, int):
        return "wants a number of taps that is known"
    if not hasattr(module, description.name):
        return f"does not compute {description.name.replace('_', ' ')}s"
    reason = module.refuses(description) if hasattr(module, "refuses") else None
    dimensions = len(description.window.kernel_size)
    calls_xlas = description.is_convolution and getattr(module, "CONVOLVES", False)
    if calls_xlas and lowering and lowering.is_for_gpu and dimensions > 3:
        reason = (
            f"calls XLA's convolution, which on a GPU is wrong in {dimensions} dimensions"
        )
    if getattr(module, "SETS_LAYOUT", False) and lowering:
        reason = reason or lowering.refuses_layouts
    if engine == "loops":
        reason = reason or (lowering.refuses_loops if lowering else loops_at_hand())
    return reason


def hides_from_autodiff(engine: str, description: Description) -> bool:
    """Whether JAX has no derivatives of what this engine is made of."""
    hides = getattr(ENGINES.get(engine), "hides_from_autodiff", None)
    return hides is not None and hides(description)


@partial(jax.jit, static_argnames=("name", "problem", "engine", "dtype"))
def compute(
    name: str,
    problem: Problem,
    *operands: Numbers,
    engine: str | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """Call the function of this name in an engine.

    Between two operations whose arrays are turned around for their engines, XLA drops the
    transpositions, and keeps the array in memory as the engines want it.

    Args:
      name, problem, operands: what is to be computed. A convolution's sum may have a third
        operand, a bias of its result's channels.
      engine: its name; by default the plan's choice for a CPU.
      dtype: of the result; by default that of sums.

    Returns:
      The function's result, or a tuple of its results.
    """
    *of_operands, of_result = ROLES[name]
    operands, bias = operands[: len(of_operands)], operands[len(of_operands) :]
    description = describe(name, problem, *operands, dtype=dtype)
    if description.is_convolution:
        operands = tuple(x.astype(description.dtype) for x in operands)
    module = ENGINES[chosen(description).engine if engine is None else engine]
    known = {each: getattr(problem, each) for each in STATIC_ARGUMENTS[name]}
    layout = last = problem.layout
    if not channels_last(layout) and not getattr(module, "ANY_LAYOUT", False):
        known["layout"] = last = with_channels_last(layout)
        operands = tuple(
            _turned(operand, role, layout, last)
            for operand, role in zip(operands, of_operands, strict=True)
        )
    if bias and getattr(module, "ADDS_BIAS", False):
        known["bias"], bias = bias[0], ()
    result = getattr(module, name)(*operands, **known)
    if name in ("forward", "input_gradient") and _has_few_rows(result, last):
        # On a CPU jaxlib 0.10.2 makes one step of such a product and a sum over its rows
        # that follows, and gets it wrong (jax issue 39103). Rounding to what they are keeps
        # them apart, where a barrier does not.
        kind = jnp.finfo(result.dtype)
        result = jax.lax.reduce_precision(result, kind.nexp, kind.nmant)
    if last != layout:
        result = jax.tree.map(lambda x: _turned(x, of_result, last, layout), result)
    if bias:
        result = result + over_channels(bias[0].astype(result.dtype), layout)
    return result if dtype is None else result.astype(dtype)


def _has_few_rows(x: Numbers, layout: str) -> bool:
    """Whether images and positions of floats are known to be less than 8 together."""
    rows = [length for length, each in zip(x.shape, layout, strict=True) if each != "C"]
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return is_float and is_known(lambda: math.prod(rows) < 8)


def _turned(x: Numbers, role: str, layout: str, other: str) -> Numbers:
    """An array from one layout to another; weights between the layouts of weights."""
    if role == "w":
        layout, other = weight_layout(layout), weight_layout(other)
    if role == "p":
        layout, other = grouped(layout), grouped(other)
    return turned(x, layout, other)


# --- What it would choose ---------------------------------------------------------------


def explain(
    function: Callable,
    *shapes: Sequence[int],
    dtype: DTypeLike = jnp.float32,
    platform: str = "cpu",
    loops: bool | None = None,
    **options: Any,
) -> str:
    """Say which engine computes each sum of an operation and of its gradient, and why.

    Nothing is computed: the operation and its gradient are traced with arrays of these
    shapes.

    Args:
      function: a public function, such as :func:`jaxcnn.conv2d`.
      shapes: of its arrays, in order: ``(B, C_in, H, W)`` and ``(C_out, C_in, K_h, K_w)``
        for a convolution, ``(B, C, H, W)`` for a pooling (in the layout of ``options``).
      dtype: of the arrays.
      platform: ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``.
      loops: whether the compiled loops are at hand; by default, whether they are here.
      options: whatever else the function takes.

    Returns:
      One line for each sum: its name, its engine, and why that one.

    Raises:
      TypeError: when a shape is none, but an array, say.
      ValueError: when the platform is unknown, or the function makes no sum over windows.
      Exception: what the function raises, which may refuse its arguments.

    >>> from jaxcnn import conv2d, max_pool2d
    >>> lenet = (conv2d, (128, 1, 28, 28), (6, 1, 5, 5))
    >>> print(explain(*lenet, padding=2, loops=True))
    forward: loops (compiled loops, which reach the machine's speed)
    weight gradient: loops (compiled loops, which reach the machine's speed)
    input gradient: banded (so few input channels fill no vector, and runs of pixels do)
    >>> print(explain(*lenet, padding=2, loops=False))
    forward: banded (so few input channels fill no vector, and runs of pixels do)
    weight gradient: banded (so few input channels fill no vector, and runs of pixels do)
    input gradient: banded (so few input channels fill no vector, and runs of pixels do)
    >>> large = {"groups": 96, "padding": 3, "platform": "cuda"}
    >>> print(explain(conv2d, (64, 96, 56, 56), (96, 1, 7, 7), **large))
    forward: xla (the vendor's own convolution)
    weight gradient: reductions (with so many taps sums are quicker than a convolution)
    input gradient: xla (the vendor's own convolution)
    >>> known = {"kernel_size": 3, "layout": "NHWC", "loops": False}
    >>> print(explain(max_pool2d, (128, 27, 27, 6), stride=1, **known))
    max pool: pooled (one pass over the input, or over each dimension)
    max pool gradient: pooled (one pass over the input, or over each dimension)
    """
    if not isinstance(platform, str) or platform not in PLATFORMS:
        allowed = ", ".join(map(repr, PLATFORMS))
        raise ValueError(f"platform is {platform!r}; it must be one of {allowed}")
    for shape in shapes:
        if not isinstance(shape, list | tuple):
            raise TypeError(
                f"shapes has a {type(shape).__name__}; each must be the shape of an array, "
                f"as x.shape"
            )
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    has_loops = loops_at_hand() is None if loops is None else loops
    lines = []
    for description in sums_of(partial(function, **options), *arrays):
        choice = chosen(description, Lowering(platform, has_loops=has_loops))
        name = description.name.replace("_", " ")
        lines.append(f"{name}: {choice.engine} ({choice.why})")
    if not lines:
        raise ValueError(
            f"function is {function!r}, which makes no sum over windows: there is nothing "
            f"that an engine would compute"
        )
    return "\n".join(dict.fromkeys(lines))


def sums_of(function: Callable, *arrays: jax.ShapeDtypeStruct) -> list[Description]:
    """What an operation and its gradient ask the plan for, in order."""

    def gradient(*arrays):
        y, backward = jax.vjp(function, *arrays)
        return backward(y)

    return list(sums_in(jax.make_jaxpr(gradient)(*arrays).jaxpr))


def sums_in(jaxpr: Jaxpr) -> Iterator[Description]:
    """What a traced function asks the plan for, in order."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name.removeprefix("conv_")
        if name in ROLES and "problem" in equation.params:
            operands = [each.aval for each in equation.invars[: len(ROLES[name]) - 1]]
            known = equation.params
            yield describe(name, known["problem"], *operands, dtype=known["dtype"])
        for inner in jaxprs_in_params(equation.params):
            yield from sums_in(inner)
