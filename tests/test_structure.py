"""The folders are the map: imports point one way, and only commands stand where they do."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.modules import FILES, PACKAGE, modules_of

ROOT = PACKAGE.parent

ORDER = (
    ("layout", "rounding", "sharding", "compiling", "originals", "differentiation"),
    ("window", "equations", "problem", "engines", "plan"),
    ("arguments", "primitives"),
    ("convolution", "pooling", "layers", "patching", "checking"),
    ("models", "training", "inspection"),
)
"""The package from the bottom up; a file imports from its own row and from those above."""


def imported_by(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules, of those known, that a file imports."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                for name in f"{node.module}.{each.name}", node.module:
                    names = {name, f"{name}.__init__"} & known.keys()
                    if names:
                        imported |= names
                        break
    return imported


@pytest.mark.parametrize("package", ["jaxcnn", "experiments"])
def test_there_is_no_circle_of_imports(package):
    known = modules_of(ROOT / package)
    graph = {name: imported_by(file, known) for name, file in known.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(known)


def test_imports_point_from_the_top_to_the_bottom():
    row_of = {place: row for row, places in enumerate(ORDER) for place in places}
    known = FILES
    places = {name: name.split(".")[1] for name in known if name != "jaxcnn.__init__"}
    assert set(places.values()) == row_of.keys()
    for name, place in places.items():
        for other in imported_by(known[name], known) & places.keys():
            assert row_of[places[other]] <= row_of[place], f"{name} imports {other}"


def test_only_commands_stand_at_the_root_of_the_experiments():
    scripts = {
        file.stem: file
        for file in (ROOT / "experiments").glob("*.py")
        if file.stem != "__init__"
    }
    for name, file in scripts.items():
        source = file.read_text()
        assert '__name__ == "__main__"' in source, f"{name} is no command"
        for other in imported_by(file, modules_of(ROOT / "experiments")):
            assert other.removeprefix("experiments.") not in scripts, f"{name}, {other}"


def test_the_root_of_the_package_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 16


def test_calls_are_written_out():
    """A line that begins with a star outwits the formatter, and the reader."""
    for folder in "jaxcnn", "experiments", "tests":
        for file in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"^ *\*\(", file.read_text(), re.MULTILINE), file
