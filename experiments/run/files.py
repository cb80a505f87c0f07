"""Files that are written whole or not at all, and never over what a user has."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is written takes the place of ``path`` whole, or never.

    Its folder is made where there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    if path.exists():
        raise FileExistsError(
            f"{option} {path} exists: choose another, so that nothing is overwritten"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} is {path}; there is no folder {path.parent}")
