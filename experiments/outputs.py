"""Where a command writes what a user asked for: never over what is there."""

from pathlib import Path


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
