"""The lesson runs from top to bottom, and shows what it says that it shows."""

import json
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "tour.ipynb"


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: a notebook has JAX's defaults, and sets what it wants."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def without_windows():
    before = mpl.get_backend()
    mpl.use("agg")
    yield
    plt.close("all")
    mpl.use(before)


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source_of(cell):
    """Without what a notebook says to its surroundings: there is nothing to install."""
    lines = "".join(cell["source"]).splitlines()
    return "\n".join(line.replace("%pip", "pass  #", 1) for line in lines)


@pytest.mark.usefixtures("without_windows")
@pytest.mark.filterwarnings("ignore:More than 20 figures")
def test_it_runs_from_top_to_bottom(capsys):
    names, drawn = {}, 0
    for number, cell in enumerate(code_cells()):
        exec(compile(source_of(cell), f"cell {number}", "exec"), names)
        figures = len(plt.get_fignums()) - drawn
        drawn += figures
        stored = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
        assert len(stored) == figures, f"cell {number} shows other pictures than it draws"
    assert drawn >= 10
    printed = capsys.readouterr().out
    assert "✗ X: float64[1,5,5] ∂ f[" in printed
    assert "is -2 in reverse mode and 2 by differences: they differ by 4" in printed
    assert printed.count("✗") == 1
    assert float(names["evaluation"].metrics.accuracy) > 0.95


def test_what_is_stored_has_no_errors():
    for cell in code_cells():
        assert cell["execution_count"]
        kinds = {(output["output_type"], output.get("name")) for output in cell["outputs"]}
        assert kinds <= {("stream", "stdout"), ("display_data", None)}
