"""Write a run's report anew.

    python -m experiments.report RUN_FOLDER

``train`` writes ``report.html`` at the end of every run; this writes it again, from what is
in the run folder.

The guide: docs/runs.md.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.pages import report
from experiments.run import command
from experiments.run.terminal import shown


@dataclass(frozen=True)
class Settings:
    """Write a run's report anew."""

    run_folder: tyro.conf.Positional[Path]
    """What experiments.train left behind."""


def main(settings: Settings) -> None:
    """Write the report, and say where it is."""
    print(shown(report.write(settings.run_folder)))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
