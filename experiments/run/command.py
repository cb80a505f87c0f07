"""How a script becomes a command, and the one way in which it fails."""

import math
import sys
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import tyro

from experiments.run.terminal import shown
from jaxcnn import keep_memory

Settings = TypeVar("Settings")


class ClaimError(RuntimeError):
    """What a script claims does not hold: a gradient is wrong, a program does not lower."""


FAILURES = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, ClaimError)


def run(
    main: Callable[[Settings], object], settings: type[Settings], description: str | None
) -> None:
    """Call ``main`` with the settings of the command line, described as in the header.

    The process keeps its memory (:func:`jaxcnn.keep_memory`): large steps are quicker.

    A user's mistake, a file that cannot be read or written, a package that is missing, a
    training run that explodes and a claim that does not hold are said in one line, whatever
    the names of files in it are made of; the exit status is 1. So is that of a command
    which Ctrl-C stops.
    """
    try:
        chosen = tyro.cli(settings, description=description)
        keep_memory()
        main(chosen)
    except FAILURES as error:
        sys.exit(said(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


def said(error: BaseException) -> str:
    """What a user is told of a failure."""
    notes = getattr(error, "__notes__", [])
    return shown("\n".join([f"error: {error}", *notes]), keep="\n")


def must_be_at_least(least: float, **options: float | Sequence[float]) -> None:
    """Refuse numbers that are smaller, and those that are none.

    Raises:
      ValueError: when one of an option's numbers is less, or it has none.
    """
    for name, value in options.items():
        several = value if isinstance(value, Sequence) else (value,)
        if not several or not all(least <= each < math.inf for each in several):
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def must_be_known(option: str, given: Sequence[str], known: Collection[str]) -> None:
    """Refuse names that there are not.

    Raises:
      ValueError: when one of those given is unknown, or none is given.
    """
    unknown = [each for each in given if each not in known]
    if unknown or not given:
        raise ValueError(
            f"{option} is {', '.join(unknown)!r}; there are {', '.join(known)}"
        )
