"""How the site is made: ``make docs``.

Some pages stand outside of ``docs/``, where a reader of the repository looks for them. They
are copied in before the site is built. Links are written as a code host needs them, from
one file of the repository to another. Where such a link leads to a file that is no page of
the site, a page that shows the file is made; so it is for each module of the package.
"""

import importlib
import inspect
import re
import runpy
import shutil
from pathlib import Path

import jaxcnn

project = "jaxcnn"
version = release = jaxcnn.__version__
html_title = f"jaxcnn {version}"
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx.ext.napoleon",  # Args, Returns, Raises
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
default_role = "code"
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebook has its pictures; a test runs it

DOCS = Path(__file__).parent
ROOT = DOCS.parent
COPIES = DOCS / "repository"
"""What is copied from the rest of the repository; git ignores it."""

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "experiments/README.md",
    "experiments/tour.ipynb",
)
"""The pages outside of docs/."""

CODE_OR_LINK = re.compile(
    r"^```.*?^```|(?<=\]\()(?!https?:|mailto:|#)[^)#\s]+", re.MULTILINE | re.DOTALL
)
"""A block of code, or where a link leads to, without the heading in the page."""

LANGUAGES = {
    ".html": "html",
    ".js": "javascript",
    ".json": "json",
    ".py": "python",
    ".toml": "toml",
}


def on_the_site(file: Path) -> str:
    """The place of a file of the repository, from the root of the site's sources."""
    if file.is_relative_to(DOCS) and file.suffix in (".md", ".png"):
        return f"/{file.relative_to(DOCS)}"
    path = str(file.relative_to(ROOT))
    return f"/{COPIES.name}/{path if path in PAGES else path + '.md'}"


def linked_from(page: Path) -> list[Path]:
    """The files that a page links to."""
    found = CODE_OR_LINK.findall(page.read_text())
    links = [each for each in found if not each.startswith("```")]
    return [(page.parent / link).resolve() for link in links]


def copy_pages(app) -> None:
    """Copy the pages outside of docs/; show the package, and what some page links to."""
    shutil.rmtree(COPIES, ignore_errors=True)
    pages = [*DOCS.rglob("*.md"), *(ROOT / page for page in PAGES)]
    for page in map(ROOT.joinpath, PAGES):
        copy = DOCS / on_the_site(page).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, copy)
    written = [page for page in pages if page.suffix == ".md"]
    linked = {file for page in written for file in linked_from(page)}
    for file in linked.union((ROOT / "jaxcnn").rglob("*.py")):
        shown = DOCS / on_the_site(file).lstrip("/")
        if COPIES in shown.parents and not shown.exists():
            shown.parent.mkdir(parents=True, exist_ok=True)
            shown.write_text(
                f"---\norphan: true\n---\n# `{file.relative_to(ROOT)}`\n\n"
                f"```{{literalinclude}} /../{file.relative_to(ROOT)}\n"
                f":language: {LANGUAGES.get(file.suffix, 'text')}\n```\n"
            )


def rewrite_links(app, docname: str, source: list[str]) -> None:
    """Make the links between files of the repository links between pages of the site."""
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    if page.is_relative_to(COPIES):
        page = ROOT / page.relative_to(COPIES)

    def rewritten(found: re.Match) -> str:
        if found[0].startswith("```"):
            return found[0]
        return on_the_site((page.parent / found[0]).resolve())

    source[0] = CODE_OR_LINK.sub(rewritten, source[0])


def linkcode_resolve(domain: str, described: dict[str, str]) -> str | None:
    """Where the source of what a page of docs/reference/ describes is shown."""
    module = importlib.import_module(described["module"])
    *outer, name = described["fullname"].split(".")
    thing = getattr(module, name, None)
    if outer or not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return None
    file = Path(inspect.getfile(inspect.unwrap(thing)))
    if not file.is_relative_to(ROOT / "jaxcnn"):  # an alias of a type of another library
        return None
    keyword = "class" if inspect.isclass(thing) else "def"
    page = on_the_site(file).removesuffix(".md")
    return f"..{page}.html#:~:text={keyword}%20{name}"


def keep_formulas_as_they_are(app, what, name, obj, options, lines):
    """An indented block after a paragraph is a formula or a table: leave it as it is."""
    for number in reversed(range(1, len(lines))):
        above = [line for line in lines[:number] if line.strip()]
        paragraph = above[-1] if above else ""
        begins = lines[number].startswith("    ") and not lines[number - 1].strip()
        if begins and paragraph and not paragraph.startswith((" ", ":", "..", "*", "-")):
            lines[number:number] = ["::", ""]


def build_lesson(app, exception) -> None:
    """Put the page to touch beside the others, complete as it is."""
    if exception is None and app.builder.format == "html":
        lesson = runpy.run_path(str(DOCS / "lesson/build.py"))
        lesson["main"](Path(app.outdir) / "lesson/index.html")


def setup(app):
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", rewrite_links)
    app.connect("build-finished", build_lesson)
    # After napoleon, which has taken the sections away by then.
    app.connect("autodoc-process-docstring", keep_formulas_as_they_are, priority=900)
