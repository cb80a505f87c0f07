"""What every test runs under is really in force, in tests and in them alone."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxcnn import equations, layout, plan, window
from jaxcnn.window import Window
from tests.modules import CHECKED, UNCHECKED

WINDOW = Window((1,), (1,), ((0, 0),), (1,))


@pytest.mark.parametrize(
    "call",
    [
        lambda: layout.merge_channels("not an array", "NCW"),
        lambda: window.tap(jnp.ones((1, 1, 2)), (0,), "not a window", "NCW"),
        lambda: plan.compute("average_pool", "not a problem", jnp.ones((1, 1, 2))),
        lambda: equations.take_winners(
            jnp.ones((1, 1, 2)),
            jnp.ones((1, 1, 2)),  # floats, which are not winners
            window=WINDOW,
            layout="NCW",
        ),
    ],
)
def test_types_are_checked(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_types_are_checked_wherever_users_are_not_the_callers():
    """A new file is in one of the two lists: let it be in the right one."""
    assert sorted(UNCHECKED) == [
        "jaxcnn.arguments",
        "jaxcnn.checking.compare",
        "jaxcnn.checking.gradcheck",
        "jaxcnn.compiling",
        "jaxcnn.convolution.conv",
        "jaxcnn.convolution.gradients",
        "jaxcnn.convolution.separable",
        "jaxcnn.convolution.transposed",
        "jaxcnn.differentiation",
        "jaxcnn.engines.loops.addresses",
        "jaxcnn.engines.loops.nests",
        "jaxcnn.engines.loops.tile",
        "jaxcnn.engines.loops.xla_calls",
        "jaxcnn.layers.activations",
        "jaxcnn.layers.dense",
        "jaxcnn.layers.dropout",
        "jaxcnn.layers.losses",
        "jaxcnn.layers.normalization",
        "jaxcnn.layers.softmax",
        "jaxcnn.patching.drop_in",
        "jaxcnn.patching.lax_arguments",
        "jaxcnn.patching.patch",
        "jaxcnn.pooling.adaptive",
        "jaxcnn.pooling.average",
        "jaxcnn.pooling.maximum",
        "jaxcnn.pooling.unfolding",
    ]
    assert "jaxcnn.equations" in CHECKED


def test_floats_are_float64():
    assert jnp.ones(2).dtype == jnp.float64


def test_dtypes_do_not_change_by_themselves():
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(2) + jnp.ones(2, "float32")


def test_ranks_do_not_change_by_themselves():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 2)) + jnp.ones(2)
