"""Which engine computes what, and why."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn import arguments, plan
from jaxcnn.problem import Description

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def explain(
    function: Callable,
    *shapes: Sequence[int],
    dtype: DTypeLike = jnp.float32,
    platform: str = "cpu",
    **options,
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
    arguments.one_of("platform", platform, PLATFORMS)
    choose = plan.chosen if platform == "cpu" else plan.chosen_on_accelerators
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    lines = []
    for description in sums_of(partial(function, **options), *arrays):
        rule = choose(description)
        name = description.name.replace("_", " ")
        lines.append(f"{name}: {rule.engine} ({rule.why})")
    return "\n".join(dict.fromkeys(lines))


def sums_of(function: Callable, *arrays: jax.ShapeDtypeStruct) -> list[Description]:
    """What an operation and its gradient ask the plan for, in order."""

    def gradient(*arrays):
        y, backward = jax.vjp(function, *arrays)
        return backward(y)

    with plan.recording() as descriptions:
        jax.eval_shape(gradient, *arrays)
    return descriptions
