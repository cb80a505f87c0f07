"""The window: tap and untap are what the equations say, and each other's transpose.

Random windows of every kind are drawn once, with a fixed seed, and every claim is checked
for each of them. The data are integers, so that equality is exact.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn.layout import spatial_size
from jaxcnn.window import Window, named_padding, padded, tap, untap, valid_positions
from tests import oracles

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}

# One of each kind that is easily got wrong: (input size, Window).
PECULIAR = [
    ((5,), Window((1,), (1,), ((0, 0),), (1,))),
    # … a kernel as large as the input
    ((4,), Window((4,), (1,), ((0, 0),), (1,))),
    # … padding larger than the kernel
    ((3,), Window((2,), (1,), ((5, 4),), (1,))),
    # … negative padding, on either side and on both
    ((7,), Window((2,), (1,), ((-2, 0),), (1,))),
    ((7,), Window((2,), (1,), ((0, -2),), (1,))),
    ((7,), Window((2,), (2,), ((-1, -2),), (1,))),
    # … which crops more than there is, and leaves padding alone
    ((3,), Window((2,), (1,), ((-4, 6),), (1,))),
    # … a stride larger than the kernel, which skips inputs
    ((9,), Window((2,), (4,), ((0, 0),), (1,))),
    # … a size that the stride does not divide
    ((8,), Window((3,), (2,), ((0, 0),), (1,))),
    # … dilation, with an extent that fits exactly
    ((7,), Window((3,), (2,), ((0, 0),), (3,))),
    # … another value of everything in each dimension
    ((5, 8), Window((3, 2), (1, 3), ((0, 2), (-1, 1)), (2, 1))),
    ((2, 4, 5), Window((2, 1, 3), (1, 2, 1), ((1, 0), (0, 1), (2, -1)), (1, 2, 1))),
]


def random_windows(dimensions, count):
    """Windows that fit into their padded input, with the size of that input."""
    rng = np.random.default_rng(dimensions)
    largest = 9 if dimensions < 3 else 5
    found = []
    while len(found) < count:
        kernel_size, stride, dilation = (
            tuple(rng.integers(1, most, dimensions, endpoint=True).tolist())
            for most in (3, 4, 2)
        )
        padding = tuple(map(tuple, rng.integers(-2, 5, (dimensions, 2)).tolist()))
        size = tuple(rng.integers(1, largest, dimensions, endpoint=True).tolist())
        window = Window(kernel_size, stride, padding, dilation)
        if all(oracles.output_size(size, window)):
            found.append((size, window))
    return found


def sampled():
    """The peculiar windows, and random ones: a few always, and as many more for slow runs.

    The layouts take turns: two compilations for each window would prove no more than one.
    """
    random = [*random_windows(1, 12), *random_windows(2, 12), *random_windows(3, 6)]
    for number, (size, window) in enumerate([*PECULIAR, *random]):
        is_slow = number >= len(PECULIAR) and number % 6 > 1
        marks = pytest.mark.slow if is_slow else ()
        yield pytest.param(size, window, LAYOUTS[len(size)][number % 2], marks=marks)


SAMPLE = [*sampled()]
every_window = pytest.mark.parametrize(("size", "window", "layout"), SAMPLE)


def integers_over(size, layout, seed):
    """A batch of two images of two channels, laid out as ``layout`` says."""
    first = np.random.default_rng(seed).integers(-9, 9, (2, 2, *size))
    return oracles.in_layout(first, layout)


def at_every_tap(x, y, window, layout):
    """tap(x, m), untap(y, m) and the valid positions for every m, which is traced."""
    size = spatial_size(x, layout)
    return lax.map(lambda m: at_tap(x, y, m, window, size, layout), window.offsets())


def at_every_known_tap(x, y, window, layout):
    """As at_every_tap, but every m is known when it is compiled."""
    size = spatial_size(x, layout)
    at = [at_tap(x, y, m, window, size, layout) for m in window.offsets()]
    return [jnp.stack(each) for each in zip(*at, strict=True)]


def at_tap(x, y, m, window, size, layout):
    return (
        tap(x, m, window, layout),
        untap(y, m, window, size, layout),
        valid_positions(m, window, size, layout),
    )


@functools.cache
def computed(size, window, layout):
    """x and y, and what becomes of them at every tap: traced, known, and of x padded.

    Compiled together, and once for all tests. The window over x padded comes last.
    """
    x = integers_over(size, layout, seed=1)
    y = integers_over(oracles.output_size(size, window), layout, seed=2)

    inner = []

    @jax.jit
    def everything(x, y):
        around, over_it = padded(x, window, layout)
        inner.append(over_it)
        return (
            at_every_tap(x, y, window, layout),
            at_every_known_tap(x, y, window, layout),
            at_every_tap(around, y, over_it, layout)[0],
        )

    return x, y, *jax.tree.map(np.asarray, everything(x, y)), *inner


@every_window
def test_tap_and_untap_are_transposes(size, window, layout):
    x, y, (seen, placed, _), *_ = computed(size, window, layout)
    for seen_m, placed_m in zip(seen, placed, strict=True):
        assert np.vdot(seen_m, y) == np.vdot(x, placed_m)


@every_window
def test_tap_sees_the_input_where_the_equation_says_and_zero_outside(size, window, layout):
    x, _, (seen, _, valid), *_ = computed(size, window, layout)
    x = oracles.channels_first(x, layout)
    for number, m in enumerate(window.offsets()):
        seen_m = oracles.channels_first(seen[number], layout)
        valid_m = oracles.channels_first(valid[number], layout)
        for i in oracles.positions(oracles.output_size(size, window)):
            k = oracles.met_at(i, m, window)
            inside = oracles.is_inside(k, size)
            wanted = x[(..., *k)] if inside else 0
            np.testing.assert_array_equal(seen_m[(..., *i)], wanted)
            assert valid_m[(0, 0, *i)] == inside


@every_window
def test_untap_puts_y_back_where_it_was_seen_and_nowhere_else(size, window, layout):
    _, y, (_, placed, _), *_ = computed(size, window, layout)
    y = oracles.channels_first(y, layout)
    out = oracles.output_size(size, window)
    for number, m in enumerate(window.offsets()):
        placed_m = oracles.channels_first(placed[number], layout)
        assert placed_m.shape[2:] == size
        for k in oracles.positions(size):
            i = oracles.fed_at(k, m, window, out)
            wanted = 0 if i is None else y[(..., *i)]
            np.testing.assert_array_equal(placed_m[(..., *k)], wanted)


@every_window
def test_a_known_tap_is_the_same_as_a_traced_one(size, window, layout):
    _, _, traced, known, *_ = computed(size, window, layout)
    for ours, wanted in zip(known, traced, strict=True):
        np.testing.assert_array_equal(ours, wanted)


@every_window
def test_padded_takes_the_padding_into_the_array(size, window, layout):
    *_, (seen, _, _), _, seen_around, inner = computed(size, window, layout)
    assert not inner.is_padded
    assert inner == dataclasses.replace(window, padding=inner.padding)
    assert window.is_padded == any(map(any, window.padding))
    inner_size = window.padded_size(size)
    assert inner.output_size(inner_size) == window.output_size(size)
    np.testing.assert_array_equal(seen_around, seen)


def test_padded_fills_with_what_it_is_told():
    window = Window((2,), (1,), ((2, -1),), (1,))
    x = jnp.array([[[1.0, 2.0, 3.0]]], "float32")
    around, _ = padded(x, window, "NCW", -jnp.inf)
    assert around.dtype == x.dtype
    np.testing.assert_array_equal(around[0, 0], [-np.inf, -np.inf, 1, 2])


@pytest.mark.parametrize("layout", ["NCDHW", "NDHWC"])
def test_one_dimension_after_the_other_sees_what_the_window_does(layout):
    # The sum over all taps, taken at once and dimension by dimension.
    size, window = (
        (4, 5, 6),
        Window((2, 3, 1), (1, 2, 3), ((1, 0), (2, -1), (0, 3)), (2, 1, 1)),
    )
    x, _, (seen, _, _), *_ = computed(size, window, layout)
    assert window.only(0, 1, 2) == window
    apart = [window.only(dimension) for dimension in range(3)]
    for dimension, only in enumerate(apart):
        one = slice(dimension, dimension + 1)
        assert only.along(one) == window.along(one)
        assert only.number_of_taps == window.kernel_size[dimension]

    @jax.jit
    def one_after_the_other(x):
        for only in apart:
            x = sum(tap(x, m, only, layout) for m in only.offsets())
        return x

    np.testing.assert_array_equal(one_after_the_other(x), seen.sum(0))


# --- Sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_output_size_is_what_counting_gives(dimensions):
    for size, window in random_windows(dimensions, 500):
        assert window.output_size(size) == oracles.output_size(size, window), (size, window)


@pytest.mark.parametrize("size", range(1, 12))
def test_the_output_size_is_the_documents(size):
    for k in range(1, 6):
        for s in range(1, 5):
            for p in range(4):
                window = Window((k,), (s,), ((p, p),), (1,))
                if k <= size + 2 * p:
                    assert window.output_size((size,)) == ((size + 2 * p - k) // s + 1,)


@pytest.mark.parametrize("stride", range(1, 9))
def test_a_window_that_does_not_fit_has_no_output(stride):
    # Whatever the stride: −1//s is −1, but −5//4 is −2, and no size is negative.
    window = Window((9,), (stride,), ((0, 0),), (1,))
    assert window.output_size((4,)) == (0,)
    assert window.output_size((9,)) == (1,)


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER", "VALID"])
def test_named_paddings_are_those_of_xla(name):
    for size, window in random_windows(2, 300):
        ours = named_padding(name, window, size)
        assert ours == oracles.lax_padding(name, size, window), (size, window)


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER"])
def test_same_padding_keeps_the_size_divided_by_the_stride(name):
    for size, window in random_windows(2, 300):
        named = dataclasses.replace(window, padding=named_padding(name, window, size))
        wanted = tuple(math.ceil(h / s) for h, s in zip(size, window.stride, strict=True))
        assert named.output_size(size) == wanted, (size, window)


def test_sees_only_padding_is_what_looking_at_every_position_gives():
    answers = []
    for size, window in [*random_windows(1, 300), *random_windows(2, 300)]:
        lost = any(
            not oracles.seen_from(i, window, size)
            for i in oracles.positions(oracles.output_size(size, window))
        )
        assert window.sees_only_padding(size) == lost, (size, window)
        answers.append(lost)
    assert 100 < sum(answers) < 500  # both answers were asked for


@pytest.mark.parametrize(
    ("stride", "dilation", "lost"),
    [(1, 2**60, True), (2**60, 2**60, False), (2**59, 2**60, True)],
)
def test_sees_only_padding_looks_at_few_positions(stride, dilation, lost):
    window = Window((3,), (stride,), ((2**60, 2**61),), (dilation,))
    assert window.sees_only_padding((5,)) == lost


# --- The window as a value ------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [(3,), (2, 3), (3, 1, 2)])
def test_offsets_are_every_tap_in_row_major_order(kernel_size):
    n = len(kernel_size)
    window = Window(kernel_size, (1,) * n, ((0, 0),) * n, (2,) * n)
    assert window.offsets().dtype == np.int32
    assert list(map(tuple, window.offsets())) == list(oracles.positions(kernel_size))
    assert window.number_of_taps == len(window.offsets())


def test_a_window_is_hashable_and_equal_to_its_like():
    like = [Window((3, 3), (1, 2), ((0, 1), (2, 3)), (1, 1)) for _ in range(2)]
    assert len(set(like)) == 1
    assert len({*like, dataclasses.replace(like[0], stride=(2, 2))}) == 2


def test_a_window_cannot_be_changed():
    window = Window((3,), (1,), ((0, 0),), (1,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        window.stride = (2,)
