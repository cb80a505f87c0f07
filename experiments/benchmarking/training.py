"""The contestants of whole networks: a training step alone, and many in ``lax.scan``."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jaxcnn
from experiments.benchmarking import networks
from experiments.benchmarking.layers import LAYOUTS, WITH_OPTIONS
from experiments.benchmarking.timing import Contestant, Measurement, compiled, race
from experiments.benchmarking.torch_process import TorchWorker
from jaxcnn.models import Model

STEPS = {"jaxcnn": 5, WITH_OPTIONS: 5, "lax": 2}
"""How many steps one scan makes: lax's take seconds each."""


def step_of(name: str, contestant: str, model: Model) -> Callable:
    """The training step by jaxcnn's model, or by the same network over lax."""
    return networks.training_step(networks.loss_of(name, contestant, model))


def options_of(contestant: str) -> dict[str, Any] | None:
    return jaxcnn.compiler_options() if contestant == WITH_OPTIONS else None


def names(layout: str) -> list[str]:
    """The contestants in this layout."""
    advised = layout == "NHWC" and jaxcnn.compiler_options()
    with_options = [WITH_OPTIONS] if advised else []
    return ["jaxcnn", *with_options, "lax"]


def measure_network(
    name: str, rounds: int, torch: TorchWorker | None, batch: int | None = None
) -> list[Measurement]:
    """Time one training step; ``batch`` None is the network's usual one."""
    entries: list[Contestant] = []
    for layout in LAYOUTS:
        model = networks.model_of(name, layout)
        given = networks.initial_state(model), networks.image_batch(name, layout, batch)
        for contestant in names(layout):
            step = step_of(name, contestant, model)
            options = options_of(contestant)
            entries.append(compiled(contestant, layout, "step", step, given, options))
    if find_spec("flax"):
        from experiments.benchmarking import flax_networks

        given = (
            flax_networks.initial_state(name),
            networks.image_batch(name, "NHWC", batch),
        )
        step = networks.training_step(flax_networks.loss_of(name))
        entries.append(compiled("flax", "NHWC", "step", step, given))
    if torch:
        entries += torch.contestants("network", name, "step")
    return race(entries, rounds, "networks", name)


def measure_scan(name: str, rounds: int) -> list[Measurement]:
    """Time a step alone and the steps of a ``lax.scan``, channels last."""
    layout = "NHWC"
    model = networks.model_of(name, layout)
    state = networks.initial_state(model)
    entries = []
    for contestant in names(layout):
        step, options = step_of(name, contestant, model), options_of(contestant)
        steps = STEPS[contestant]
        batches = [networks.image_batch(name, layout, seed=seed) for seed in range(steps)]
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *batches)
        entries += [
            compiled(contestant, layout, "step", step, (state, batches[0]), options),
            compiled(
                contestant,
                layout,
                "scan",
                partial(lax.scan, step),
                (state, stacked),
                options,
                steps,
            ),
        ]
    return race(entries, rounds, "scan", name)
