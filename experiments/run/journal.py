"""What a run tells while it goes on: a line that moves, metrics.jsonl, TensorBoard."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from tensorboardX.proto.event_pb2 import (  # protobuf makes them when it is imported
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from experiments.run import run_folder
from experiments.run.files import named


class Board:
    """A file of TensorBoard's, in which there is all that it was told.

    tensorboardX's own writer keeps values in a queue, which a kill loses.

    Args:
      folder: of this and the run's other files.
      first_step: of this part of the run: TensorBoard forgets what earlier files told of it
        and of later ones.
    """

    def __init__(self, folder: Path, first_step: int):
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names.
        self._path = folder.absolute() / f"events.out.tfevents.{time.time():.6f}"
        self._path.touch(exist_ok=False)
        self._records = RecordWriter(str(self._path))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        """Tell what was measured at a step."""
        self._write(Event(step=step, summary=scalar(name, value)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with named(self._path):
            self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """See all of it safely to disk."""
        with named(self._path):
            self._records.flush()

    def close(self) -> None:
        with named(self._path):
            self._records.close()


class Journal:
    """What is written down of one run, in its folder."""

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        task: TaskID,
        board: Board | None,
        steps_in_epoch: int,
    ):
        self._folder, self._progress, self._task = folder, progress, task
        self._board, self._steps_in_epoch = board, steps_in_epoch

    def batch(self, step: Any, loss: Any, accuracy: Any) -> None:
        """Show how a batch did, while its epoch runs."""
        self._progress.update(
            self._task,
            completed=int(step),
            description=f"epoch {-(-int(step) // self._steps_in_epoch)}",
            batch=f"loss {loss:.3f}, accuracy {100 * accuracy:.0f} %",
        )

    def epoch(self, record: dict[str, Any], batch_losses: np.ndarray) -> None:
        """Write down how an epoch did, and the loss of each of its batches."""
        assert self._board is not None
        run_folder.append_line(self._folder / run_folder.METRICS, record)
        last = record["step"]
        for step, loss in enumerate(batch_losses, last - len(batch_losses) + 1):
            self._board.add("batch/loss", loss, step)
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            self._board.add(name.replace("_", "/"), record[name], last)
        self._board.add("learning_rate", record["learning_rate"], last)
        self._board.flush()
        self._progress.update(
            self._task,
            completed=last,
            test=f"test {100 * record['test_accuracy']:.2f} %",
        )


@contextmanager
def opened(
    folder: Path,
    console: Console,
    writes: bool,
    *,
    steps_in_epoch: int,
    steps: int,
    first_step: int,
) -> Iterator[Journal]:
    """The journal of a run of so many steps that begins, or goes on, after ``first_step``.

    Only a journal that ``writes`` leaves anything behind, and can be told of an epoch.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[batch]}"),
        TextColumn("{task.fields[test]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with ExitStack() as stack:
        board = None
        if writes:
            board = Board(folder / run_folder.TENSORBOARD, first_step + 1)
            stack.callback(board.close)
        stack.enter_context(progress)
        task = progress.add_task(
            "compiling", total=steps, completed=first_step, batch="", test=""
        )
        yield Journal(folder, progress, task, board, steps_in_epoch)
