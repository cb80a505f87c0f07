"""What is to be computed, described before there are arrays.

A :class:`Problem` is what a user's arguments say about a convolution or a pooling. A
:class:`Description` adds which sum is wanted and how many channels its arrays have. The
plan chooses by it, and an engine accepts or refuses it.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxcnn.layout import weight_layout
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
}
"""For each sum of a convolution: what its two arguments and its result are."""

PATCH_ROLES = {"unfold": ("x", "p"), "fold": ("p", "x")}
"""The same for patches p, in which the taps lie beside the channels."""


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
      preferred: the dtype of a convolution's result; None for that of its arguments.
      counted, divisor: by what an average pooling divides.
    """

    window: Window
    input_size: tuple[int, ...]
    layout: str
    engine: str = "auto"
    groups: int = 1
    precision: jax.lax.PrecisionLike = None
    preferred: DTypeLike | None = None
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
    c_in: int = 0
    c_out: int = 0
    is_empty: bool = False

    @property
    def is_convolution(self) -> bool:
        return self.name in ROLES

    @property
    def window(self) -> Window:
        return self.problem.window

    @property
    def groups(self) -> int:
        return self.problem.groups

    @property
    def has_one_position(self) -> bool:
        """Whether the window has a single position, as over a whole image."""
        return set(self.window.output_size(self.problem.input_size)) == {1}


def describe(
    name: str, problem: Problem, *operands: jax.Array | np.ndarray | jax.ShapeDtypeStruct
) -> Description:
    """The description of a function's call with these operands (or their shapes)."""
    dtype = operands[0].dtype
    is_empty = any(size == 0 for operand in operands for size in operand.shape)
    if name not in ROLES:
        return Description(name, problem, dtype, is_empty=is_empty)
    shapes = dict(zip(ROLES[name], (operand.shape for operand in operands), strict=False))
    of_weights = weight_layout(problem.layout)
    if "w" in shapes:
        c_in = shapes["w"][of_weights.index("I")]
        c_out = shapes["w"][of_weights.index("O")] // problem.groups
    else:
        channels = problem.layout.index("C")
        c_in = shapes["x"][channels] // problem.groups
        c_out = shapes["y"][channels] // problem.groups
    return Description(name, problem, dtype, c_in, c_out, is_empty)
