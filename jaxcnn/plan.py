"""Which engine computes what.

An engine is a module with functions that have the names and the signatures of those in
:mod:`jaxcnn.equations`. The plan chooses one for each function, from a static description
of the problem: it looks at no array and at no device.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array, Num

from jaxcnn import equations
from jaxcnn.window import Window

ENGINES = {"equations": equations}

STATIC_ARGUMENTS = {
    "forward": ("window", "layout", "groups", "precision"),
    "weight_gradient": ("window", "layout", "groups", "precision"),
    "input_gradient": ("window", "input_size", "layout", "groups", "precision"),
    "max_pool": ("window", "layout"),
    "max_pool_gradient": ("window", "input_size", "layout"),
    "take_winners": ("window", "layout"),
    "average_pool": ("window", "layout", "count_include_pad"),
    "average_pool_gradient": ("window", "input_size", "layout", "count_include_pad"),
}
"""What each function of an engine must know of the problem, besides its arrays."""


@dataclass(frozen=True)
class Problem:
    """All that is known of a convolution or a pooling before its arrays are.

    Hashable, so that it can be a static argument.

    Attributes:
      window: the sliding window.
      input_size: the spatial size of the input.
      layout: of the input and the output; it implies the layout of the weights.
      engine: ``"auto"``, or the name of the engine that must compute everything.
      groups: of a convolution: how many runs the channels fall into.
      precision: of a convolution's products, as for ``jax.lax.dot_general``.
      count_include_pad: of an average pooling: whether the padding is counted.
    """

    window: Window
    input_size: tuple[int, ...]
    layout: str
    engine: str = "auto"
    groups: int = 1
    precision: jax.lax.PrecisionLike = None
    count_include_pad: bool = True


def engine_for(name: str, problem: Problem) -> str:
    """The engine that computes the function of this name (see STATIC_ARGUMENTS)."""
    del name  # the equations serve every function alike
    return "equations" if problem.engine == "auto" else problem.engine


@partial(jax.jit, static_argnames=("name", "problem"))
def compute(name: str, problem: Problem, *operands: Num[Array, "..."]):
    """Call the function of this name in the engine that the plan chooses for it.

    Compiled once for every problem, also when whoever calls is not being compiled.
    """
    function = getattr(ENGINES[engine_for(name, problem)], name)
    known = {each: getattr(problem, each) for each in STATIC_ARGUMENTS[name]}
    return function(*operands, **known)
