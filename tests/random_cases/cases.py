"""Random cases of every operation: what a user may write, what it means, what comes of it.

:mod:`tests.random_cases.strategies` draws one :class:`Case` after the other. Its arrays
come from a seed, channels first, in float64 but rounded to the case's dtype: so the
oracles compute in float64 with the very numbers that jaxcnn is given, and know nothing
of layouts, of images without a batch, or of what a user may write for a window.
"""

import importlib
import os
from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests import oracles, precision


class Window(NamedTuple):
    """A window as the oracles read one: an entry for each spatial dimension."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


class Case(NamedTuple):
    """One call, as its user writes it, and what it means.

    Attributes:
      function: of jaxcnn.
      options: its keywords but ``layout``, as pairs.
      layout, dtype: of its arrays.
      is_batch: or else its images are one, without the axis of a batch.
      shapes: of its operands, channels first: images, then weights and a bias.
      out_shape, out_dtype: of its result, channels first.
      window, groups, padding_mode, counted: what the options mean; ``counted`` is the
        padding whose zeros an average counts.
      values: ``"normal"``; ``"rounded"``, so that some are equal; or ``"positive"``.
      seed: of the random numbers.
    """

    function: Callable
    options: tuple[tuple[str, Any], ...]
    layout: str
    dtype: str
    is_batch: bool
    shapes: tuple[tuple[int, ...], ...]
    out_shape: tuple[int, ...]
    out_dtype: str
    window: Any = None
    groups: int = 1
    padding_mode: str = "zeros"
    counted: tuple[tuple[int, int], ...] = ()
    values: str = "normal"
    seed: int = 0

    @property
    def written(self) -> dict[str, Any]:
        return dict(self.options)

    @property
    def size(self) -> tuple[int, ...]:
        return self.shapes[0][2:]


class Answer(NamedTuple):
    """What a call gives: arrays, channels first.

    Attributes:
      y: the result.
      gradients: one for each operand.
      indices: where the maxima were, of a pooling that returns them.
    """

    y: Any
    gradients: tuple
    indices: Any = None


# --- Many of them ---------------------------------------------------------------------

ORACLES = {"lax": "with_xla", "torch": "with_torch"}
"""The file of each, in :mod:`tests.oracles`."""

every_oracle = pytest.mark.parametrize("oracle", ORACLES)


class Others(int):
    """So many cases, others every time."""


every_number = pytest.mark.parametrize(
    "number",
    [
        4,
        pytest.param(300, marks=pytest.mark.slow),
        pytest.param(
            Others(os.environ.get("CASES", "1000")), marks=pytest.mark.fuzz, id="fuzz"
        ),
    ],
)
"""How many cases: the same few, the same hundreds, or others every time."""


def answers_of(oracle: str) -> ModuleType:
    """The oracle's file, or a test that is skipped where PyTorch is not installed.

    Skipped before the import: collecting doctests has tried it already, and leaves what it
    got of a file it could not import.
    """
    if oracle == "torch":
        pytest.importorskip("torch")
    return importlib.import_module(f"tests.oracles.{ORACLES[oracle]}")


def for_every(strategy, number, check):
    """Check so many cases: the same at every run, unless they are to be :class:`Others`."""
    checked = 0

    def check_and_forget(case):
        nonlocal checked
        check(case)
        checked += 1
        if checked % 100 == 0:
            jax.clear_caches()  # or whatever was compiled would stay in memory

    settings(
        max_examples=number,
        derandomize=not isinstance(number, Others),
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        # A case that does not fit is drawn anew, which takes no time beside compiling.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )(given(strategy)(check_and_forget))()


# --- What the oracles are given -------------------------------------------------------


def arrays(case: Case) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """The operands, and the gradient that arrives at the result."""
    rng = np.random.default_rng(case.seed)
    numbers = [rng.standard_normal(shape) for shape in case.shapes]
    if case.values == "rounded":
        numbers = list(map(np.round, numbers))
    if case.values == "positive":
        numbers = [np.abs(each) + 0.1 for each in numbers]
    dy = rng.standard_normal(case.out_shape)
    return tuple(_rounded(each, case.dtype) for each in numbers), _rounded(
        dy, case.out_dtype
    )


def _rounded(array, dtype):
    return array.astype(jnp.dtype(dtype)).astype(np.float64)


# --- What jaxcnn makes of it ----------------------------------------------------------


@lru_cache(maxsize=1024)  # it is compared with more than one oracle
def ours(case: Case) -> Answer:
    """What jaxcnn's function returns, and its gradients."""
    call = partial(case.function, layout=case.layout, **case.written)

    def with_indices(*operands):
        y = call(*operands)
        return y if isinstance(y, tuple) else (y, None)

    @jax.jit
    def computed(dy, *operands):
        y, pullback, indices = jax.vjp(with_indices, *operands, has_aux=True)
        return y, pullback(dy), indices

    operands, dy = given_arrays(case)
    y, gradients, indices = jax.tree.map(np.asarray, computed(dy, *operands))
    assert y.dtype == jnp.dtype(case.out_dtype)
    assert {each.dtype for each in gradients} == {jnp.dtype(case.dtype)}
    return Answer(
        _images_first(y, case),
        channels_first(gradients, case),
        None if indices is None else _images_first(indices, case),
    )


def given_arrays(case: Case) -> tuple[list[np.ndarray], np.ndarray]:
    """The operands and the gradient that arrives, as jaxcnn is given them."""
    (x, *others), dy = arrays(case)
    others = [
        oracles.weights_in_layout(each, case.layout) if each.ndim > 1 else each
        for each in others
    ]
    operands = [each.astype(jnp.dtype(case.dtype)) for each in (_images(x, case), *others)]
    return operands, _images(dy, case).astype(jnp.dtype(case.out_dtype))


def channels_first(gradients, case: Case) -> tuple[np.ndarray, ...]:
    """What has the shapes of the operands, with the channels first."""
    dx, *others = gradients
    return _images_first(dx, case), *(
        oracles.outputs_first(each, case.layout) if each.ndim > 1 else np.asarray(each)
        for each in others
    )


def _images(array, case):
    array = oracles.in_layout(array, case.layout)
    return array if case.is_batch else array[0]


def _images_first(array, case):
    return oracles.channels_first(array if case.is_batch else array[None], case.layout)


# --- What they must agree in ----------------------------------------------------------


def agree(our: Answer, their: Answer, *, convolved: bool = False) -> None:
    close((our.y, *our.gradients), (their.y, *their.gradients), convolved)


def agree_to_the_bit(our: Answer, their: Answer) -> None:
    """For a result that is only chosen. Gradients are still sums."""
    close(our.gradients, their.gradients)
    np.testing.assert_array_equal(our.y.astype(np.float64), their.y)
    if their.indices is not None:
        np.testing.assert_array_equal(our.indices, their.indices)


def close(ours, theirs, convolved=False):
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        # Some hundred terms of order 1 to 10, added in another order: in float64
        # 1000 · 2e-16, far below 1e-10; in float32 (and for halves) 100 · 6e-8, of which
        # little adds up. What then is rounded to a half is rounded once, but where a
        # platform is promised to round again what is convolved.
        summed = 1e-10 if our.dtype == np.float64 else 2e-5
        allowed = {"rtol": summed, "atol": summed}
        if our.dtype.itemsize == 2:
            allowed = precision.of_halves(
                our.dtype, summed, convolved=their if convolved else None
            )
        np.testing.assert_allclose(our.astype(np.float64), their, **allowed)
