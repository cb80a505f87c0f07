"""The contestants of whole networks: a training step alone, and many in ``lax.scan``."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmarking import networks
from experiments.benchmarking.layers import (
    LAYOUTS,
    WITHOUT_LOOPS,
    compiled_without_loops,
    has_loops,
)
from experiments.benchmarking.timing import Contestant, Measurement, compiled, race
from experiments.benchmarking.torch_process import TorchWorker
from jaxcnn.models import Model, in_precision

STEPS = {"jaxcnn": 5, WITHOUT_LOOPS: 5, "lax": 2}
"""How many steps one scan makes: lax's take seconds each."""
IN_FLOAT32 = "jaxcnn in float32"
"""A contestant beside those in bfloat16."""


def step_of(name: str, contestant: str, model: Model) -> Callable:
    """The training step by jaxcnn's model, or by the same network over lax."""
    return networks.training_step(networks.loss_of(name, contestant, model))


def compiled_as(
    contestant: str,
    layout: str,
    mode: str,
    function: Callable,
    arguments: Sequence[Any],
    steps: int = 1,
) -> Contestant:
    """A contestant of this name; one without loops is compiled with what then helps."""
    known = (layout, mode, function, arguments)
    if contestant == WITHOUT_LOOPS:
        return compiled_without_loops(*known, steps)
    return compiled(contestant, *known, steps=steps)


def names(layout: str) -> list[str]:
    """The contestants in this layout."""
    twice = layout == "NHWC" and has_loops()
    return ["jaxcnn", *([WITHOUT_LOOPS] if twice else []), "lax"]


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
            entries.append(compiled_as(contestant, layout, "step", step, given))
    if find_spec("flax"):
        from experiments.benchmarking import flax_networks

        given = (
            flax_networks.initial_state(name),
            networks.image_batch(name, "NHWC", batch),
        )
        step = networks.training_step(flax_networks.loss_of(name))
        entries.append(compiled("flax", "NHWC", "step", step, given))
    if torch:
        entries += torch.contestants("network", name, "step", images=batch)
    return race(entries, rounds, "networks", name)


def measure_bfloat16(
    name: str, rounds: int, torch: TorchWorker | None, batch: int | None = None
) -> list[Measurement]:
    """Time one training step in bfloat16, of PyTorch by autocast, beside our float32."""
    entries: list[Contestant] = []
    for layout in LAYOUTS:
        model = networks.model_of(name, layout)
        given = networks.initial_state(model), networks.image_batch(name, layout, batch)
        for contestant, which in (
            ("jaxcnn", in_precision(model, jnp.bfloat16)),
            (IN_FLOAT32, model),
            ("lax", in_precision(networks.over_lax(name, model), jnp.bfloat16)),
        ):
            step = step_of(name, "jaxcnn", which)
            entries.append(compiled(contestant, layout, "step", step, given))
    if torch:
        entries += torch.contestants("network in bfloat16", name, "step", images=batch)
    return race(entries, rounds, "bfloat16", name)


def measure_scan(name: str, rounds: int) -> list[Measurement]:
    """Time a step alone and the steps of a ``lax.scan``, channels last."""
    layout = "NHWC"
    model = networks.model_of(name, layout)
    state = networks.initial_state(model)
    entries = []
    for contestant in names(layout):
        step, steps = step_of(name, contestant, model), STEPS[contestant]
        batches = [networks.image_batch(name, layout, seed=seed) for seed in range(steps)]
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *batches)
        entries += [
            compiled_as(contestant, layout, "step", step, (state, batches[0])),
            compiled_as(
                contestant,
                layout,
                "scan",
                partial(lax.scan, step),
                (state, stacked),
                steps=steps,
            ),
        ]
    return race(entries, rounds, "scan", name)
