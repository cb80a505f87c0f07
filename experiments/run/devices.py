"""The devices that train together: one, several, or those of many machines.

Every device holds all of the data set and of the training state, and takes its part of
every batch: data parallelism over a one-dimensional :class:`jax.sharding.Mesh`. Many
machines are joined by :mod:`jax.distributed`. The results are those of one device, to
within rounding.
"""

import contextlib
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
"""Of the mesh, where there are several devices."""

MOST = 64
"""Devices of one process. XLA aborts where a CPU pretends to be hundreds."""

SILENCE = 15
"""After how many seconds without a sign of life another process counts as gone."""


@dataclass(frozen=True)
class Devices:
    """Which devices train together.

    Raises:
      ValueError: when an option is out of its range, or some of those that belong together
        are missing.
    """

    devices: int = 1
    """How many devices of this process train, each with its part of every batch; 0 for all
    of them. A machine that has nothing but a CPU pretends to have so many."""
    coordinator: str | None = None
    """With several processes, on one machine or many: the address, HOST:PORT, where the
    first of them can be reached. All are started by the same command but for its last
    option, and see the same --run-dir. The first one listens there, and nowhere else."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, from 0; the first one writes and reports."""

    def __post_init__(self):
        if self.devices < 0:
            raise ValueError(f"devices is {self.devices}; it must not be negative")
        if self.devices > MOST:
            raise ValueError(f"devices is {self.devices}; it must be at most {MOST}")
        if self.coordinator is not None:
            _must_be_an_address(self.coordinator)
        together = (self.coordinator, self.num_processes, self.process_id)
        if None in together and any(each is not None for each in together):
            raise ValueError(
                f"coordinator, num_processes and process_id are {together}; they must be "
                f"given together"
            )
        if self.num_processes is not None and not (
            0 <= (self.process_id or 0) < self.num_processes
        ):
            raise ValueError(
                f"process_id is {self.process_id} and num_processes {self.num_processes}; "
                f"it must be from 0 to below the number of processes"
            )


def _must_be_an_address(coordinator: str) -> None:
    try:
        address = urllib.parse.urlsplit(f"//{coordinator}")
        if address.hostname and address.port and address.netloc == coordinator:
            return
    except ValueError:  # a port that is none
        pass
    raise ValueError(
        f"coordinator is {coordinator!r}; it must be HOST:PORT, such as 127.0.0.1:1234, "
        f"with a port from 1 to 65535"
    )


class Team(NamedTuple):
    """Devices that work as one.

    Attributes:
      mesh: of all the devices, or None for a single one.
    """

    mesh: Mesh | None

    @property
    def axis_name(self) -> str | None:
        """The axis along which a batch is sharded, if it is."""
        return None if self.mesh is None else AXIS

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return jax.process_index() == 0

    def place(self, tree: Any) -> Any:
        """NumPy arrays, the same in every process, as arrays on every device."""
        if self.mesh is None:
            return jax.tree.map(jax.numpy.asarray, tree)
        everywhere = NamedSharding(self.mesh, PartitionSpec())

        def placed(array: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(
                array.shape, everywhere, lambda index: array[index]
            )

        return jax.tree.map(placed, tree)

    def compiled(self, function: Callable, **options: Any) -> Callable:
        """The function compiled, on every device: what goes in and out is the same on all.

        Inside of it :attr:`axis_name` tells devices apart.
        """
        if self.mesh is not None:
            everywhere = PartitionSpec()
            function = jax.shard_map(
                function, mesh=self.mesh, in_specs=everywhere, out_specs=everywhere
            )
        return jax.jit(function, **options)


def join(chosen: Devices) -> Team:
    """Connect the processes, if there are several, and gather their devices.

    It must come before anything is computed.

    Raises:
      ConnectionError: when the processes do not find together.
      ValueError: when there are fewer devices than were asked for.
    """
    if chosen.devices > 1:
        _pretend(chosen.devices)
    if chosen.coordinator is not None:
        _meet(chosen)
    here = jax.local_device_count()
    if chosen.devices > here:
        raise ValueError(
            f"devices is {chosen.devices}; this process has {here} of the kind "
            f"{jax.devices()[0].device_kind}"
        )
    if chosen.devices == 1 and chosen.coordinator is None:
        return Team(None)
    taken = [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process)[: chosen.devices or None]
    ]
    return Team(None if len(taken) == 1 else Mesh(np.array(taken), (AXIS,)))


def _meet(chosen: Devices) -> None:
    # It would take SIGTERM for a notice that may be heeded at leisure.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            chosen.coordinator,
            chosen.num_processes,
            chosen.process_id,
            coordinator_bind_address=chosen.coordinator,
            heartbeat_timeout_seconds=SILENCE,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(
            f"coordinator is {chosen.coordinator}; the processes cannot meet there: "
            f"{reason}"
        ) from error


def _pretend(devices):
    """Split the CPU into so many devices, if it is not in use yet."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices)
