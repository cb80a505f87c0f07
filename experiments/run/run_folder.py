"""What a run leaves behind, written so that nothing is ever lost or half there.

A run folder holds

    configuration.json   the options, the images' description, the versions, the device
    metrics.jsonl        one line for each epoch
    parameters.npz       the parameters after the last epoch, one array for each leaf
    checkpoints/         all that it takes to go on after the last epochs
    tensorboard/         the metrics as TensorBoard reads them
    report.html          all there is to see
    model.jaxexport      what experiments.export makes of it
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout

from experiments.run.files import PARTIAL, named, replacing
from jaxcnn.models import Parameters

CONFIGURATION, METRICS = "configuration.json", "metrics.jsonl"
PARAMETERS, CHECKPOINTS, TENSORBOARD = "parameters.npz", "checkpoints", "tensorboard"
LOCK = ".lock"


def create(folder: Path) -> Path:
    """Make the folder of a new run, or take one in which none has begun.

    Raises:
      FileExistsError: when there is something in it, which is some other run's.
    """
    beginnings = LOCK, PARTIAL.format(CONFIGURATION)  # of a run that got no further
    if os.path.lexists(folder) and (
        not folder.is_dir()
        or not all(any(map(path.match, beginnings)) for path in folder.iterdir())
    ):
        raise FileExistsError(
            f"--run-dir {folder} exists and is not empty: choose another, so that no "
            f"earlier run is overwritten"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one line of JSON, and see it safely to disk."""
    with named(path), path.open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """Forget all but the first lines, the last of which may be cut off; what is left."""
    lines = path.read_text().splitlines(keepends=True)[:count] if path.is_file() else []
    with replacing(path) as partial:
        partial.write_text("".join(lines))
    return read_lines(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder, for as long as this one lives.

    What one that was killed left half written is removed.

    Raises:
      BlockingIOError: when another process has it.
    """
    try:
        with FileLock(folder / LOCK, timeout=0):
            for name in CONFIGURATION, METRICS, PARAMETERS:
                for left in folder.glob(PARTIAL.format(name)):
                    shutil.rmtree(left, ignore_errors=True)
            yield
    except Timeout as error:
        raise BlockingIOError(f"{folder} is in use by a run that goes on") from error


def save_parameters(path: Path, parameters: Parameters) -> None:
    """Write every leaf under its path, such as ``conv1/w``; no code is ever stored."""
    leaves = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **leaves)


def load_parameters(path: Path) -> Parameters:
    """Read what :func:`save_parameters` wrote."""
    parameters: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as leaves:
        for name in leaves.files:
            *branches, leaf = name.split("/")
            node = parameters
            for branch in branches:
                node = node.setdefault(branch, {})
            node[leaf] = leaves[name]
    return parameters
