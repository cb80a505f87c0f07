"""What is to be computed, described before there are arrays.

A :class:`Problem` is what a user's arguments say about a convolution or a pooling. A
:class:`Description` adds which sum is wanted and how many channels its arrays have. The
plan chooses by it, and an engine accepts or refuses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn.layout import Length, are_known, weight_layout, with_spatial
from jaxcnn.window import Pairs, Window

STATIC_ARGUMENTS = {
    "forward": ("window", "layout", "groups", "precision"),
    "weight_gradient": ("window", "layout", "groups", "precision"),
    "input_gradient": ("window", "input_size", "layout", "groups", "precision"),
    "unfold": ("window", "layout"),
    "fold": ("window", "input_size", "layout"),
    "max_pool": ("window", "layout"),
    "max_pool_gradient": ("window", "input_size", "layout"),
    "take_winners": ("window", "layout"),
    "average_pool": ("window", "layout", "counted", "divisor"),
    "average_pool_gradient": ("window", "input_size", "layout", "counted", "divisor"),
}
"""What each function of an engine takes from the problem, besides its arrays."""

ROLES = {
    "forward": ("x", "w", "y"),
    "weight_gradient": ("x", "y", "w"),
    "input_gradient": ("y", "w", "x"),
    "unfold": ("x", "p"),
    "fold": ("p", "x"),
    "max_pool": ("x", "y"),
    "max_pool_gradient": ("y", "y", "x"),
    "take_winners": ("x", "y", "y"),
    "average_pool": ("x", "y"),
    "average_pool_gradient": ("y", "x"),
}
"""For each function: what its arguments are, and its result, or each of its results.

x is like the input, y like the output, w like the weights; in patches p the taps lie beside
the channels.
"""

CONVOLUTIONS = ("forward", "weight_gradient", "input_gradient")
"""The sums of products; the others are poolings."""


@dataclass(frozen=True)
class Problem:
    """What is known about a convolution or a pooling before its arrays are.

    Hashable, so that it can be a static argument.

    Attributes:
      window: the sliding window.
      input_size: the spatial size of the input.
      layout: such as ``"NCHW"`` or ``"NHWC"``.
      engine: the name of an engine, or ``"auto"``.
      groups: of a convolution.
      precision: of a convolution's products.
      counted, divisor: by what an average pooling divides.
    """

    window: Window
    input_size: tuple[Length, ...]
    layout: str
    engine: str = "auto"
    groups: int = 1
    precision: jax.lax.PrecisionLike = None
    counted: Pairs | None = None
    divisor: int | float | None = None


def loops_by_default(problem: Problem) -> Problem:
    """The problem with the equations' loops for its engine, unless the user named one."""
    return replace(problem, engine="equations") if problem.engine == "auto" else problem


@dataclass(frozen=True)
class Description:
    """What the plan and the engines look at: a problem, and the channels of its arrays.

    Attributes:
      name: which function, one of STATIC_ARGUMENTS.
      problem: the problem.
      dtype: of the arrays.
      c_in, c_out: the channels in each group, of the convolution's input and output;
        zero for poolings.
      is_empty: whether an array has no entries.
    """

    name: str
    problem: Problem
    dtype: Any
    c_in: Length = 0
    c_out: Length = 0
    is_empty: bool = False

    @property
    def is_convolution(self) -> bool:
        return self.name in CONVOLUTIONS

    @property
    def window(self) -> Window:
        return self.problem.window

    @property
    def groups(self) -> int:
        return self.problem.groups

    @property
    def has_symbols(self) -> bool:
        """Whether a size is a symbol, that of the batch aside."""
        return not are_known((*self.problem.input_size, self.c_in, self.c_out))

    @property
    def has_tiles(self) -> bool:
        """Whether the windows lie side by side, without padding, overlap or gap."""
        w = self.window
        return w.stride == w.kernel_size and set(w.dilation) == {1} and not w.is_padded

    @property
    def has_one_position(self) -> bool:
        """Whether the window has a single position, as over a whole image."""
        return set(self.window.output_size(self.problem.input_size)) == {1}


def describe(
    name: str,
    problem: Problem,
    *operands: Any,
    dtype: DTypeLike | None = None,
) -> Description:
    """The description of a function's call with operands of these types.

    A convolution's two operands are computed in the wider of their dtypes: they differ
    where one is the gradient of a result whose dtype was asked for. A result in float64 is
    a sum in float64.
    """
    shapes = [operand.shape for operand in operands]
    is_empty = any(0 in shape for shape in (*shapes, result_shape(name, problem, *shapes)))
    if name not in CONVOLUTIONS:
        return Description(name, problem, operands[0].dtype, is_empty=is_empty)
    dtypes = [operand.dtype for operand in operands]
    if dtype is not None and jnp.dtype(dtype).itemsize > 4:
        dtypes.append(jnp.dtype(dtype))
    widest = max(dtypes, key=lambda each: each.itemsize)
    shapes = dict(zip(ROLES[name], (operand.shape for operand in operands), strict=False))
    of_weights = weight_layout(problem.layout)
    if "w" in shapes:
        c_in = shapes["w"][of_weights.index("I")]
        c_out = shapes["w"][of_weights.index("O")] // problem.groups
    else:
        channels = problem.layout.index("C")
        c_in = shapes["x"][channels] // problem.groups
        c_out = shapes["y"][channels] // problem.groups
    return Description(name, problem, widest, c_in, c_out, is_empty)


def result_shape(name: str, problem: Problem, *shapes: Sequence[Length]) -> list[Length]:
    """The shape of a function's result, from those of its operands."""
    *of_operands, of_result = ROLES[name]
    known = dict(zip(of_operands, shapes, strict=False))
    layout, of_weights = problem.layout, weight_layout(problem.layout)
    channels, c_in, c_out = layout.index("C"), of_weights.index("I"), of_weights.index("O")
    if of_result == "w":
        shape = [0] * len(of_weights)
        shape[c_in] = known["x"][channels] // problem.groups
        shape[c_out] = known["y"][channels]
        return with_spatial(shape, problem.window.kernel_size, of_weights)
    shape = list(next(known[role] for role in "xyp" if role in known))
    if "p" in known:
        del shape[channels]
    if "w" in known:
        w = known["w"]
        shape[channels] = w[c_out] if of_result == "y" else w[c_in] * problem.groups
    size = problem.input_size
    size = size if of_result == "x" else problem.window.output_size(size)
    shape = with_spatial(shape, size, layout)
    if of_result == "p":
        shape.insert(channels, problem.window.number_of_taps)
    return shape
