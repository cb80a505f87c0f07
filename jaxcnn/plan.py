"""Which engine computes what.

An engine (see :mod:`jaxcnn.engines`) is a module with functions that have the names and
the signatures of those in :mod:`jaxcnn.equations`. The plan chooses one for each sum,
from a static description of it: the first of ON_CPU that fits. It looks at no array and
asks for no device. A program holds the choices for CPUs and for accelerators until it is
lowered for one of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import DTypeLike

from jaxcnn.engines import ENGINES
from jaxcnn.layout import Numbers, channels_last, grouped, weight_layout
from jaxcnn.problem import (
    PATCH_ROLES,
    ROLES,
    STATIC_ARGUMENTS,
    Description,
    Problem,
    describe,
)

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


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


def _asked_precision(description: Description) -> PrecisionLike:
    """What the user asked for: of this convolution, or of all products."""
    asked = description.problem.precision
    of_all = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return of_all if asked is None else asked


ON_CPU = (
    Choice("equations", lambda d: d.is_empty, "there is nothing to compute"),
    Choice(
        "equations",
        lambda d: (
            not jnp.issubdtype(d.dtype, jnp.floating) or jnp.dtype(d.dtype).itemsize > 4
        ),
        "XLA has fast convolutions for no more than 32 bits",
    ),
    Choice(
        "unrolled",
        lambda d: d.is_convolution and d.c_in == 1 and d.groups > 1,
        "so little is done with each number that reading it once is what counts",
    ),
    Choice(
        "pooled",
        lambda d: not d.is_convolution and d.name not in PATCH_ROLES,
        "one pass over the input instead of one for each tap",
    ),
    Choice(
        "patches",
        lambda d: d.name in PATCH_ROLES,
        "each tap's patch is written, or added, once",
    ),
    Choice(
        "banded",
        lambda d: d.window.number_of_taps == 1,
        "a kernel of one element is a matrix product",
    ),
    Choice(
        "banded",
        lambda d: d.name != "input_gradient" and d.c_in * d.window.number_of_taps < 64,
        "too few channels and taps to be worth a convolution",
    ),
    Choice(
        "banded",
        lambda d: d.name == "input_gradient" and d.c_in < 8,
        "too few input channels to be worth a convolution",
    ),
    Choice(
        "winograd",
        lambda d: (
            min(d.c_in, d.c_out) >= (16 if d.name == "weight_gradient" else 32)
            and _asked_precision(d) in (None, "default", jax.lax.Precision.DEFAULT)
        ),
        "enough channels that halving the products is worth combining the columns",
    ),
    Choice(
        "patches",
        lambda d: d.name == "weight_gradient" and d.c_in >= 4,
        "XLA's matrix products are quicker than its convolutions",
    ),
    Choice(
        "canonical",
        lambda d: True,
        "XLA's channels-last convolution needs no patches in memory",
    ),
    Choice("equations", lambda d: True, "a loop over taps computes anything"),
)
"""For CPUs; the first that fits, and whose engine does not refuse, is taken."""

ON_ACCELERATORS = (
    Choice("xla", lambda d: d.is_convolution, "the vendor's own convolution"),
    Choice(
        "xla",
        lambda d: d.name.startswith("average_pool") and not d.has_one_position,
        "one pass over the input, and no slices of it",
    ),
)
"""For GPUs and TPUs; where none fits, the choices for CPUs follow."""


def chosen(description: Description) -> Choice:
    """The engine for a CPU, and why.

    Raises:
      ValueError: when the user named an engine that refuses.
    """
    asked = description.problem.engine
    if asked == "auto":
        return next(
            choice
            for choice in ON_CPU
            if choice.when(description) and not refusal(choice.engine, description)
        )
    reason = refusal(asked, description)
    if reason:
        raise ValueError(
            f"engine is {asked!r}, which {reason}: use 'auto', or one of "
            + ", ".join(repr(name) for name in ENGINES if not refusal(name, description))
        )
    return Choice(asked, lambda d: True, "it was asked for")


def chosen_on_accelerators(description: Description) -> Choice:
    """The engine for GPUs and TPUs, and why."""
    if description.problem.engine == "auto":
        for choice in ON_ACCELERATORS:
            if choice.when(description) and not refusal(choice.engine, description):
                return choice
    return chosen(description)


def refusal(engine: str, description: Description) -> str | None:
    """Why an engine does not compute this; None if it does."""
    module = ENGINES[engine]
    if description.is_empty and engine not in ("equations", "xla"):
        return "wants arrays with entries"
    if not hasattr(module, description.name):
        return f"does not compute {description.name.replace('_', ' ')}s"
    return module.refuses(description) if hasattr(module, "refuses") else None


_recorded: ContextVar[list[Description] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Description]]:
    """Collect the descriptions of what is traced in this context."""
    descriptions: list[Description] = []
    token = _recorded.set(descriptions)
    try:
        yield descriptions
    finally:
        _recorded.reset(token)


def record(name: str, problem: Problem, *operands: Numbers) -> None:
    """Note a call for :func:`recording`; called where JAX traces every call anew."""
    descriptions = _recorded.get()
    if descriptions is not None:
        descriptions.append(describe(name, problem, *operands))


@partial(jax.jit, static_argnames=("name", "problem"))
def compute(name: str, problem: Problem, *operands: Numbers) -> Any:
    """Call the function of this name in the engine that the plan chooses for it.

    Compiled once for every problem, even where the caller is not compiled.
    """
    description = describe(name, problem, *operands)
    on_cpu = chosen(description).engine
    elsewhere = chosen_on_accelerators(description).engine
    if on_cpu == elsewhere:
        return _call(on_cpu, name, problem, *operands)
    return jax.lax.platform_dependent(
        *operands,
        cpu=partial(_call, on_cpu, name, problem),
        default=partial(_call, elsewhere, name, problem),
    )


def _call(engine: str, name: str, problem: Problem, *operands: Numbers) -> Any:
    """The engine's function, between transpositions if it wants channels last.

    Between two operations that are both turned around, XLA drops the transpositions and
    keeps the array in memory as the engines want it.
    """
    module = ENGINES[engine]
    layout = problem.layout
    known = {each: getattr(problem, each) for each in STATIC_ARGUMENTS[name]}
    function = partial(getattr(module, name), **known)
    if channels_last(layout) or getattr(module, "ANY_LAYOUT", False):
        return function(*operands)
    positions = layout.replace("N", "").replace("C", "")
    last = f"N{positions}C"
    function = partial(function, layout=last)
    roles = {**ROLES, **PATCH_ROLES}
    *of_operands, of_result = roles.get(name, ("x",) * (len(operands) + 1))
    turned = (
        _turned(operand, role, layout, last)
        for operand, role in zip(operands, of_operands, strict=True)
    )
    return jax.tree.map(
        lambda result: _turned(result, of_result, last, layout), function(*turned)
    )


def _turned(x: Numbers, role: str, layout: str, other: str) -> Numbers:
    """An array from one layout to another; weights between the layouts of weights."""
    if role == "w":
        layout, other = weight_layout(layout), weight_layout(other)
    if role == "p":
        layout, other = grouped(layout), grouped(other)
    return x.transpose([layout.index(letter) for letter in other])


# --- What it would choose ---------------------------------------------------------------


def explain(
    function: Callable,
    *shapes: Sequence[int],
    dtype: DTypeLike = jnp.float32,
    platform: str = "cpu",
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
      options: whatever else the function takes.

    Returns:
      One line for each sum: its name, its engine, and why that one.

    Raises:
      ValueError: when the platform is unknown, or the function refuses its arguments.

    >>> from jaxcnn import conv2d, max_pool2d
    >>> print(explain(conv2d, (128, 1, 28, 28), (6, 1, 5, 5), padding=2))
    forward: banded (too few channels and taps to be worth a convolution)
    input gradient: banded (too few input channels to be worth a convolution)
    weight gradient: banded (too few channels and taps to be worth a convolution)
    >>> print(explain(max_pool2d, (128, 28, 28, 6), kernel_size=2, layout="NHWC"))
    max pool: pooled (one pass over the input instead of one for each tap)
    max pool gradient: pooled (one pass over the input instead of one for each tap)
    """
    if platform not in PLATFORMS:
        allowed = ", ".join(map(repr, PLATFORMS))
        raise ValueError(f"platform is {platform!r}; it must be one of {allowed}")
    choose = chosen if platform == "cpu" else chosen_on_accelerators
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    lines = []
    for description in sums_of(partial(function, **options), *arrays):
        choice = choose(description)
        name = description.name.replace("_", " ")
        lines.append(f"{name}: {choice.engine} ({choice.why})")
    return "\n".join(dict.fromkeys(lines))


def sums_of(function: Callable, *arrays: jax.ShapeDtypeStruct) -> list[Description]:
    """What an operation and its gradient ask the plan for, in order."""

    def gradient(*arrays):
        y, backward = jax.vjp(function, *arrays)
        return backward(y)

    with recording() as descriptions:
        jax.eval_shape(gradient, *arrays)
    return descriptions
