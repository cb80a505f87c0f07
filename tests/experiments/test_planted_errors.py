"""Wrong on purpose: one mistake in each equation, which the comparison finds and names.

A mistake in a gradient's equation must be found by every reference, in that gradient, and
in no other. One in a forward equation moves the value, which XLA and PyTorch find, and what
JAX and differences make of it, which the hand-written gradients no longer agree with.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest

import jaxcnn
from experiments.compare_gradients import Settings, compare_case, main
from experiments.gradients.operations import cases
from experiments.run.command import ClaimError
from jaxcnn.layout import spatial_axes, weight_layout


@dataclass(frozen=True)
class Mistake:
    """What is wrong.

    Attributes:
      of: the name of what is replaced, in jaxcnn.
      by: makes, of the right function, the wrong one.
      operation: where it is to be found.
      quantity: in which of its gradients, or "value".
      configuration: how the name of one that shows it begins.
      engine: by which it is computed.
    """

    of: str
    by: Callable[[Callable], Callable]
    operation: str
    quantity: str
    configuration: str = ""
    engine: str = "auto"


# --- How to be wrong ------------------------------------------------------------------


def not_rotated(right):
    """The kernel the wrong way round."""

    def wrong(array, w, *, layout, **known):
        flipped = jnp.flip(w, spatial_axes(weight_layout(layout)))
        return right(array, flipped, layout=layout, **known)

    return wrong


def one_off_in_the_padding(right):
    def wrong(*arrays, window, **known):
        padding = tuple((low - 1, high + 1) for low, high in window.padding)
        return right(*arrays, window=replace(window, padding=padding), **known)

    return wrong


def of_the_first_image_only(right):
    def wrong(dy, *known, **more):
        return right(dy[:1], *known, **more)

    return wrong


def the_next_element_wins(right):
    def wrong(dy, winner, problem):
        return right(dy, (winner + 1) % problem.window.number_of_taps, problem)

    return wrong


def the_last_of_equals_wins(right):
    def wrong(x, *, window, layout):
        axes = spatial_axes(layout)
        y, winner = right(jnp.flip(x, axes), window=window, layout=layout)
        winner = window.number_of_taps - 1 - winner
        return jnp.flip(y, axes), jnp.flip(winner, axes).astype(winner.dtype)

    return wrong


def divided_by_what_lies_inside(right):
    def wrong(*arrays, counted, window, **known):
        none = ((0, 0),) * len(window.padding)
        return right(*arrays, counted=none, window=window, **known)

    return wrong


def scaled(position):
    """What the rule returns at this position is a thousandth too large."""

    def of(right):
        def wrong(*args):
            found = list(right(*args))
            found[position] = found[position] * 1.001
            return tuple(found)

        return wrong

    return of


def alive_at_zero(right):
    """ReLU'(0) = 1."""
    del right

    def wrong(x):
        return jnp.maximum(x, 0), x >= 0

    return wrong


def without_the_targets(right):
    """P, not P − T."""
    del right

    def wrong(smoothing, residuals, dloss):
        logits, _ = residuals
        return jax.nn.softmax(logits) * dloss[..., None], None

    return wrong


def without_the_sum(right):
    """Y dY, as if every element were alone."""
    del right
    return lambda axis, y, dy: (y * dy,)


def without_the_mean(right):
    """dX = r dX̂: μ and σ² taken for constants."""

    def wrong(axes, eps, axis_name, kept, cotangents):
        _, w, _, _, var = kept
        _, dw, db = right(axes, eps, axis_name, kept, cotangents)
        return w * cotangents[0] / jnp.sqrt(var + eps), dw, db

    return wrong


def a_little_steeper(right):
    """Whatever the derivative is, a thousandth more."""

    def wrong(which, rule, plain):
        function = right(which, rule, plain)
        if function is plain:
            return plain

        @jax.custom_vjp
        def steeper(x):
            return function(x, ())

        steeper.defvjp(
            lambda x: (steeper(x), x),
            lambda x, dy: (jax.vjp(lambda x: function(x, ()), x)[1](dy)[0] * 1.001,),
        )
        return lambda x, parameters: steeper(x)

    return wrong


def every_other(right):
    """The mask of another key."""

    def wrong(p, is_kept, dy):
        return right(p, ~is_kept, dy)

    return wrong


MISTAKES = {
    "weight gradient: padding": Mistake(
        of="equations.weight_gradient",
        by=one_off_in_the_padding,
        operation="conv2d",
        quantity="w",
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "input gradient: kernel": Mistake(
        of="equations.input_gradient",
        by=not_rotated,
        operation="conv2d",
        quantity="x",
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "input gradient: padding": Mistake(
        of="equations.input_gradient",
        by=one_off_in_the_padding,
        operation="conv2d",
        quantity="x",
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "bias gradient: one image": Mistake(
        of="convolution.rule.bias_gradient",
        by=of_the_first_image_only,
        operation="conv2d",
        quantity="b",
        configuration="stride 2, padding 1",
    ),
    "transposed convolution: kernel of its input gradient": Mistake(
        of="equations.forward",
        by=not_rotated,
        operation="conv_transpose2d",
        quantity="x",
        configuration="stride 1",
        engine="equations",
    ),
    "fold, the gradient of unfold: padding": Mistake(
        of="equations.fold",
        by=one_off_in_the_padding,
        operation="unfold",
        quantity="x",
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "unfold, the gradient of fold: padding": Mistake(
        of="equations.unfold",
        by=one_off_in_the_padding,
        operation="fold",
        quantity="p",
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "max pooling's gradient: winner": Mistake(
        of="pooling.rule.place_at_winners",
        by=the_next_element_wins,
        operation="max_pool2d",
        quantity="x",
        configuration="3×3, stride 2",
    ),
    "max pooling's gradient: padding": Mistake(
        of="equations.max_pool_gradient",
        by=one_off_in_the_padding,
        operation="max_pool2d",
        quantity="x",
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "average pooling's gradient: divisor": Mistake(
        of="equations.average_pool_gradient",
        by=divided_by_what_lies_inside,
        operation="avg_pool2d",
        quantity="x",
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "power-average pooling": Mistake(
        "pooling.rule.power_pooling.bwd", scaled(0), "lp_pool2d", "x"
    ),
    "adaptive average pooling": Mistake(
        of="pooling.adaptive_rule._sums_of_overlapping.bwd",
        by=scaled(0),
        operation="adaptive_avg_pool2d",
        quantity="x",
        configuration="2 bins",
    ),
    "ReLU at zero": Mistake(
        "layers.activations._relu.fwd", alive_at_zero, "relu", "x", "ties (zeros)"
    ),
    "the other activations": Mistake(
        "differentiation.choose", a_little_steeper, "tanh", "x"
    ),
    "softmax": Mistake("layers.softmax._softmax.bwd", without_the_sum, "softmax", "x"),
    "log-softmax": Mistake(
        "layers.softmax._log_softmax.bwd", scaled(0), "log_softmax", "x"
    ),
    "cross-entropy": Mistake(
        of="layers.losses._cross_entropy.bwd",
        by=without_the_targets,
        operation="softmax_cross_entropy",
        quantity="logits",
    ),
    "dense: dX": Mistake("layers.dense._dense.bwd", scaled(0), "dense", "x"),
    "dense: dW": Mistake("layers.dense._dense.bwd", scaled(1), "dense", "w"),
    "dense: db": Mistake(
        "layers.dense.bias_gradient", of_the_first_image_only, "dense", "b"
    ),
    "batch norm: dX": Mistake(
        "layers.normalization_rule._normalize.bwd", without_the_mean, "batch_norm", "x"
    ),
    "batch norm: dw": Mistake(
        "layers.normalization_rule._normalize.bwd", scaled(1), "batch_norm", "w"
    ),
    "batch norm: db": Mistake(
        "layers.normalization_rule._normalize.bwd", scaled(2), "batch_norm", "b"
    ),
    "dropout": Mistake("layers.dropout._dropout.bwd", every_other, "dropout", "x"),
}


# --- It is found ----------------------------------------------------------------------


@pytest.fixture
def plant(monkeypatch):
    """Puts a mistake where it belongs, until the test is over."""

    def planted(mistake):
        *path, name = mistake.of.split(".")
        owner = functools.reduce(getattr, path, jaxcnn)
        monkeypatch.setattr(owner, name, mistake.by(getattr(owner, name)))
        jax.clear_caches()  # of what was compiled before

    yield planted
    monkeypatch.undo()
    jax.clear_caches()


def compared(mistake):
    case = next(
        each
        for each in cases(mistake.operation, 0)
        if each.name.startswith(mistake.configuration)
    )
    return compare_case(case, 0, [mistake.engine], ["float64"])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_gradient_is_found_by_every_reference(name, plant):
    mistake = MISTAKES[name]
    plant(mistake)
    comparisons = compared(mistake)
    assert len(comparisons) >= 4
    for each in comparisons:
        is_wrong = each.quantity == mistake.quantity
        assert bool(each.problem) == is_wrong, str(each)
        if is_wrong:
            assert f"gradient of {mistake.quantity}" in str(each)
            assert "deviates by" in each.problem


FORWARD = {
    "convolution: kernel": Mistake(
        of="equations.forward",
        by=not_rotated,
        operation="conv2d",
        quantity="value",
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "transposed convolution: padding": Mistake(
        of="equations.input_gradient",
        by=one_off_in_the_padding,
        operation="conv_transpose2d",
        quantity="value",
        configuration="stride 2",
        engine="equations",
    ),
    "average pooling: divisor": Mistake(
        of="equations.average_pool",
        by=divided_by_what_lies_inside,
        operation="avg_pool2d",
        quantity="value",
        configuration="3×3, stride 2",
        engine="equations",
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_mistake_in_a_value_is_found_in_it_and_in_the_gradients(name, plant):
    mistake = FORWARD[name]
    plant(mistake)
    comparisons = compared(mistake)
    for each in comparisons:
        if each.quantity == "value":
            assert bool(each.problem) == (each.reference in ("XLA", "PyTorch")), str(each)
        if each.quantity == "x":
            its_own = each.reference in ("autodiff", "differences")
            assert bool(each.problem) == its_own, str(each)


def test_a_wrong_tie_is_found_by_other_libraries(plant):
    """The loops give the same maxima and would by themselves be differentiated alike."""
    mistake = Mistake(
        of="equations.max_pool",
        by=the_last_of_equals_wins,
        operation="max_pool2d",
        quantity="x",
        configuration="ties",
        engine="equations",
    )
    plant(mistake)
    comparisons = compared(mistake)
    assert any(each.problem for each in comparisons)
    for each in comparisons:
        is_wrong = each.is_gradient and each.reference in ("XLA", "PyTorch")
        assert bool(each.problem) == is_wrong, str(each)


def test_the_command_names_what_is_wrong_and_fails(plant, tmp_path, capsys):
    mistake = MISTAKES["max pooling's gradient: winner"]
    plant(mistake)
    of_it = {"op": (mistake.operation,), "dtype": ("float64",)}
    with pytest.raises(ClaimError, match=r"^\d+ disagree$"):
        main(Settings(**of_it, quick=True, output_dir=tmp_path))

    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["agree"]
    problems = results["problems"]
    assert {each["quantity"] for each in problems} == {"x"}
    number = len(problems)
    assert number >= 2 * 3, "in both configurations, by each reference"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{number} disagree" in printed
    page = (tmp_path / "report.html").read_text()
    for each in problems:
        sentence = (
            f"{mistake.operation}, {each['configuration']}: the {each['dtype']} gradient "
            f"of x by the engine auto, compared with {each['reference']}, deviates by"
        )
        assert f"✗ {sentence}" in printed
        assert sentence in page


def test_a_gradient_shared_among_equal_maxima_is_wrong():
    case = next(each for each in cases("max_pool2d", 0) if each.name.startswith("ties"))

    def shares(x):
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
        rows = jnp.stack([padded[:, :, m : m + 7 : 2] for m in range(3)])
        return jnp.stack([rows[..., n : n + 9 : 2] for n in range(3)]).max((0, 1))

    assert case.name.endswith("NCHW")
    comparisons = compare_case(replace(case, custom=shares), 0, dtypes=["float64"])
    assert all(bool(each.problem) == each.is_gradient for each in comparisons)
