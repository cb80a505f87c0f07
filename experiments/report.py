"""Write a run's report anew.

    python -m experiments.report RUN_FOLDER

``train`` writes ``report.html`` at the end of every run; this writes it again, from what is
in the run folder.

The guide: docs/runs.md.
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments.pages import report


def main(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_FOLDER")],
) -> None:
    """Write a run's report anew."""
    print(report.write(folder))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
