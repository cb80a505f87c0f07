"""Wrong on purpose: one mistake in each equation, which the comparison finds and names.

A mistake in a gradient's equation, or in a tangent's, must be found by every reference, in
that gradient or tangent, and in no other. JAX transposes tangents: one that is wrong before
it is linear in what moves makes the gradient wrong, too. A mistake in a forward equation
moves the value, which XLA and PyTorch find, and what JAX and differences make of it, which
the hand-written gradients no longer agree with.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import ad

import jaxcnn
from experiments.compare_gradients import Settings, compare_case, main
from experiments.gradients.operations import cases
from experiments.run.command import ClaimError
from jaxcnn import plan
from jaxcnn.layout import spatial_axes, weight_layout
from jaxcnn.primitives import at_rest

RULES = {"jvp": ad.primitive_jvps, "transpose": ad.primitive_transposes}


@dataclass(frozen=True)
class Mistake:
    """What is wrong.

    Attributes:
      of: the name of what is replaced: of a function in jaxcnn, or of a primitive, one of
        whose rules is.
      by: makes, of the right function, the wrong one.
      operation: where it is to be found.
      quantities: in which of its values, gradients and tangents.
      rule: of a primitive: which of RULES.
      configuration: how the name of one that shows it begins.
      engine: by which it is computed.
    """

    of: str
    by: Callable[[Callable], Callable]
    operation: str
    quantities: tuple[str, ...]
    rule: str = ""
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
    def wrong(dy, x, winner, *, problem, **known):
        winner = (winner + 1) % problem.window.number_of_taps
        return right(dy, x, winner, problem=problem, **known)

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


def scaled(position=None, by=1.001):
    """What is returned, or what is at this position of it, is a thousandth too large."""

    def of(right):
        def wrong(*args, **known):
            found = right(*args, **known)
            if position is None:
                return found * by
            return [x * by if k == position else x for k, x in enumerate(found)]

        return wrong

    return of


def alive_at_zero(right):
    """ReLU'(0) = 1."""

    def wrong(operands, tangents):
        y, y_dot = right(operands, tangents)
        (x,), (x_dot,) = operands, tangents
        return y, jnp.where(x == 0, x_dot, y_dot)

    return wrong


def without_the_targets(right):
    """P, not P − T."""
    del right

    def wrong(dloss, _, logits, labels, *, smoothing):
        return [jax.nn.softmax(logits) * dloss[..., None], None, None]

    return wrong


def without_the_sum(right):
    """Y dY, as if every element were alone."""
    del right
    return lambda dy, _, y, *, axis: [y * dy, None]


def at_rest_themselves(right):
    """μ and σ² taken for constants."""
    return lambda *args, **known: [0 * each for each in right(*args, **known)]


def every_other(right):
    """The mask of another key."""

    def wrong(dy, x, is_kept, **known):
        return right(dy, x, ~is_kept, **known)

    return wrong


def with_weights_at_rest(right):
    """Ẏ = Ẋ · W + ḃ, without X · Ẇ."""

    def wrong(operands, tangents, **known):
        (_, w, *_), (x_dot, _, *b_dot) = operands, tangents
        return right(operands, [x_dot, at_rest(w), *b_dot], **known)

    return wrong


GRADIENT_OF_X, TANGENT_ALONG_X = "gradient of x", "tangent along x"
BOTH_BY_X = (GRADIENT_OF_X, TANGENT_ALONG_X)

MISTAKES = {
    "weight gradient: padding": Mistake(
        of="equations.weight_gradient",
        by=one_off_in_the_padding,
        operation="conv2d",
        quantities=("gradient of w",),
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "input gradient: kernel": Mistake(
        of="equations.input_gradient",
        by=not_rotated,
        operation="conv2d",
        quantities=(GRADIENT_OF_X,),
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "input gradient: padding": Mistake(
        of="equations.input_gradient",
        by=one_off_in_the_padding,
        operation="conv2d",
        quantities=(GRADIENT_OF_X,),
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "bias gradient: one image": Mistake(
        of="convolution.rule.bias_gradient",
        by=of_the_first_image_only,
        operation="conv2d",
        quantities=("gradient of b",),
        configuration="stride 2, padding 1",
    ),
    "transposed convolution: kernel of its input gradient": Mistake(
        of="equations.forward",
        by=not_rotated,
        operation="conv_transpose2d",
        quantities=(GRADIENT_OF_X,),
        configuration="stride 1",
        engine="equations",
    ),
    "fold, the gradient of unfold: padding": Mistake(
        of="equations.fold",
        by=one_off_in_the_padding,
        operation="unfold",
        quantities=(GRADIENT_OF_X,),
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "unfold, the gradient of fold: padding": Mistake(
        of="equations.unfold",
        by=one_off_in_the_padding,
        operation="fold",
        quantities=("gradient of p",),
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "max pooling's gradient: winner": Mistake(
        of="take_winners",
        rule="transpose",
        by=the_next_element_wins,
        operation="max_pool2d",
        quantities=(GRADIENT_OF_X,),
        configuration="3×3, stride 2",
    ),
    "max pooling's gradient: padding": Mistake(
        of="equations.max_pool_gradient",
        by=one_off_in_the_padding,
        operation="max_pool2d",
        quantities=(GRADIENT_OF_X,),
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "average pooling's gradient: divisor": Mistake(
        of="equations.average_pool_gradient",
        by=divided_by_what_lies_inside,
        operation="avg_pool2d",
        quantities=(GRADIENT_OF_X,),
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "max pooling's tangent: padding": Mistake(
        of="equations.take_winners",
        by=one_off_in_the_padding,
        operation="max_pool2d",
        quantities=(TANGENT_ALONG_X,),
        configuration="3×3, stride 2",
        engine="equations",
    ),
    "power-average pooling's gradient": Mistake(
        of="average_pool",
        rule="transpose",
        by=scaled(0),
        operation="lp_pool2d",
        quantities=(GRADIENT_OF_X,),
    ),
    "power-average pooling's tangent": Mistake(
        of="pooling.rule._power_pooling.jvp",
        by=scaled(1),
        operation="lp_pool2d",
        quantities=BOTH_BY_X,
    ),
    "adaptive average pooling": Mistake(
        of="lay_out_windows",
        rule="transpose",
        by=scaled(0),
        operation="adaptive_avg_pool2d",
        quantities=(GRADIENT_OF_X,),
        configuration="2 bins",
    ),
    "convolution's tangent: weights": Mistake(
        of="conv_forward",
        rule="jvp",
        by=with_weights_at_rest,
        operation="conv2d",
        quantities=("gradient of w", "tangent along w"),
        configuration="stride 2, padding 1",
    ),
    "convolution's tangent: bias": Mistake(
        of="convolution.rule.at_every_position",
        by=scaled(),
        operation="conv2d",
        quantities=("gradient of b", "tangent along b"),
        configuration="stride 2, padding 1",
    ),
    "ReLU at zero": Mistake(
        of="relu",
        rule="jvp",
        by=alive_at_zero,
        operation="relu",
        quantities=BOTH_BY_X,
        configuration="ties (zeros)",
    ),
    "the other activations": Mistake(
        of="tanh_gradient",
        rule="transpose",
        by=scaled(0),
        operation="tanh",
        quantities=(GRADIENT_OF_X,),
    ),
    "softmax": Mistake(
        of="softmax_gradient",
        rule="transpose",
        by=without_the_sum,
        operation="softmax",
        quantities=(GRADIENT_OF_X,),
    ),
    "log-softmax": Mistake(
        of="log_softmax_tangent",
        rule="transpose",
        by=scaled(0),
        operation="log_softmax",
        quantities=(GRADIENT_OF_X,),
    ),
    "cross-entropy": Mistake(
        of="softmax_cross_entropy_tangent",
        rule="transpose",
        by=without_the_targets,
        operation="softmax_cross_entropy",
        quantities=("gradient of logits",),
    ),
    "dense: dX": Mistake(
        of="convolution.rule.input_gradient",
        by=scaled(),
        operation="dense",
        quantities=(GRADIENT_OF_X,),
    ),
    "dense: dW": Mistake(
        of="convolution.rule.weight_gradient",
        by=scaled(),
        operation="dense",
        quantities=("gradient of w",),
    ),
    "dense: db": Mistake(
        of="convolution.rule.bias_gradient",
        by=of_the_first_image_only,
        operation="dense",
        quantities=("gradient of b",),
    ),
    "batch norm: dX": Mistake(
        of="statistics_tangent",
        rule="transpose",
        by=scaled(0, by=0),
        operation="batch_norm",
        quantities=(GRADIENT_OF_X,),
    ),
    "batch norm: dw": Mistake(
        of="normalization_tangent",
        rule="transpose",
        by=scaled(1),
        operation="batch_norm",
        quantities=("gradient of w",),
    ),
    "batch norm: db": Mistake(
        of="normalization_tangent",
        rule="transpose",
        by=scaled(2),
        operation="batch_norm",
        quantities=("gradient of b",),
    ),
    "batch norm's tangent: statistics": Mistake(
        of="layers.normalization_rule.STATISTICS_TANGENT.bind",
        by=at_rest_themselves,
        operation="batch_norm",
        quantities=BOTH_BY_X,
    ),
    "dropout": Mistake(
        of="dropout",
        rule="transpose",
        by=every_other,
        operation="dropout",
        quantities=(GRADIENT_OF_X,),
    ),
}


# --- It is found ----------------------------------------------------------------------


@pytest.fixture
def plant(monkeypatch):
    """Puts a mistake where it belongs, until the test is over."""

    def planted(mistake):
        if mistake.rule:
            rules = RULES[mistake.rule]
            (primitive,) = (each for each in rules if each.name == mistake.of)
            monkeypatch.setitem(rules, primitive, mistake.by(rules[primitive]))
        else:
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
def test_a_mistake_in_a_derivative_is_found_by_every_reference(name, plant):
    mistake = MISTAKES[name]
    plant(mistake)
    comparisons = compared(mistake)
    assert len(comparisons) >= 4
    for each in comparisons:
        is_wrong = each.quantity in mistake.quantities
        assert bool(each.problem) == is_wrong, str(each)
        if is_wrong:
            assert f"the float64 {each.quantity} by" in str(each)
            assert "deviates by" in each.problem
    wrong = {each.quantity for each in comparisons if each.problem}
    assert wrong == {*mistake.quantities}


FORWARD = {
    "convolution: kernel": Mistake(
        of="equations.forward",
        by=not_rotated,
        operation="conv2d",
        quantities=("value",),
        configuration="stride 2, padding 1",
        engine="equations",
    ),
    "transposed convolution: padding": Mistake(
        of="equations.input_gradient",
        by=one_off_in_the_padding,
        operation="conv_transpose2d",
        quantities=("value",),
        configuration="stride 2",
        engine="equations",
    ),
    "average pooling: divisor": Mistake(
        of="equations.average_pool",
        by=divided_by_what_lies_inside,
        operation="avg_pool2d",
        quantities=("value",),
        configuration="3×3, stride 2",
        engine="equations",
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_mistake_in_a_value_is_found_in_it_and_in_the_derivatives(
    name, plant, monkeypatch
):
    # Or differences would be of another engine.
    equations = [each for each in plan.ON_CPU if each.engine == "equations"]
    monkeypatch.setattr(plan, "ON_CPU", equations[-1:])
    mistake = FORWARD[name]
    plant(mistake)
    comparisons = compared(mistake)
    for each in comparisons:
        if each.quantity in ("value", TANGENT_ALONG_X):
            assert bool(each.problem) == (each.reference in ("XLA", "PyTorch")), str(each)
        if each.quantity == GRADIENT_OF_X:
            its_own = each.reference in ("autodiff", "differences")
            assert bool(each.problem) == its_own, str(each)


def test_a_wrong_tie_is_found_by_other_libraries(plant):
    """The loops give the same maxima and would by themselves be differentiated alike."""
    mistake = Mistake(
        of="equations.max_pool",
        by=the_last_of_equals_wins,
        operation="max_pool2d",
        quantities=(GRADIENT_OF_X,),
        configuration="ties",
        engine="equations",
    )
    plant(mistake)
    comparisons = compared(mistake)
    assert any(each.problem for each in comparisons)
    for each in comparisons:
        is_wrong = each.kind != "value" and each.reference in ("XLA", "PyTorch")
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
    assert {each["quantity"] for each in problems} == {GRADIENT_OF_X}
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


def test_derivatives_shared_among_equal_maxima_are_wrong():
    case = next(each for each in cases("max_pool2d", 0) if each.name.startswith("ties"))

    def shares(x):
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
        rows = jnp.stack([padded[:, :, m : m + 7 : 2] for m in range(3)])
        return jnp.stack([rows[..., n : n + 9 : 2] for n in range(3)]).max((0, 1))

    assert case.name.endswith("NCHW")
    comparisons = compare_case(replace(case, custom=shares), 0, dtypes=["float64"])
    assert all(bool(each.problem) == (each.kind != "value") for each in comparisons)
