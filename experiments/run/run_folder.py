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
import math
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout

from experiments.data.reading import read_up_to, reading
from experiments.run.files import PARTIAL, named, replacing
from jaxcnn.models import Parameters

CONFIGURATION, METRICS = "configuration.json", "metrics.jsonl"
PARAMETERS, CHECKPOINTS, TENSORBOARD = "parameters.npz", "checkpoints", "tensorboard"
REPORT, LOCK = "report.html", ".lock"

MEASURED = {
    "epoch": int,
    "step": int,
    "learning_rate": float,
    "train_loss": float,
    "train_accuracy": float,
    "test_loss": float,
    "test_accuracy": float,
    "epoch_seconds": float,
    "seconds": float,
}
"""What a line of the metrics tells of an epoch."""


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


def read_metrics(folder: Path, epochs: int | None = None) -> list[dict[str, Any]]:
    """What was measured after each of so many epochs; by default, of all there are.

    Raises:
      FileNotFoundError: when the file is missing.
      ValueError: when it is not what a run writes, or tells of fewer epochs.
    """
    path = folder / METRICS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it has a line for each epoch")
    lines = path.read_bytes().splitlines()[:epochs]
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    if epochs is not None and len(records) < epochs:
        raise ValueError(f"{path} tells of {len(records)} epochs; {epochs} were finished")
    return records


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    damaged = f"{path} is damaged in line {number}"
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{damaged}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{damaged}: it is no object of JSON")
    wrong = [name for name, kind in MEASURED.items() if type(record.get(name)) is not kind]
    if wrong:
        raise ValueError(f"{damaged}: {', '.join(wrong)} missing, or no such number")
    if record["epoch"] != number:
        raise ValueError(
            f"{path} has epoch {record['epoch']} in line {number}: a line is missing, or "
            f"one too many"
        )
    return record


def measured_before(folder: Path, done: int) -> list[dict[str, Any]]:
    """The metrics of a run that goes on after so many epochs, or begins.

    Parameters are kept after the checkpoint of their epoch, and an epoch begins after that.
    Where there are some, or a second epoch was measured, there was a checkpoint.

    Raises:
      OSError, ValueError: of :func:`read_metrics`.
      FileNotFoundError: when the run would begin anew, over results.
    """
    if done:
        return read_metrics(folder, done)
    path = folder / METRICS
    measured = path.read_bytes().splitlines() if path.is_file() else []
    if len(measured) > 1 or (folder / PARAMETERS).exists():
        raise FileNotFoundError(
            f"{folder} holds results but no checkpoint to go on from: put its "
            f"{CHECKPOINTS} back, or begin a new run in another --run-dir"
        )
    return []


def write_metrics(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write them anew, and forget what was measured later."""
    with replacing(folder / METRICS) as partial:
        partial.write_text("".join(json.dumps(record) + "\n" for record in records))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder, for as long as this one lives.

    What one that was killed left half written is removed.

    Raises:
      BlockingIOError: when another process has it.
    """
    try:
        with FileLock(folder / LOCK, timeout=0):
            for name in CONFIGURATION, METRICS, PARAMETERS, REPORT:
                for left in folder.glob(PARTIAL.format(name)):
                    shutil.rmtree(left, ignore_errors=True)
            yield
    except Timeout as error:
        raise BlockingIOError(f"{folder} is in use by a run that goes on") from error


def save_parameters(path: Path, parameters: Parameters) -> None:
    """Write every leaf under its path, such as ``conv1/w``; no code is ever stored."""
    leaves = {name: np.asarray(leaf) for name, leaf in by_name(parameters).items()}
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **leaves)


def load_parameters(path: Path, like: Any) -> Parameters:
    """Read what :func:`save_parameters` wrote.

    Args:
      path: of the file.
      like: parameters of the same model, or their shapes. What is not like them is refused
        before it is unpacked.

    Raises:
      ValueError: when the file is damaged, or holds anything else.
    """
    expected = by_name(like)
    with (
        reading(path, "holds no parameters of this model"),
        zipfile.ZipFile(path) as archive,
    ):
        names = {each.removesuffix(".npy") for each in archive.namelist()}
        if odd := sorted(names ^ expected.keys()):
            raise ValueError(
                f"{odd[0]} is {'missing' if odd[0] in expected else 'unknown'}"
            )
        leaves = [_array(archive, *each) for each in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def by_name(parameters: Parameters) -> dict[str, Any]:
    """The leaves, each under its path, such as ``conv1/w``."""
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def _array(archive: zipfile.ZipFile, name: str, like: Any) -> np.ndarray:
    """An array of an archive, which is to have this shape and dtype."""
    numpy_file = np.lib.format
    with archive.open(f"{name}.npy") as file:
        # An array's header says what follows: nothing that is larger, and no pickle.
        if numpy_file.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is no array as NumPy saves those of numbers")
        shape, in_fortran_order, dtype = numpy_file.read_array_header_1_0(file)
        if (shape, dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"{name} is {dtype}{list(shape)}; it must be {like.dtype}{list(like.shape)}"
            )
        count = math.prod(shape) * dtype.itemsize
        content = read_up_to(file, count + 1)  # to its end, where its checksum is compared
    if len(content) != count:
        raise ValueError(f"{name} has {len(content)} bytes; it must have {count}")
    order = "F" if in_fortran_order else "C"
    return np.frombuffer(content, dtype).reshape(shape, order=order)
