"""How Sphinx renders the docstrings: ``make docs``."""

import jaxcnn

project = "jaxcnn"
version = release = jaxcnn.__version__
html_title = f"jaxcnn {version}"
html_theme = "furo"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # Args, Returns, Raises
    "sphinx-mathjax-offline",
]
default_role = "code"
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False


def keep_formulas_as_they_are(app, what, name, obj, options, lines):
    """An indented block after a paragraph is a formula or a table: leave it as it is."""
    for number in reversed(range(1, len(lines))):
        above = [line for line in lines[:number] if line.strip()]
        paragraph = above[-1] if above else ""
        begins = lines[number].startswith("    ") and not lines[number - 1].strip()
        if begins and paragraph and not paragraph.startswith((" ", ":", "..", "*", "-")):
            lines[number:number] = ["::", ""]


def setup(app):
    # After napoleon, which has taken the sections away by then.
    app.connect("autodoc-process-docstring", keep_formulas_as_they_are, priority=900)
