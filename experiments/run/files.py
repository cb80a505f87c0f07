"""Files that are written whole or not at all, and never over what a user has."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PARTIAL = ".{}.*.partial"
"""What a process that was killed may leave of a file with this name, as a pattern."""
LONGEST = 100
"""Bytes of a name that stands in another, for which every file system has room."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is written takes the place of ``path`` whole, or never.

    Its folder is made where there is none. Until then it is in a folder of its own, whose
    name nobody can foretell and which nobody else can enter: two processes do not write the
    same, and no link leads elsewhere. The file has the permissions of any new file.

    Raises:
      OSError: when something cannot be written; the message names the file.
    """
    before, after = PARTIAL.split("*")
    before = before.format(shortened(path.name))
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=before, suffix=after, dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            os.replace(temporary, path)


def shortened(name: str) -> str:
    """As many of a name's characters as fit into :data:`LONGEST` bytes.

    >>> shortened("short"), len(shortened(300 * "é"))
    ('short', 50)
    """
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]
    return name


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in what the system says when it cannot be written: it does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it is a sentence already
            raise
        raise OSError(f"{path} cannot be written: {error}") from error


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def write_together(folder: Path, contents: dict[str, bytes]) -> None:
    """All files, by name, or none of them: each takes its place when all are written."""
    with ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)


def must_be_new(option: str, path: Path) -> None:
    """Refuse a path before anything is computed.

    Raises:
      FileExistsError: when there is something at the path.
      FileNotFoundError: when there is no folder for it.
    """
    if os.path.lexists(path):  # a link that leads nowhere is something, too
        raise FileExistsError(
            f"{option} {path} exists: choose another, so that nothing is overwritten"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} is {path}; there is no folder {path.parent}")
