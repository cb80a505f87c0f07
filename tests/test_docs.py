"""The reference: every public function stands in it, and no other name."""

import re
from pathlib import Path

import jaxcnn

PAGES = Path(__file__).parent.parent / "docs"


def test_the_reference_has_every_public_function_once():
    pages = "\n".join(page.read_text() for page in PAGES.glob("*.rst"))
    listed = re.findall(r"^\.\. autofunction:: (\w+)$", pages, re.MULTILINE)
    assert sorted(listed) == sorted(jaxcnn.__all__)
