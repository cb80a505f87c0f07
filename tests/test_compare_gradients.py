"""The comparison of gradients: it passes, and it would not if a rule were wrong."""

import json
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import compare_gradients
from experiments.compare_gradients import Options, compare, judge, main, measure
from experiments.gradient_cases import OPERATIONS, cases, spaced
from jaxcnn import convolution_rule, pooling_rule
from jaxcnn.layout import spatial_axes, weight_layout

# One of each kind: the rest would compile the same loops again.
SOME = (
    "conv2d",
    "conv2d_bias_gradient",
    "max_pool2d",
    "relu",
    "dense",
    "log_softmax",
    "softmax_cross_entropy",
)


def test_operations_agree_and_the_results_are_written(tmp_path, capsys):
    x64 = jax.config.jax_enable_x64
    main(Options(op=SOME, quick=True, output_dir=tmp_path))
    assert jax.config.jax_enable_x64 == x64

    printed = capsys.readouterr().out
    assert "all agree" in printed
    assert "✗" not in printed
    assert "…" not in printed, "a column of the table is too narrow"

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["agree"]
    comparisons = results["comparisons"]
    assert {each["operation"] for each in comparisons} == set(SOME)
    assert {(each["dtype"], each["reference"]) for each in comparisons} == {
        ("float64", "autodiff"),
        ("float64", "XLA"),
        ("float64", "differences"),
        ("float32", "autodiff"),
        ("float32", "XLA"),
        ("float32", "float64"),
    }
    for each in comparisons:
        assert 0 <= each["error"] <= results["tolerance"][each["dtype"]]
        assert each["problem"] == ""

    picture = (tmp_path / "errors.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "errors.png",
        "results.json",
    ]


def test_the_options_name_every_operation():
    assert get_args(compare_gradients.Name) == tuple(OPERATIONS)


def kernel_not_rotated(monkeypatch):
    right = convolution_rule.input_gradient

    def wrong(dy, w, problem):
        axes = spatial_axes(weight_layout(problem.layout))
        return right(dy, jnp.flip(w, axes), problem)

    monkeypatch.setattr(convolution_rule, "input_gradient", wrong)


def bias_of_the_first_image_only(monkeypatch):
    right = convolution_rule.bias_gradient

    def wrong(dy, shape, layout):
        return right(dy[:1], (1, *shape[1:]), layout)

    monkeypatch.setattr(convolution_rule, "bias_gradient", wrong)


def the_next_element_wins(monkeypatch):
    right = pooling_rule.place_at_winners

    def wrong(dy, winner, problem):
        return right(dy, (winner + 1) % problem.window.number_of_taps, problem)

    monkeypatch.setattr(pooling_rule, "place_at_winners", wrong)


@pytest.mark.parametrize(
    ("plant", "operation", "argument"),
    [
        (kernel_not_rotated, "conv2d", "x"),
        (bias_of_the_first_image_only, "conv2d", "b"),
        (the_next_element_wins, "max_pool2d", "x"),
    ],
)
def test_a_wrong_rule_is_named(plant, operation, argument, monkeypatch, tmp_path, capsys):
    plant(monkeypatch)
    with pytest.raises(SystemExit) as exited:
        main(Options(op=(operation,), quick=True, output_dir=tmp_path))
    assert exited.value.code == 1

    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["agree"]
    wrong = [each for each in results["comparisons"] if each["problem"]]
    assert {each["argument"] for each in wrong} == {argument}
    assert len(wrong) == 2 * 6, "in both configurations, by every reference"
    assert (tmp_path / "errors.png").stat().st_size > 20_000

    printed = " ".join(capsys.readouterr().out.split())
    assert "12 disagree" in printed
    for each in wrong:
        assert (
            f"✗ {operation}, {each['configuration']}: the {each['dtype']} gradient of "
            f"{argument}, compared with {each['reference']}, deviates by"
        ) in printed


def test_a_gradient_shared_among_equal_maxima_is_wrong():
    (case,) = (
        case
        for case in cases("max_pool2d", 0)
        if case.name.startswith("ties, 3×3, str") and case.name.endswith("NCHW")
    )

    def shares(x):
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
        rows = jnp.stack([padded[:, :, m : m + 7 : 2] for m in range(3)])
        return jnp.stack([rows[..., n : n + 9 : 2] for n in range(3)]).max((0, 1))

    assert all(each.problem for each in compare(replace(case, custom=shares), 0))


def test_a_rule_that_raises_is_reported_and_the_others_go_on():
    case = next(cases("relu", 0))

    def refuses(x):
        raise ValueError("no such kernel")

    comparisons = compare(replace(case, custom=refuses), 0)
    assert len(comparisons) == 6
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
    error, found = judge([gradient], [np.array([1.0, 2.0])], 0, "float64")
    assert problem in found
    assert (found == "") == (problem == "")
    assert error is None or error < 1e-9


def test_a_reference_that_is_zero_everywhere_shows_nothing():
    _, problem = judge([np.zeros(2)], [np.zeros(2)], 0, "float64")
    assert "shows nothing" in problem


def test_no_difference_crosses_a_kink():
    values = np.sort(spaced(np.random.default_rng(0), (3, 7)).ravel())
    moved = 2 * compare_gradients.STEP
    assert np.diff(values).min() > 2 * moved
    assert np.abs(values).min() > moved


def test_a_timing_has_three_medians():
    timing = measure(next(cases("dense", 0)), 0, rounds=1)
    assert min(timing.custom, timing.autodiff, timing.xla) > 0
    assert timing.shapes == "x 5×7, w 7×3, b 3"


def test_interrupted_writing_leaves_the_earlier_results(tmp_path, monkeypatch):
    for name in ("results.json", "errors.png"):
        (tmp_path / name).write_text("earlier")

    def disk_full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", disk_full)
    with pytest.raises(OSError, match="disk full"):
        main(Options(op=("relu",), quick=True, output_dir=tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "results.json": "earlier",
        "errors.png": "earlier",
    }
