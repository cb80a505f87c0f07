"""What the pages say of the repository is so: names, links, commands, lengths."""

import ast
import re
from pathlib import Path

import pytest

import jaxcnn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("experiments/*.md"))
    if not {"repository", "_build"} & set(page.relative_to(ROOT).parts)
)
SCRIPTS = sorted(set(ROOT.glob("experiments/*.py")) - {ROOT / "experiments/__init__.py"})


def path(file: Path) -> str:
    return str(file.relative_to(ROOT))


BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
"""A block of code."""


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def headings(page: Path) -> set[str]:
    """What a code host calls the headings of a page in its links."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_reference_has_every_public_function_once():
    pages = "\n".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    listed = re.findall(r"^\.\. autofunction:: (\w+)$", pages, re.MULTILINE)
    assert sorted(listed) == sorted(jaxcnn.__all__)


@pytest.mark.parametrize("page", PAGES, ids=path)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose(page))
    for target, heading in links:
        file = page.parent / target if target else page
        assert file.is_file(), target
        if heading:
            assert heading in headings(file), f"{target}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=path)
def test_every_make_command_is_a_target(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    blocks = "\n".join(BLOCK.findall(page.read_text()))
    commands = [
        *re.findall(r"`make ([a-z-]+)", prose(page)),
        *re.findall(r"^make ([a-z-]+)", blocks, re.MULTILINE),
    ]
    assert set(commands) <= targets


def test_every_page_of_the_site_is_in_its_contents():
    contents = (DOCS / "index.md").read_text()
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS).with_suffix(""))
        if page in PAGES and name != "index":
            assert re.search(rf"^{name}$", contents, re.MULTILINE), name


def test_every_script_is_in_the_list_of_experiments():
    listed = (ROOT / "experiments/README.md").read_text()
    for script in SCRIPTS:
        assert f"]({script.name})" in listed


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


@pytest.mark.parametrize("script", SCRIPTS, ids=path)
def test_a_script_has_a_short_header_which_names_its_page(script):
    header = ast.get_docstring(ast.parse(script.read_text()))
    assert len(header.splitlines()) <= 20
    pages = re.findall(r"docs/\w+\.md", header)
    assert pages and all((ROOT / page).is_file() for page in pages)
