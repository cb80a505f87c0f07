"""Compiling for TPUs without one: their chips, and training steps to compile."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarking import networks

MISSING = 'libtpu, which compiles for TPUs, is missing: pip install "jaxcnn[tpu]"'
HOST = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu would otherwise ask of a TPU's host; and several processes may compile."""

AXIS = "batch"


def slice_of_tpu(topology: str) -> topologies.TopologyDescription:
    """The chips of a TPU, described: none needs to be at hand."""
    for name, value in HOST.items():
        os.environ.setdefault(name, value)
    return topologies.get_topology_desc(topology, platform="tpu")


def benchmark_step(network: str, contestant: str, images: int) -> tuple[Callable, Any, Any]:
    """A step of a network of the benchmark's; the shapes of its state, and a batch."""
    model = networks.model_of(network, "NHWC")
    step = networks.training_step(networks.loss_of(network, contestant, model))
    state = jax.eval_shape(partial(networks.initial_state, model))
    return step, state, networks.image_batch(network, "NHWC", images)


def sharded(arrays: Any, mesh: Mesh, spec: P) -> Any:
    """The arrays' shapes and dtypes, and how they lie on a mesh."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arrays
    )
