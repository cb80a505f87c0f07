"""All that it takes to go on with a run, after each of its last epochs.

orbax writes a checkpoint beside its place and then moves it there, so that it is there
whole or not at all. With it go the options of its run, and the SHA-256 of all of it: what
is read back is what was written, or the checkpoint is set aside and the one before it is
used. A checkpoint that is sound, but another run's, is nothing to go on from.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments.run.interruption import uninterrupted
from experiments.run.run_folder import CHECKPOINTS, CONFIGURATION
from jaxcnn.training import TrainingState


class Checkpoints:
    """The checkpoints of a run, the last few of which are kept.

    Args:
      folder: of the run.
      keep: how many.
      options: what decides the run's results, by name, as JSON can tell it.
    """

    def __init__(self, folder: Path, keep: int, options: dict[str, Any]):
        for logger in "absl", "asyncio":  # what orbax reports there it raises, too
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._folder, self._options = folder, options
        self._manager = self._opened(keep)
        self._keep = keep

    def _opened(self, keep: int) -> ocp.CheckpointManager:
        place = self._folder / CHECKPOINTS
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is no folder, which a run's checkpoints are")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(
            place.absolute(),
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "about": ocp.JsonCheckpointHandler(),
            },
        )

    @uninterrupted()
    def save(self, epoch: int, state: TrainingState) -> None:
        """Keep the state after an epoch.

        Raises:
          OSError: when it cannot be written.
        """
        leaves = _by_path(state)
        self._must_have_room(epoch, sum(leaf.nbytes for leaf in leaves.values()))
        about = {"options": self._options, "sha256": _digest(leaves, self._options)}
        try:
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about)
                ),
            )
        except Exception as error:  # whatever a full disk makes orbax raise
            raise OSError(
                f"the checkpoint of epoch {epoch} cannot be written to "
                f"{self._folder / CHECKPOINTS}: {_reason(error)}"
            ) from error

    def _must_have_room(self, epoch: int, size: int) -> None:
        """Before orbax begins: its threads print tracebacks where there is none."""
        wanted, free = size + 2**20, shutil.disk_usage(self._folder).free
        if free < wanted:
            raise OSError(
                f"the checkpoint of epoch {epoch} cannot be written to "
                f"{self._folder / CHECKPOINTS}: that takes {wanted / 1e6:,.1f} MB, and "
                f"{free / 1e6:,.1f} MB are free"
            )

    @uninterrupted()
    def restore(
        self, like: TrainingState, warn: Callable[[str], None]
    ) -> tuple[int, TrainingState]:
        """The last epoch whose state is there and sound, and that state.

        Args:
          like: a state of the same run, which is the answer, after epoch 0, when there is
            no checkpoint.
          warn: is told of each damaged checkpoint, which is set aside.

        Raises:
          ValueError: when the checkpoint is another run's, or there are some and all are
            damaged. Nothing is changed.
        """
        damaged: dict[int, str] = {}
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                leaves, options = self._read(epoch, like)
            except Exception as error:  # whatever a damaged file makes orbax raise
                damaged[epoch] = _reason(error)
                continue
            self._must_be_of_this_run(epoch, options, leaves, _by_path(like))
            if damaged:
                self._set_aside(damaged)
            for each, reason in damaged.items():
                warn(f"epoch {each}'s checkpoint is damaged, and set aside: {reason}")
            in_order = [leaves[path] for path in _by_path(like)]
            return epoch, jax.tree.unflatten(jax.tree.structure(like), in_order)
        if damaged:
            epoch, reason = next(iter(damaged.items()))
            raise ValueError(
                f"all checkpoints in {self._folder / CHECKPOINTS} are damaged, that of "
                f"epoch {epoch} because {reason}; put them back as they were, or begin a "
                f"new run in another --run-dir"
            )
        return 0, like

    def _read(
        self, epoch: int, like: TrainingState
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        """The leaves as they were saved, on the devices of those wanted; their options."""
        sharding = jax.tree.leaves(like)[0].sharding
        saved = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            dict(self._manager.item_metadata(epoch)["state"]),
        )
        checkpoint = self._manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(saved), about=ocp.args.JsonRestore()
            ),
        )
        leaves, about = checkpoint["state"], checkpoint["about"]
        options = about.get("options", {})  # version 0.1.0 did not tell them
        digest = _digest(leaves, options)
        if digest != about["sha256"]:
            raise ValueError(f"its SHA-256 is {digest}, not {about['sha256']}")
        return leaves, options

    def _must_be_of_this_run(
        self,
        epoch: int,
        options: dict[str, Any],
        leaves: dict[str, jax.Array],
        wanted: dict[str, jax.Array],
    ) -> None:
        """An option that a checkpoint does not tell is one that there was not yet."""
        whose = f"the checkpoint of epoch {epoch} in {self._folder / CHECKPOINTS}"
        for name, value in options.items():
            if self._options.get(name) != value:
                raise ValueError(
                    f"{whose} belongs to a run whose {name} was {value}, and here it is "
                    f"{self._options.get(name)}: begin a new run in another --run-dir, or "
                    f"give {CONFIGURATION} its options back"
                )
        for path in sorted(leaves.keys() | wanted.keys()):
            one, other = (_described(each.get(path)) for each in (leaves, wanted))
            if one != other:
                raise ValueError(
                    f"{whose} does not fit: {path} is {one} in it, and {other} in this "
                    f"version's model and optimizer; go on with the version that wrote it"
                )

    def _set_aside(self, epochs: Iterable[int]) -> None:
        if jax.process_index() == 0:
            aside = self._folder / "damaged"
            aside.mkdir(exist_ok=True)
            for epoch in epochs:
                place = self._folder / CHECKPOINTS / str(epoch)
                place.rename(aside / f"{epoch}-{len(list(aside.iterdir()))}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.close()
        self._manager = self._opened(self._keep)

    def close(self) -> None:
        self._manager.close()


def _by_path(state: TrainingState) -> dict[str, jax.Array]:
    """The leaves, each under its path: the same for whatever classes hold them."""
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _described(leaf: jax.Array | None) -> str:
    return "missing" if leaf is None else f"{leaf.dtype} {leaf.shape}"


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _digest(leaves: dict[str, Any], options: dict[str, Any]) -> str:
    content = hashlib.sha256()
    if options:
        content.update(json.dumps(options, sort_keys=True).encode())
    for path, leaf in sorted(leaves.items()):
        array = np.asarray(leaf)
        content.update(f"{path} {array.dtype} {array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()
