"""The lesson's page is one file that needs nothing else, and shows the code as it is."""

import json
import re
import runpy
from html.parser import HTMLParser

import pytest

from tests.lesson.conftest import LESSON

LARGEST = 250_000  # bytes


@pytest.fixture(scope="module")
def html(build):
    return build["page"]()


def test_the_page_is_small(html):
    assert 50_000 < len(html.encode()) < LARGEST


def test_the_page_fetches_nothing(html):
    class Addresses(HTMLParser):
        def handle_starttag(self, tag, attributes):
            for name, value in attributes:
                if name in ("src", "href", "srcset", "action", "data"):
                    assert value.startswith(("#", "data:,")), f"<{tag} {name}={value}>"

    Addresses().feed(html)
    assert not re.search(r"url\(|@import|^import |\bimport\(|fetch\(", html, re.MULTILINE)
    outside = set(re.findall(r"\bhttps?://[^\s\"'`]+", html))
    assert outside == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_nothing_is_left_to_fill_in(html):
    for place in "/* style */", '"the facts"', "/* script */":
        assert place not in html


def test_every_module_is_in_the_page(build):
    script = build["script"]()
    for module in LESSON.glob("*.js"):
        last = module.read_text().rstrip().splitlines()[-1].removeprefix("export ")
        assert last in script, module.name


def test_code_is_shown_without_types_and_docstrings(build):
    assert build["lines_of"]("layers.activations._relu_gradient") == [
        "def _relu_gradient(dy, is_positive):",
        "    return jnp.where(is_positive, dy, jnp.zeros_like(dy))",
    ]
    lines = build["lines_of"]("equations.bias_gradient")
    assert lines[0] == "def bias_gradient(dY, …):"
    assert lines[1].startswith("    return jnp.sum(dY")


def test_two_modules_cannot_share_a_name(build, monkeypatch):
    sources = {"one": "const a = 1;\n", "two": "export const a = 2;\n"}
    names = build["script"].__globals__
    monkeypatch.setitem(names, "modules", lambda name, seen: sources)
    with pytest.raises(ValueError, match=r"one\.js and two\.js both define a"):
        build["script"]()


def test_the_digits_are_those_that_the_script_draws():
    drawn = runpy.run_path(str(LESSON / "digits.py"))["drawn"]()
    kept = json.loads((LESSON / "digits.json").read_text())
    assert json.loads(json.dumps(drawn)) == kept
