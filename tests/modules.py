"""Which modules of jaxcnn have the types in their signatures checked while tests run.

All but those that take what a user gives: their own error messages are among what is
tested. Nothing of jaxcnn is imported here, since the hook that checks must come first.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "jaxcnn"


def modules_of(package: Path) -> dict[str, Path]:
    """The files of a package by the names of their modules."""
    return {
        ".".join(file.relative_to(package.parent).with_suffix("").parts): file
        for file in sorted(package.rglob("*.py"))
    }


FILES = modules_of(PACKAGE)

TYPED = {"jaxcnn.plan"}
"""Modules with a public function that are checked all the same: what they take is typed."""


def _with_public_functions() -> Iterator[str]:
    """The modules from which ``jaxcnn/__init__.py`` imports functions."""
    for node in ast.parse(FILES["jaxcnn.__init__"].read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module in FILES:
            yield node.module


UNCHECKED = {
    *_with_public_functions(),
    "jaxcnn.arguments",  # which refuses what they are given
    "jaxcnn.patching.drop_in",  # which takes whatever jax.lax takes
    "jaxcnn.patching.lax_arguments",
    # What numba compiles, and what writes its instructions.
    "jaxcnn.engines.loops.addresses",
    "jaxcnn.engines.loops.nests",
    "jaxcnn.engines.loops.tile",
    "jaxcnn.engines.loops.xla_calls",
} - TYPED
CHECKED = [
    name for name in FILES if name not in UNCHECKED and not name.endswith("__init__")
]
