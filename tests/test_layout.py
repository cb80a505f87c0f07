"""Layouts: axes are found by letter, and what is split or reordered comes back."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import layout as layouts

LAYOUTS = ["NCW", "NWC", "NCHW", "NHWC", "NCDHW", "NDHWC"]


def numbered(*shape):
    """An array whose entries all differ, so that no two axes can be confused."""
    return np.arange(math.prod(shape)).reshape(shape)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_channels_and_merge_channels_are_inverses(layout):
    shape = [{"N": 2, "C": 6}.get(letter, 3) for letter in layout]
    x = numbered(*shape)

    @jax.jit
    def split_and_merged(x):
        split = layouts.split_channels(x, 3, layout)
        return split, layouts.merge_channels(split, layout)

    split, merged = split_and_merged(x)
    assert layouts.grouped(layout).index("G") == layouts.grouped(layout).index("C") - 1
    assert split.shape[layout.index("C")] == 3
    assert split.shape[layout.index("C") + 1] == 2
    np.testing.assert_array_equal(merged, x)


def test_a_group_is_a_run_of_neighbouring_channels():
    x = numbered(1, 6, 2)
    split = np.asarray(layouts.split_channels(jnp.asarray(x), 3, "NCW"))
    np.testing.assert_array_equal(split[:, 1], x[:, 2:4])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_taps_of_and_weights_of_are_inverses(layout):
    letters = layouts.weight_layout(layout)
    shape = [{"O": 6, "I": 2}.get(letter, 3) for letter in letters]
    kernel_size = (3,) * len(layouts.spatial_axes(layout))
    w = numbered(*shape)

    @jax.jit
    def there_and_back(w):
        taps = layouts.taps_of(w, 2, layout)
        assert len(taps) == 3 ** len(kernel_size)
        return layouts.weights_of(taps, kernel_size, layout)

    np.testing.assert_array_equal(there_and_back(w), w)


def test_a_tap_is_one_slice_of_the_weights():
    # The second of three groups of two outputs, at the tap (1, 0) of a 2×2 kernel.
    taps_of = jax.jit(layouts.taps_of, static_argnums=(1, 2))
    w = numbered(6, 5, 2, 2)
    tap = np.asarray(taps_of(w, 3, "NCHW"))[2]
    np.testing.assert_array_equal(tap[1], w[2:4, :, 1, 0])
    w = numbered(2, 2, 5, 6)
    tap = np.asarray(taps_of(w, 3, "NHWC"))[2]
    np.testing.assert_array_equal(tap[:, 1], w[1, 0, :, 2:4])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_axis_and_merge_axes_are_inverses(layout):
    shape = list(range(2, 2 + len(layout)))
    shape[1] = 12
    x = numbered(*shape)

    @jax.jit
    def there_and_back(x):
        return layouts.merge_axes(layouts.split_axis(x, 1, 2, 3, 2), 1, 3)

    np.testing.assert_array_equal(there_and_back(x), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_spatial_size_is_what_with_spatial_replaces(layout):
    size = tuple(range(5, 3 + len(layout)))
    shape = layouts.with_spatial([2] * len(layout), size, layout)
    assert layouts.spatial_size(jnp.asarray(np.zeros(shape)), layout) == size
    assert shape[layout.index("N")] == shape[layout.index("C")] == 2
