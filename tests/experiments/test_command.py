"""Scripts as commands: what they are told on the command line, and how they fail."""

import ast
import math
import sys
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pytest

from experiments.run import command
from experiments.run.command import ClaimError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(path.stem for path in EXPERIMENTS.glob("[!_]*.py"))


@dataclass(frozen=True)
class Settings:
    """What to do."""

    number: int = 0


def started(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    command.run(main, Settings, "What it is for.")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("number is 0; it must be positive"),
        FileNotFoundError("there is no file"),
        FloatingPointError("the loss became nan"),
        ModuleNotFoundError("libtpu is missing"),
        ClaimError("2 gradients are wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_one_line_and_exit_status_1(monkeypatch, error):
    def main(settings):
        raise error

    with pytest.raises(SystemExit) as stopped:
        started(monkeypatch, main)
    # A string as its code makes Python print it to stderr, and exit with status 1.
    assert stopped.value.code == f"error: {error}"


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("benchmark", {"rounds": -1}, "rounds is -1; it must be at least 0"),
        ("benchmark", {"count": 0}, "count is 0; it must be at least 1"),
        ("compare_gradients", {"seed": -1}, "seed is -1; it must be at least 0"),
        ("epoch_time", {"steps": 0}, "steps is 0; it must be at least 1"),
        ("error_study", {"channels": ()}, r"channels is \(\); it must be at least 1"),
        ("error_study", {"size": 2}, "size is 2; it must be at least 5"),
        ("frameworks", {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ("frameworks", {"tolerance": math.nan}, "tolerance is nan; it must be at least 0"),
        ("platforms", {"images": -3}, "images is -3; it must be at least 1"),
        ("same_curve", {"epochs": 0}, "epochs is 0; it must be at least 1"),
        ("time_to_accuracy", {"accuracy": 1.0}, "accuracy is 1.0; it must be between"),
        ("tpu", {"images": 0}, "images is 0; it must be at least 1"),
    ],
)
def test_options_are_refused_before_anything_is_computed(script, options, said):
    settings = import_module(f"experiments.{script}").Settings
    with pytest.raises(ValueError, match=said):
        settings(**options)


def test_what_was_noted_of_a_failure_is_said_too(monkeypatch):
    def main(settings):
        error = ValueError("wrong")
        error.add_note("while measuring")
        raise error

    with pytest.raises(SystemExit, match=r"^error: wrong\nwhile measuring$"):
        started(monkeypatch, main)


def test_a_mistake_in_a_script_itself_is_not_hidden(monkeypatch):
    def main(settings):
        raise TypeError("not a user's mistake")

    with pytest.raises(TypeError):
        started(monkeypatch, main)


def test_ctrl_c_ends_a_command_in_a_word(monkeypatch):
    def main(settings):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^stopped$"):
        started(monkeypatch, main)


def test_settings_come_from_the_command_line(monkeypatch):
    given = []
    started(monkeypatch, given.append, "--number", "3")
    assert given == [Settings(3)]


def test_unknown_names_are_refused():
    command.must_be_known("op", ["relu"], ["relu", "elu"])
    for given in ["tanh"], []:
        with pytest.raises(ValueError, match=r"^op is '.*'; there are relu, elu$"):
            command.must_be_known("op", given, ["relu", "elu"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_a_command_with_settings(name):
    module = import_module(f"experiments.{name}")
    types = {field.name: field.type for field in fields(module.Settings)}
    assert types.get("output") in (None, Path, Path | None)
    assert types.get("output_dir") in (None, Path, Path | None)
    *_, last = ast.parse(Path(module.__file__).read_text()).body
    if name != "gpu":  # which runs where tyro may be missing
        assert ast.unparse(last) == (
            "if __name__ == '__main__':\n    command.run(main, Settings, __doc__)"
        )
