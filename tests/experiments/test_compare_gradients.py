"""The comparison of gradients: it passes, and it would not if a rule were wrong.

What is wrong on purpose is in :mod:`tests.experiments.test_planted_errors`.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcnn
from experiments import compare_gradients
from experiments.compare_gradients import Settings, compare_case, judge, main, measure
from experiments.gradients.arguments import exact, spaced, steps
from experiments.gradients.case import torch_operations
from experiments.gradients.operations import OPERATIONS, cases
from experiments.gradients.tables import (
    KINDS,
    TOLERANCE,
    Comparison,
    page_of,
    timing_row,
    timing_table,
)
from jaxcnn.engines import ENGINES

# One of each kind: the rest would compile the same loops again.
SOME = ("conv1d_bias_gradient", "max_pool1d", "relu", "dropout")
DTYPES = ("float64", "bfloat16")
FILES = {"errors.png", "report.html", "results.json"}


def test_operations_agree_and_the_results_are_written(tmp_path, capsys):
    x64 = jax.config.jax_enable_x64
    main(Settings(op=SOME, dtype=DTYPES, quick=True, output_dir=tmp_path))
    assert jax.config.jax_enable_x64 == x64

    printed = capsys.readouterr().out
    assert "all agree" in printed
    assert "✗" not in printed
    assert "…" not in printed, "a column of a table is too narrow"
    assert ("Not compared with PyTorch" in printed) == (torch_operations is None)

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["agree"]
    assert results["problems"] == []
    assert tuple(results["errors"]) == SOME
    references = {"autodiff", "XLA", "differences"}
    references |= {"PyTorch"} if torch_operations else set()
    for by_configuration in results["errors"].values():
        for name, by_engine in by_configuration.items():
            assert list(by_engine) == ["auto"]
            assert tuple(by_engine["auto"]) == DTYPES
            for dtype, of_each in by_engine["auto"].items():
                assert {each.split()[0] for each in of_each} == {*KINDS}
                for quantity, errors in of_each.items():
                    no_differences = quantity == "value" or "ties" in name
                    lacking = {"differences"} if no_differences else set()
                    assert errors.keys() == references - lacking
                    assert all(0 <= e <= TOLERANCE[dtype] for e in errors.values())

    assert {path.name for path in tmp_path.iterdir()} == FILES
    picture = (tmp_path / "errors.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    page = (tmp_path / "report.html").read_text()
    assert "all agree" in page
    assert "What is wrong" not in page
    for name in SOME:
        assert f"<code>{name}</code>" in page


def test_every_public_operation_is_compared():
    without_gradient = {
        "flatten",
        "compare",
        "compiler_options",
        "keep_memory",
        "derivatives",
        "explain",
        "gradcheck",
        "patch_jax",
        "patched_jax",
        "unpatch_jax",
    }
    public = {name for name in jaxcnn.__all__ if callable(getattr(jaxcnn, name))}
    assert public - without_gradient == OPERATIONS.keys()


def test_every_engine_is_compared():
    compared = {
        engine
        for operation in ("depthwise_conv2d", "max_pool2d")
        for engine in next(cases(operation, 0)).engines("float32")
    }
    assert compared == {"auto", *ENGINES}


def test_an_engine_and_a_precision_can_be_asked_for(tmp_path):
    settings = Settings(
        op=("avg_pool1d",), engine=("pooled",), dtype=("float16",), output_dir=tmp_path
    )
    main(settings)
    errors = json.loads((tmp_path / "results.json").read_text())["errors"]["avg_pool1d"]
    assert len(errors) == len(OPERATIONS["avg_pool1d"].compared)
    assert {tuple(each) for each in errors.values()} == {("pooled",)}
    assert {tuple(each["pooled"]) for each in errors.values()} == {("float16",)}


@pytest.mark.parametrize(
    ("option", "known"), [("op", "conv1d"), ("engine", "auto"), ("dtype", "float64")]
)
def test_what_is_unknown_is_named(option, known):
    with pytest.raises(ValueError, match=f"{option} is 'conv9d'; there are {known}, "):
        Settings(**{option: ("conv9d",)})
    with pytest.raises(ValueError, match=f"{option} is ''"):
        Settings(**{option: ()})


def test_a_rule_that_raises_is_reported_and_the_others_go_on():
    case = next(cases("relu", 0))

    def refuses(x):
        raise ValueError("no such kernel")

    comparisons = compare_case(replace(case, custom=refuses), 0)
    # Differences are of the rule's own operation, and are missing, too.
    assert len(comparisons) == len(TOLERANCE) * 3 * (4 if torch_operations else 3)
    for each in comparisons:
        assert each.error is None
        assert "raised ValueError: no such kernel" in each.problem


@pytest.mark.parametrize(
    ("gradient", "problem"),
    [
        (np.array([1.0, 2.0]), ""),
        (np.array([1.0, np.nan]), "is not finite"),
        (np.array([[1.0, 2.0]]), "of shape (1, 2); it should be"),
        (np.array([1.0, 2.0], np.float32), "is a float32 array"),
        (np.array([1.0, 2.0 + 1e-9]), "deviates by 5.0e-10 of its largest entry"),
    ],
)
def test_a_gradient_is_judged(gradient, problem):
    error, found = judge(gradient, np.array([1.0, 2.0]), "float64")
    assert problem in found
    assert (found == "") == (problem == "")
    assert error is None or error < 1e-9


def test_a_reference_that_is_zero_everywhere_shows_nothing():
    _, problem = judge(np.zeros(2), np.zeros(2), "float64")
    assert "shows nothing" in problem


def test_no_difference_crosses_a_kink():
    values = np.sort(spaced(np.random.default_rng(0), (3, 7)).ravel())
    moved = 2 * compare_gradients.STEP
    assert np.diff(values).min() > 2 * moved
    assert np.abs(values).min() > moved
    assert np.abs(steps(np.random.default_rng(0), (3, 7))).max() <= 1


def test_arguments_are_the_same_in_every_precision():
    for operation in OPERATIONS:
        for case in cases(operation, 0, 2):
            for array in case.arguments.values():
                assert array.dtype == np.float32
                np.testing.assert_array_equal(exact(array), array)


def test_a_timing_is_beside_autodiff_and_xla():
    timing = measure(next(cases("dense", 0)), 0, rounds=1)
    assert timing.shapes == "x 5×7, w 7×3, b 3"
    for beside in timing.autodiff, timing.XLA:
        assert beside.error < 1e-6
    name, milliseconds, *_, second = timing_row(timing)
    assert name == "dense"
    assert float(milliseconds) >= 0
    assert float(second) < 1e-6
    assert timing_table([timing]).row_count == 1
    page = page_of([], [timing], b"", {"versions": {}, "device": ""})
    assert "Time and memory" in page


def test_interrupted_writing_leaves_the_earlier_results(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).write_text("earlier")

    def disk_full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(compare_gradients, "picture_of", disk_full)
    with pytest.raises(OSError, match="disk full"):
        main(Settings(op=("relu",), quick=True, output_dir=tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        FILES, "earlier"
    )


def test_a_disk_that_is_full_at_the_last_file_leaves_all_earlier_ones(
    tmp_path, monkeypatch
):
    write_bytes = Path.write_bytes

    def full_at_the_page(path, content):
        if path.suffix == ".html":
            raise OSError("disk full")
        return write_bytes(path, content)

    earlier = dict.fromkeys(FILES, "earlier")
    for name, content in earlier.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(Path, "write_bytes", full_at_the_page)
    which = ("relu", "4×10", "auto", "float64", "gradient of x", "XLA")
    found = [Comparison(*which, error=0.0, problem="")]
    with pytest.raises(OSError, match="disk full"):
        compare_gradients.write(Settings(op=("relu",), output_dir=tmp_path), found, [])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == earlier
