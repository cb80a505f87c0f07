"""What a run tells while it goes on: a line that moves, metrics.jsonl, TensorBoard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from tensorboardX import SummaryWriter

from experiments.run import run_folder


class Journal:
    """What is written down of one run, in its folder."""

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        task: TaskID,
        board: SummaryWriter,
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
        run_folder.append_line(self._folder / run_folder.METRICS, record)
        last = record["step"]
        for step, loss in enumerate(batch_losses, last - len(batch_losses) + 1):
            self._board.add_scalar("batch/loss", loss, step)
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            self._board.add_scalar(name.replace("_", "/"), record[name], last)
        self._board.add_scalar("learning_rate", record["learning_rate"], last)
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

    TensorBoard forgets what an earlier part of the run wrote of the steps after that. Only
    a journal that ``writes`` leaves anything behind.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[batch]}"),
        TextColumn("{task.fields[test]}"),
        TimeElapsedColumn(),
        console=console,
    )
    where = str(folder / run_folder.TENSORBOARD)
    again: dict[str, Any] = {"purge_step": first_step + 1} if first_step else {}
    with progress, SummaryWriter(where, **again, write_to_disk=writes) as board:
        task = progress.add_task(
            "compiling", total=steps, completed=first_step, batch="", test=""
        )
        yield Journal(folder, progress, task, board, steps_in_epoch)
