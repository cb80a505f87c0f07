"""A run's report: one page with all there is to see, which needs nothing but itself.

It is made of what is in the run folder and of the images that the run was tested on. The
pictures are within the page, so that it can be sent and kept as it is.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.data import sets
from experiments.data.reading import reading
from experiments.data.sets import Examples
from experiments.pages import insight, pictures
from experiments.pages.insight import Answers
from experiments.pages.web_page import Picture, rendered
from experiments.run import run_folder, saved_run
from experiments.run.files import replacing
from experiments.run.options import flattened
from experiments.run.saved_run import SavedRun
from jaxcnn import inspection
from jaxcnn.inspection import Layer

TEMPLATE = Path(__file__).with_name("report.html")
MISTAKES = 24
CHANNELS = 16


class Group(NamedTuple):
    """Small pictures that belong together, and what is written beside them."""

    pictures: list[Picture]
    caption: str


def write(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, in the place of an earlier one.

    Raises:
      OSError: when a file of the run or of its data set is missing.
      ValueError: when one is not what it should be; the message names the file.
    """
    run = saved_run.load(folder)
    records = run_folder.read_metrics(folder)
    if not records:
        raise ValueError(
            f"{folder / run_folder.METRICS} is empty: no epoch of this run was finished"
        )
    options = run.options
    dataset = sets.load(options.dataset, options.data_dir, options.validate)
    path = folder / run_folder.REPORT
    with replacing(path) as partial:
        html = page(run, records, dataset.test)  # names of files may be no UTF-8
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


def page(run: SavedRun, records: Sequence[dict[str, Any]], test: Examples) -> str:
    """The report as HTML.

    Args:
      run: that it is about.
      records: the metrics of its epochs.
      test: what it was tested on.
    """
    images = np.asarray(test.images)
    answers = insight.answers(run.model, run.parameters, test)
    layers = inspection.layers(run.model, run.description.shape)
    kernel = insight.first_kernel(layers, run.parameters)
    classes = run.description.classes
    test_set = "validation set" if run.options.validate else "test set"
    return rendered(
        TEMPLATE,
        title=f"{run.options.model} on {run.options.dataset}",
        test_set=test_set,
        facts=facts(run, records, answers, test_set),
        curves=Picture(
            pictures.drawn(pictures.curves(records, test_set=test_set)),
            f"Loss and accuracy of the training batches and of the {test_set} by epoch",
        ),
        layers=layers,
        confusion=Picture(
            pictures.drawn(
                pictures.confusion(answers.labels, answers.predictions, classes=classes)
            ),
            "A table of true classes by predicted classes",
        ),
        answers=answers,
        mistakes=list(mistakes(answers, images, classes)),
        kernel=kernel,
        filters=Picture(
            pictures.drawn(pictures.filters(kernel)),
            f"The {kernel.shape[-1]} kernels of {layers[0].name}",
        ),
        example=Picture(pictures.image(images[0], images.max()), "The image"),
        example_class=classes[int(answers.labels[0])],
        feature_maps=list(feature_maps(run, images[0], layers)),
        saliency=list(saliency(run, answers, images)),
        options=list(flattened(run.options.to_json())),
    )


def facts(
    run: SavedRun, records: Sequence[dict[str, Any]], answers: Answers, test_set: str
) -> dict[str, str]:
    """The run in a few words."""
    count, wrong = len(answers.labels), len(answers.mistakes)
    path = run.folder / run_folder.CONFIGURATION
    with reading(path, "is no configuration of a run"):
        configuration = json.loads(path.read_text())
        versions = configuration.get("versions", {}).items()
    minutes, seconds = divmod(round(records[-1]["seconds"]), 60)
    return {
        "model": run.options.model,
        "data set": run.options.dataset,
        f"{test_set} accuracy": f"{100 * (1 - wrong / count):.2f} %",
        f"{test_set} loss": f"{answers.losses.mean():.4f}",
        "mistakes": f"{wrong:,} of {count:,}",
        "epochs": str(records[-1]["epoch"]),
        "time": f"{minutes} min {seconds} s" if minutes else f"{seconds} s",
        "device": configuration.get("device", "unknown"),
        "versions": ", ".join(f"{name} {each}" for name, each in versions),
    }


def mistakes(
    answers: Answers, images: np.ndarray, classes: Sequence[str]
) -> Iterator[Group]:
    """The images of the worst mistakes."""
    for number in answers.mistakes[:MISTAKES]:
        picture = pictures.image(images[number], images.max())
        yield Group(
            [Picture(picture, f"Test image {number}")], verdict(answers, number, classes)
        )


def feature_maps(
    run: SavedRun, image: np.ndarray, layers: Sequence[Layer]
) -> Iterator[Group]:
    """What layers make of an image: the first channels of each."""
    values = insight.activations(run.parameters, jnp.asarray(image[None]), model=run.model)
    for layer in insight.with_feature_maps(layers):
        maps = np.asarray(values[layer.name][0])[..., :CHANNELS]
        limit = np.abs(maps).max()
        shown = [
            Picture(pictures.signed(maps[..., channel], limit), f"Channel {channel + 1}")
            for channel in range(maps.shape[-1])
        ]
        height, width, channels = values[layer.name].shape[1:]
        part = f"the first {CHANNELS} of " if channels > CHANNELS else ""
        yield Group(shown, f"{layer.name}: {part}{channels} channels of {height}×{width}")


def saliency(run: SavedRun, answers: Answers, images: np.ndarray) -> Iterator[Group]:
    """An image of each class, and how much each of its pixels matters to the answer."""
    numbers = answers.first_of_each_class
    shown = images[numbers]
    maps = insight.saliency(run.parameters, jnp.asarray(shown), model=run.model)
    for number, one, strength in zip(numbers, shown, np.asarray(maps), strict=True):
        yield Group(
            [
                Picture(pictures.image(one, images.max()), f"Test image {number}"),
                Picture(pictures.signed(strength, strength.max()), "Its saliency"),
            ],
            verdict(answers, number, run.description.classes),
        )


def verdict(answers: Answers, number: int, classes: Sequence[str]) -> str:
    """The true class, the predicted one if it is another, and its probability."""
    truth, prediction = (
        classes[int(each[number])] for each in (answers.labels, answers.predictions)
    )
    named = truth if prediction == truth else f"{truth} → {prediction}"
    return f"{named}, {percent(float(answers.probabilities[number]))}"


def percent(probability: float) -> str:
    """Rounded down, so that 100 % is nothing less; and never broken into two lines."""
    return f"{np.floor(1000 * probability) / 10:.1f}\N{NO-BREAK SPACE}%"
