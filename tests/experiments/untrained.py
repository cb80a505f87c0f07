"""Runs that have learned nothing, for tests to which that makes no difference."""

from pathlib import Path

import numpy as np

from experiments.data.sets import Description
from experiments.run import run_folder, saved_run
from experiments.run.files import write_json
from experiments.run.options import Options, model_of
from experiments.run.saved_run import SavedRun
from tests.models.parameters import drawn


def run_of(options: Options, description: Description) -> SavedRun:
    """A run that is nowhere. Models' own first parameters take seconds to draw."""
    model = model_of(options, description)
    parameters = drawn(model, np.random.default_rng(0), np.float32)
    return SavedRun(Path("nowhere"), options, description, model, parameters)


def saved(folder: Path, options: Options, description: Description) -> SavedRun:
    """A run in a new folder."""
    run = run_of(options, description)
    run_folder.create(folder)
    run_folder.save_parameters(folder / "parameters.npz", run.parameters)
    options = options.completed()
    configuration = {"options": options.to_json(), "images": description.to_json()}
    write_json(folder / "configuration.json", configuration)
    return saved_run.load(folder)
