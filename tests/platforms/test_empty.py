"""Arrays without entries: no images, no channels, no positions.

A sum of nothing is zero, and nothing moves it. What ``lax`` and JAX give for such arrays is
what is right here: the shapes, and the zeros in those that are not empty.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
from jaxcnn.layout import weight_layout
from jaxcnn.window import Window
from tests import oracles

PADDED = Window((3, 2), (2, 1), ((3, 2), (1, 1)), (1, 1))
BARE = Window((3, 2), (2, 1), ((0, 0), (0, 0)), (1, 1))
LAYOUTS = ("NCHW", "NHWC")
EMPTY = {
    "no images": {"N": 0},
    "no input channels": {"C": 0},
    "no output channels": {"O": 0},
    "no rows": {"H": 0},
    "no positions": {"H": 0, "W": 0},
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def ones(letters, **sizes):
    known = {"N": 2, "C": 4, "O": 6, "H": 5, "W": 6, **sizes}
    known |= {"I": known.get("I", known["C"])}
    return np.ones([known[letter] for letter in letters])


def in_both_modes(function):
    """The value, the tangent and the gradients, for ones wherever something arrives."""

    @jax.jit
    def computed(*operands):
        y, tangent = jax.jvp(function, operands, operands)
        z, pullback = jax.vjp(function, *operands)
        return y, tangent, z, pullback(jnp.ones_like(z))

    return computed


def equal(ours, theirs):
    """In shapes and dtypes, too."""
    chex.assert_trees_all_equal(*jax.device_get((ours, theirs)), strict=True)


def conv(window, groups=1, **options):
    return functools.partial(
        jaxcnn.conv2d,
        stride=window.stride,
        padding=window.padding,
        groups=groups,
        **options,
    )


@every_layout
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", [PADDED, BARE])
@pytest.mark.parametrize("name", EMPTY)
def test_a_convolution_is_that_of_lax(name, window, groups, layout):
    sizes = EMPTY[name]
    x, b = ones(layout, **sizes), ones("O", **sizes)
    letters = weight_layout(layout).replace("H", "K").replace("W", "L")
    w = ones(letters, **sizes, I=sizes.get("C", 4) // groups, K=3, L=2)

    def theirs(x, w, b):
        return oracles.lax_convolution(x, w, b, window, groups, layout)

    ours = conv(window, groups, layout=layout)
    equal(in_both_modes(ours)(x, w, b), in_both_modes(theirs)(x, w, b))


POOLINGS = {
    "max_pool2d": (jaxcnn.max_pool2d, oracles.lax_max_pool),
    "avg_pool2d": (
        jaxcnn.avg_pool2d,
        functools.partial(oracles.lax_average_pool, count_include_pad=True),
    ),
}


@every_layout
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", [name for name in EMPTY if "output" not in name])
def test_a_pooling_is_that_of_lax(name, pooling, layout):
    x = ones(layout, **EMPTY[name])
    ours, theirs = POOLINGS[pooling]
    ours = functools.partial(
        ours, kernel_size=BARE.kernel_size, stride=BARE.stride, layout=layout
    )
    theirs = functools.partial(theirs, window=BARE, layout=layout)
    equal(in_both_modes(ours)(x), in_both_modes(theirs)(x))


def centred(x):
    return (x - x.mean((2, 3), keepdims=True)) / jnp.sqrt(
        x.var((2, 3), keepdims=True) + 1e-5
    )


OTHERS = {
    "relu": (jaxcnn.relu, jax.nn.relu, "NCHW"),
    "gelu": (jaxcnn.gelu, functools.partial(jax.nn.gelu, approximate=False), "NCHW"),
    "softmax": (jaxcnn.softmax, jax.nn.softmax, "NCHW"),
    "log_softmax": (jaxcnn.log_softmax, jax.nn.log_softmax, "NCHW"),
    "dense": (jaxcnn.dense, lambda x, w: x @ w, "NC", "CO"),
    "instance_norm": (jaxcnn.instance_norm, centred, "NCHW"),
    "global_avg_pool": (jaxcnn.global_avg_pool, lambda x: x.mean((2, 3)), "NCHW"),
    "conv_transpose2d": (
        functools.partial(jaxcnn.conv_transpose2d, padding="SAME"),
        lambda x, w: lax.conv_transpose(
            x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "IOHW", "NCHW")
        ),
        "NCHW",
        "CO33",
    ),
    "depthwise_conv2d": (
        functools.partial(jaxcnn.depthwise_conv2d, padding="SAME"),
        lambda x, w: lax.conv_general_dilated(
            x, w, (1, 1), "SAME", feature_group_count=x.shape[1]
        ),
        "NCHW",
        "C133",
    ),
    "unfold and fold": (
        lambda x: jaxcnn.fold(jaxcnn.unfold(x, 2, padding=1), x.shape[2:], 2, padding=1),
        lambda x: 4 * x,
        "NCHW",
    ),
    "dropout": (
        lambda x: jaxcnn.dropout(x, jax.random.key(0)),
        lambda x: 2 * x,
        "NCHW",
    ),
    "softmax_cross_entropy": (
        lambda x: jaxcnn.softmax_cross_entropy(x, jnp.zeros(len(x), int)),
        lambda x: jax.nn.log_softmax(x).max(1, initial=0),
        "NO",
    ),
}
REFUSED = {
    ("no input channels", "depthwise_conv2d"): "sizes of its axes (1,) must be at least 1",
    ("no output channels", "softmax_cross_entropy"): "its axes (-1,) must be at least 1",
    **{
        (name, "global_avg_pool"): "sizes of its axes (2, 3) must be at least 1"
        for name in ("no rows", "no positions")
    },
    **{(name, "instance_norm"): "has 0 element(s)" for name in ("no rows", "no positions")},
}


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (name, operation)
        for name, sizes in EMPTY.items()
        for operation, (_, _, *letters) in OTHERS.items()
        if set(sizes) & set("".join(letters))
    ],
)
def test_other_operations_are_as_jax_has_them_or_say_why_not(name, operation):
    ours, theirs, *letters = OTHERS[operation]
    numbers = {"1": 1, "3": 3}
    operands = [ones(each, **EMPTY[name], **numbers) for each in letters]
    if (name, operation) in REFUSED:
        with pytest.raises(ValueError) as raised:
            ours(*operands)
        assert REFUSED[name, operation] in str(raised.value)
        return
    equal(in_both_modes(ours)(*operands), in_both_modes(theirs)(*operands))


# --- What lax itself gives under the patch -----------------------------------------------

LAX_CONVOLUTIONS = {
    "no images": ((0, 4, 5, 6), (6, 4, 3, 2), {}),
    "no images, groups of images": ((0, 4, 5, 6), (6, 4, 3, 2), {"batch_group_count": 2}),
    "no rows": ((2, 4, 0, 6), (6, 4, 3, 2), {}),
    "no rows, padded": ((2, 4, 0, 6), (6, 4, 3, 2), {"padding": ((2, 2), (0, 1))}),
    "no rows, spread": (
        (2, 4, 0, 6),
        (6, 4, 3, 2),
        {"padding": ((2, 2), (0, 1)), "lhs_dilation": (2, 3)},
    ),
    "a row, spread under a large window": (
        (2, 4, 1, 6),
        (6, 4, 9, 2),
        {"padding": ((0, 0), (0, 0)), "lhs_dilation": (2, 3)},
    ),
    "a large window": ((2, 4, 5, 6), (6, 4, 7, 2), {"padding": "VALID"}),
    "no channels, groups": ((2, 0, 5, 6), (6, 0, 3, 2), {"feature_group_count": 2}),
    "no result, groups": ((2, 4, 5, 6), (0, 2, 3, 2), {"feature_group_count": 2}),
}


@pytest.mark.parametrize("row", LAX_CONVOLUTIONS)
def test_the_patch_changes_no_empty_convolution(row):
    x, w, options = LAX_CONVOLUTIONS[row]
    if "lhs_dilation" not in options:
        options = {"padding": "SAME", **options}

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), **options)

    x, w = np.ones(x), np.ones(w)
    theirs = in_both_modes(convolve)(x, w)
    with jaxcnn.patched_jax():
        assert "conv_forward" in str(jax.make_jaxpr(convolve)(x, w))
        equal(in_both_modes(convolve)(x, w), theirs)


@pytest.mark.parametrize("computation", [lax.max, lax.add])
@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((0, 5), "SAME"),
        ((2, 0), "SAME"),
        ((2, 0), ((0, 0), (2, 3))),
        ((2, 1), "VALID"),
    ],
)
def test_the_patch_changes_no_empty_pooling(shape, padding, computation):
    init = -np.inf if computation is lax.max else 0.0

    def pool(x):
        return lax.reduce_window(x, init, computation, (1, 2), (1, 2), padding)

    theirs = in_both_modes(pool)(np.ones(shape))
    with jaxcnn.patched_jax():
        equal(in_both_modes(pool)(np.ones(shape)), theirs)


# --- Over no examples at all -------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0), (3, 1)])
@pytest.mark.parametrize("length", [0, 3])
def test_vmap_is_that_of_lax(length, in_axes, groups):
    """Over none; and over three, none of which has channels."""
    sizes = {} if length == 0 else {"C": 0}
    operands = [ones("NCHW", **sizes), ones("OI33", **sizes, **{"3": 3})]
    operands[1] = operands[1][:, : operands[1].shape[1] // groups]
    operands = [
        x if axis is None else np.repeat(np.expand_dims(x, axis), length, axis)
        for x, axis in zip(operands, in_axes, strict=True)
    ]

    def theirs(x, w):
        return oracles.lax_convolution(x, w, None, PADDED, groups, "NCHW")

    ours, theirs = (jax.vmap(each, in_axes, 1) for each in (conv(PADDED, groups), theirs))
    equal(in_both_modes(ours)(*operands), in_both_modes(theirs)(*operands))


def test_vmap_of_poolings_over_no_examples():
    x = np.ones((0, 2, 3, 4, 5))

    def both(x):
        return jaxcnn.max_pool2d(x, 2) + jaxcnn.avg_pool2d(x, 2)

    y, _, _, (dx,) = in_both_modes(jax.vmap(both))(x)
    assert (y.shape, dx.shape) == ((0, 2, 3, 2, 2), x.shape)


def test_a_window_larger_than_an_image_with_pixels_is_refused():
    with pytest.raises(ValueError, match="more than the input of size"):
        jaxcnn.conv2d(ones("NCHW", H=2), np.ones((6, 4, 3, 2)))
