"""A run that was saved, to be used: its model, its parameters and how they came about."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.data.reading import content_of, reading
from experiments.data.sets import Description, Images
from experiments.run import run_folder
from experiments.run.files import write_json
from experiments.run.from_json import from_json
from experiments.run.options import Options, model_of
from experiments.run.origin import origin
from jaxcnn import softmax
from jaxcnn.models import Model, Parameters


class SavedRun(NamedTuple):
    """What a run folder holds.

    Attributes:
      folder: of the run.
      options: it was started with.
      description: of the images that the model is for.
      model: of images as they are stored.
      parameters: after the last epoch.
    """

    folder: Path
    options: Options
    description: Description
    model: Model
    parameters: Parameters

    def probabilities(self, images: Images) -> Float[Array, "N classes"]:
        """How likely each class is, by the model, for images as they are stored."""
        return softmax(jax.jit(self.model.apply)(self.parameters, images))


def load(folder: Path) -> SavedRun:
    """Read a run folder.

    Raises:
      FileNotFoundError: when it is none, or no epoch of the run was finished.
      ValueError: when a file in it is not what a run writes.
    """
    options, description = read_configuration(folder)
    with reading(folder / run_folder.CONFIGURATION, "describes no model"):
        model = model_of(options, description)
        expected = jax.eval_shape(model.init, jax.random.key(0))
    path = folder / run_folder.PARAMETERS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished")
    parameters = run_folder.load_parameters(path, expected)
    for name, leaf in run_folder.by_name(parameters).items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{path} has numbers in {name} that are infinite or NaN")
    return SavedRun(folder, options, description, model, parameters)


def write_configuration(folder: Path, options: Options, description: Description) -> None:
    """Begin a run folder with what :func:`read_configuration` reads."""
    write_json(
        folder / run_folder.CONFIGURATION,
        {
            "options": options.to_json(),
            "images": description.to_json(),
            **origin(),
        },
    )


def read_configuration(folder: Path) -> tuple[Options, Description]:
    """How a run was started, and on what images; errors are those of :func:`load`."""
    path = folder / run_folder.CONFIGURATION
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no run folder: it holds no {path.name}, which every run "
            f"begins with"
        )
    with reading(path, "is no configuration of a run"):
        content = json.loads(content_of(path, 2**20))
        if not isinstance(content, dict) or not {"options", "images"} <= content.keys():
            raise ValueError("it holds no options and images")
        options = from_json(Options, content["options"])
        if options != options.completed():
            raise ValueError("its model, epochs or batch_size was never chosen")
        return options, from_json(Description, content["images"])
