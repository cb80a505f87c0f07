"""One operation in one configuration, written four times.

With the hand-written rule and by autodiff of the same loops; as XLA has it
(:mod:`experiments.peers.lax_operations`); and as PyTorch has it, where that is installed
(:mod:`experiments.peers.torch_operations`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import jax
import numpy as np

import jaxcnn
from experiments.gradients.arguments import Call, without_dimension
from experiments.peers import lax_operations
from jaxcnn import plan
from jaxcnn.engines import ENGINES
from jaxcnn.plan import sums_of

torch_operations: ModuleType | None = None
if find_spec("torch"):
    from experiments.peers import torch_operations

Configurations = dict[str, dict]


@dataclass(frozen=True)
class Case:
    """One operation in one configuration.

    Attributes:
      operation: its name.
      name: what is particular about the configuration.
      arguments: what it is differentiated by: float32.
      custom: the operation, a function of the arguments, with the hand-written rule.
      autodiff: the same loops, differentiated by JAX.
      xla, torch: the same operation, as these have it; None without PyTorch.
      smooth: whether finite differences exist.
    """

    operation: str
    name: str
    arguments: dict[str, np.ndarray]
    custom: Callable[..., jax.Array]
    autodiff: Callable[..., jax.Array]
    xla: Callable[..., jax.Array]
    torch: Callable[..., Any] | None
    smooth: bool = True

    def engines(self, dtype: str) -> tuple[str, ...]:
        """The plan's own choice, and the engines that compute it and its gradients."""
        arrays = [
            jax.ShapeDtypeStruct(each.shape, dtype) for each in self.arguments.values()
        ]
        sums = [each for each in sums_of(self.custom, *arrays) if each.window.kernel_size]
        able = (name for name in ENGINES if not any(plan.refusal(name, s) for s in sums))
        return ("auto", *able) if sums else ("auto",)

    def by(self, engine: str) -> Callable[..., jax.Array]:
        """The operation, computed by an engine."""
        return self.custom if engine == "auto" else partial(self.custom, engine=engine)


@dataclass(frozen=True)
class Operation:
    """A public operation.

    Attributes:
      build: makes, from a random generator, the operation's name and a configuration's
        keywords, the arguments and the options of a call, and whether it is smooth.
      compared: the configurations in which gradients are compared, the most telling
        first.
      timed: the one in which they are timed.
    """

    build: Callable[..., Call]
    compared: Configurations
    timed: dict

    def case(self, rng, operation: str, name: str, configuration: dict) -> Case:
        arguments, options, smooth = self.build(rng, operation, **configuration)
        ours = partial(by_name, getattr(jaxcnn, operation), tuple(arguments))
        custom = partial(in_one_precision, ours, options)
        base = without_dimension(operation)
        return Case(
            operation,
            name,
            arguments,
            custom,
            partial(without_rule, custom),
            partial(in_one_precision, getattr(lax_operations, base), options),
            torch_operations and partial(getattr(torch_operations, base), **options),
            smooth,
        )


def without_rule(function, *arrays):
    with jaxcnn.derivatives("autodiff"):
        return function(*arrays)


def by_name(function, names, *arrays, **options):
    """The first result of a function of ours."""
    result = function(**dict(zip(names, arrays, strict=True)), **options)
    return result[0] if isinstance(result, tuple) else result


def in_one_precision(function, options, *arrays, **more):
    """The function, with arrays among its options in the precision of the arguments."""
    dtype = arrays[0].dtype
    options = {name: in_dtype(dtype, each) for name, each in options.items()}
    return function(*arrays, **options, **more)


def in_dtype(dtype, option):
    is_float = isinstance(option, np.ndarray) and option.dtype == np.float32
    return option.astype(dtype) if is_float else option
