"""All that it takes to go on with a run, after each of its last epochs.

orbax writes a checkpoint beside its place and then moves it there, so that it is there
whole or not at all. With it goes the SHA-256 of what was saved: what is read back is
what was written, or the checkpoint is set aside and the one before it is used.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.run.run_folder import CHECKPOINTS
from jaxcnn.training import TrainingState


class Checkpoints:
    """The checkpoints of a run, the last few of which are kept."""

    def __init__(self, folder: Path, keep: int):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._folder = folder
        self._manager = self._opened(keep)
        self._keep = keep

    def _opened(self, keep: int) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(
            (self._folder / CHECKPOINTS).absolute(), options=options
        )

    def save(self, epoch: int, state: TrainingState) -> None:
        """Keep the state after an epoch."""
        leaves = _by_path(state)
        about = {"sha256": _digest(leaves)}
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about)
            ),
        )

    def restore(
        self, like: TrainingState, warn: Callable[[str], None]
    ) -> tuple[int, TrainingState]:
        """The last epoch whose state is there and sound, and that state.

        Args:
          like: a state of the same run, which is the answer, after epoch 0, when there is
            no checkpoint.
          warn: is told of each damaged checkpoint.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                return epoch, self._read(epoch, like)
            except Exception as error:  # whatever a damaged file makes orbax raise
                self._set_aside(epoch)
                reason = str(error).strip().partition("\n")[0]
                warn(f"epoch {epoch}'s checkpoint is damaged, and set aside: {reason}")
        return 0, like

    def _read(self, epoch: int, like: TrainingState) -> TrainingState:
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            _by_path(like),
        )
        checkpoint = self._manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(wanted), about=ocp.args.JsonRestore()
            ),
        )
        state, expected = checkpoint["state"], checkpoint["about"]["sha256"]
        digest = _digest(state)
        if digest != expected:
            raise ValueError(f"its SHA-256 is {digest}, not {expected}")
        leaves = [state[path] for path in _by_path(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _set_aside(self, epoch: int) -> None:
        aside = self._folder / "damaged"
        aside.mkdir(exist_ok=True)
        place = self._folder / CHECKPOINTS / str(epoch)
        place.rename(aside / f"{epoch}-{len(list(aside.iterdir()))}")
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


def _digest(leaves: dict[str, Any]) -> str:
    content = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        array = np.asarray(leaf)
        content.update(f"{path} {array.dtype} {array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()
