"""Say what the pictures in files show, by the model of a saved run.

    python -m experiments.predict runs/NAME picture.png
    python -m experiments.predict runs/NAME folder --output predictions.json --show seen

:mod:`experiments.data.image_files` tells how a picture becomes an image like those that the
model was trained on; ``--show`` shows what became of it.

The guide: docs/runs.md.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import UInt8
from rich.table import Table

from experiments.data import image_files
from experiments.data.image_files import Inversion
from experiments.run import command, saved_run
from experiments.run.files import must_be_new, replacing, shortened, write_json
from experiments.run.saved_run import SavedRun
from experiments.run.terminal import console, shown

Picture = tuple[Path, UInt8[np.ndarray, "H W C"]]
"""Where it is from, and the image that it became."""

AT_ONCE = 256
"""How many images the model is given, which bounds the memory in use."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Say what the pictures in files show, by the model of a saved run."""

    run_folder: tyro.conf.Positional[Path]
    """What experiments.train left behind."""
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """PNG, JPEG and whatever else pillow reads. A folder stands for all files in it, by
    name, except hidden ones; folders in it are not entered."""
    invert: Inversion = "auto"
    """Whether bright and dark change places, for models of gray images: digits and clothes
    are bright on black. Auto: when most of a picture's border is brighter than half."""
    output: Path | None = None
    """A new JSON file, for the probabilities of all classes."""
    show: Path | None = None
    """A new folder, for the images as the model sees them, as PNG: each has the number and
    the beginning of the name of its picture."""


def main(settings: Settings) -> list[dict[str, Any]]:
    """Classify; print, write and return what each file shows.

    Raises:
      ValueError: at the end, when some of the files could not be used.
    """
    run = saved_run.load(settings.run_folder)
    if settings.invert == "yes" and run.description.shape[-1] > 1:
        raise ValueError(
            f"--invert is yes; images of {run.options.dataset} are photographs in colour, "
            f"which are never inverted"
        )
    for option, path in ("--output", settings.output), ("--show", settings.show):
        if path is not None:
            must_be_new(option, path)
    usable, faults = _loaded(_files(settings.pictures), run, settings.invert)
    predictions = _predictions(run, usable)
    console().print(_table(predictions))
    if settings.output is not None:
        write_json(settings.output, predictions)
    if settings.show is not None:
        settings.show.mkdir()
        for number, (path, image) in enumerate(usable, start=1):
            seen = settings.show / f"{number:04}-{shortened(path.stem)}.png"
            with replacing(seen) as partial:
                image_files.save(partial, image, run.description)
    if faults:
        skipped = f"{len(faults)} of {len(faults) + len(usable)} pictures were skipped"
        raise ValueError("\n".join([f"{skipped}:", *faults]))
    return predictions


def _loaded(
    paths: list[Path], run: SavedRun, invert: Inversion
) -> tuple[list[Picture], list[str]]:
    """The pictures that can be used, and of each of the others what is wrong with it."""
    usable, faults = [], []
    for path in paths:
        try:
            image = image_files.load(path, run.options.dataset, run.description, invert)
            usable.append((path, image))
        except (OSError, ValueError) as error:
            faults.append(str(error))
    return usable, faults


def _files(paths: tuple[Path, ...]) -> list[Path]:
    """The files, and those in the folders."""
    if not paths:
        raise ValueError("pictures are missing: name at least one file or folder")
    files = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                each
                for each in path.iterdir()
                if each.is_file() and not each.name.startswith(".")
            )
            if not inside:
                raise FileNotFoundError(f"there is no picture in the folder {path}")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}")
    return files


def _predictions(run: SavedRun, pictures: list[Picture]) -> list[dict[str, Any]]:
    """Of each file, the classes and their probabilities, the likeliest first."""
    probabilities = [
        each
        for first in range(0, len(pictures), AT_ONCE)
        for each in np.asarray(
            run.probabilities(
                np.stack([image for _, image in pictures[first : first + AT_ONCE]])
            )
        )
    ]
    classes = np.array(run.description.classes)
    return [
        {
            "file": str(path),
            "probabilities": {
                str(classes[each]): float(of_image[each]) for each in np.argsort(-of_image)
            },
        }
        for (path, _), of_image in zip(pictures, probabilities, strict=True)
    ]


def _table(predictions: list[dict[str, Any]]) -> Table:
    table = Table("file", "class", "probability", "runner-up")
    table.columns[0].overflow = "fold"  # no part of a long name is left out
    for each in predictions:
        (best, probability), (second, less), *_ = each["probabilities"].items()
        table.add_row(
            shown(each["file"]),
            best,
            f"{100 * probability:.1f} %",
            f"{second} ({100 * less:.1f} %)",
        )
    return table


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
