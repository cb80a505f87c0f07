"""Build the lesson: one page out of this folder, which needs nothing but itself.

``python docs/lesson/build.py lesson.html`` puts the style, the modules, the digits and
lines of jaxcnn's own code into ``index.html``. It needs Python alone.
"""

import ast
import json
import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "jaxcnn"

CODE = (
    "equations.forward",
    "equations.bias_gradient",
    "equations.weight_gradient",
    "equations.input_gradient",
    "equations.max_pool",
    "equations.max_pool_gradient",
    "equations.average_pool",
    "equations.average_pool_gradient",
    "window.untap",
    "layers.activations._relu",
    "layers.activations._relu_gradient",
    "layers.softmax._softmax",
    "layers.losses._less_targets",
    "lesson.logits",
    "lesson.step",
)
"""The functions that the scenes show: of a module of jaxcnn, or of network.py."""

IMPORT = re.compile(r"^import \{[^}]*\} from \"\./(\w+)\.js\";\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)
NAME = re.compile(r"^(?:export )?(?:const|let|class|function\*?) (\w+)", re.MULTILINE)


def lines_of(name: str) -> list[str]:
    """A function as the page shows it: without types, docstring, and what some types spare.

    >>> lines_of("layers.activations._relu_gradient")[0]
    'def _relu_gradient(dy, is_positive):'
    """
    module, _, function = name.rpartition(".")
    file = (
        HERE / "network.py"
        if module == "lesson"
        else PACKAGE / f"{module.replace('.', '/')}.py"
    )
    source = file.read_text()
    (found,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    body = found.body[1:] if ast.get_docstring(found) else found.body
    start = found.body[0].end_lineno if body is not found.body else body[0].lineno - 1
    left_out = {
        number
        for node in body
        if isinstance(node, ast.If) and "isinstance" in ast.unparse(node.test)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    lines = list(enumerate(source.splitlines(), start=1))[start : body[-1].end_lineno]
    block = "\n".join(line for number, line in lines if number not in left_out)
    taken = ", ".join(each.arg for each in found.args.args)
    more = ", …" if found.args.kwonlyargs else ""
    code = textwrap.indent(textwrap.dedent(block).strip("\n"), "    ")
    return [f"def {function}({taken}{more}):", *code.splitlines()]


def facts() -> dict:
    """What the page has to know and cannot compute."""
    digits = json.loads((HERE / "digits.json").read_text())
    return {
        "weights": digits.pop("weights"),
        "digits": digits,
        "code": {name: lines_of(name) for name in CODE},
    }


def modules(name: str, seen: dict[str, str]) -> dict[str, str]:
    """A module after those that it imports, each as a script that stands among them."""
    source = (HERE / f"{name}.js").read_text()
    for other in IMPORT.findall(source):
        if other not in seen:
            modules(other, seen)
    seen[name] = source
    return seen


def script() -> str:
    """All modules as one.

    Raises:
      ValueError: when two of them give the same name to something.
    """
    sources = modules("main", {})
    owner: dict[str, str] = {}
    for module, source in sources.items():
        for name in NAME.findall(source):
            if owner.setdefault(name, module) != module:
                raise ValueError(f"{owner[name]}.js and {module}.js both define {name}")
    return "\n".join(EXPORT.sub("", IMPORT.sub("", each)) for each in sources.values())


def page() -> str:
    """The page."""
    parts = {
        "/* style */": (HERE / "style.css").read_text(),
        '"the facts"': json.dumps(facts(), ensure_ascii=False, separators=(",", ":")),
        "/* script */": script(),
    }
    html = (HERE / "index.html").read_text()
    for place, part in parts.items():
        if ends := re.search(r"</(script|style)", part):
            raise ValueError(f"{ends[0]} ends its element before what stands for {place}")
        before, after = html.split(place)
        html = before + part + after
    return html


def main(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
