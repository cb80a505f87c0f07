"""Programs exported for images of any height and width."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxcnn
from jaxcnn.engines import ENGINES

IMAGE = ("b", "h", "w", 4)
SIZES = {"b": (3, 2), "h": (8, 11), "w": (13, 9)}
AT_LEAST = ("h >= 8", "w >= 8")

CONVOLUTIONS = {
    "VALID": {},
    "SAME": {"padding": "SAME"},
    "SAME_LOWER, stride": {"padding": "SAME_LOWER", "stride": (2, 3)},
    "one-sided": {"padding": ((2, 0), (0, 1)), "stride": 2},
    "cropped": {"padding": ((-1, 2), (0, -1)), "stride": 2},
    "dilated": {"padding": 2, "dilation": 2},
    "groups": {"padding": 1, "groups": 2},
    "depthwise": {"padding": 1, "groups": 4, "stride": 2},
}
POOLINGS = {
    "tiles": {},
    "windows that overlap": {"stride": 2, "padding": 1},
    "gaps": {"stride": 4},
    "dilated": {"stride": 1, "padding": 2, "dilation": 2},
    "SAME": {"stride": 2, "padding": "SAME"},
    "ceil_mode": {"stride": 3, "ceil_mode": True},
}


def weights(options):
    return (3, 3, 4 // options.get("groups", 1), 4)


CASES = {
    **{
        f"conv2d, {name}": (
            partial(jaxcnn.conv2d, layout="NHWC", **options),
            (IMAGE, weights(options), (4,)),
        )
        for name, options in CONVOLUTIONS.items()
    },
    "conv2d, channels first": (
        partial(jaxcnn.conv2d, padding="SAME", stride=2),
        (("b", 4, "h", "w"), (6, 4, 3, 3)),
    ),
    "conv2d, replicated edges": (
        partial(jaxcnn.conv2d, layout="NHWC", padding=1, padding_mode="replicate"),
        (IMAGE, (3, 3, 4, 4)),
    ),
    "conv1d": (
        partial(jaxcnn.conv1d, padding="CAUSAL", layout="NWC"),
        (("b", "w", 4), (3, 4, 5)),
    ),
    "conv3d": (
        partial(jaxcnn.conv3d, padding=1, layout="NDHWC"),
        (("b", "h", 3, "w", 2), (3, 2, 3, 2, 3)),
    ),
    "conv_transpose2d": (
        partial(jaxcnn.conv_transpose2d, stride=2, padding=1, layout="NHWC"),
        (IMAGE, (3, 3, 5, 4)),
    ),
    **{
        f"{pool.__name__}, {name}": (
            partial(pool, kernel_size=3, layout="NHWC", **options),
            (IMAGE,),
        )
        for name, options in POOLINGS.items()
        for pool in (jaxcnn.max_pool2d, jaxcnn.avg_pool2d)
        if pool is jaxcnn.max_pool2d or name != "dilated"
    },
    **{
        f"{pool.__name__}, 9×9, stride {stride}": (
            partial(pool, kernel_size=9, stride=stride, padding=4, layout="NHWC"),
            (IMAGE,),
        )
        for pool in (jaxcnn.max_pool2d, jaxcnn.avg_pool2d)
        for stride in (1, 3)
    },
    **{
        f"{pool.__name__}, {layout}": (
            partial(pool, layout=layout),
            (IMAGE if layout == "NHWC" else ("b", 4, "h", "w"),),
        )
        for pool in (jaxcnn.global_max_pool, jaxcnn.global_avg_pool)
        for layout in ("NHWC", "NCHW")
    },
    "layer_norm": (
        lambda x, scale, shift: jaxcnn.layer_norm(x, 4, scale, shift),
        (IMAGE, (4,), (4,)),
    ),
    "lp_pool2d": (
        lambda x: jaxcnn.lp_pool2d(x**2 + 1, 3, 2, layout="NHWC"),
        (IMAGE,),
    ),
    "separable_conv2d": (
        partial(jaxcnn.separable_conv2d, padding=1, layout="NHWC"),
        (IMAGE, (3, 3, 1, 4), (1, 1, 4, 5)),
    ),
    "group_norm": (
        lambda x, scale, shift: jaxcnn.group_norm(x, 2, scale, shift, layout="NHWC"),
        (IMAGE, (4,), (4,)),
    ),
    "batch_norm": (
        lambda x, scale, shift: jaxcnn.batch_norm(
            x, None, None, scale, shift, training=True, layout="NHWC"
        )[0],
        (IMAGE, (4,), (4,)),
    ),
}


def in_both_modes(function):
    @jax.jit
    def compute(*arrays):
        y, pullback = jax.vjp(function, *arrays)
        _, dy = jax.jvp(function, arrays, arrays)
        return y, dy, pullback(jnp.sin(y))

    return compute


def described(shapes, constraints=AT_LEAST):
    """These shapes with symbols; JAX wants each symbol of a constraint to be in one."""
    used = [name for name in SIZES if any(name in shape for shape in shapes)]
    kept = [each for each in constraints if each[0] in used]
    symbols = export.symbolic_shape(", ".join(used), constraints=kept)
    symbols = dict(zip(used, symbols, strict=True))
    return [
        jax.ShapeDtypeStruct([symbols.get(size, size) for size in shape], "float32")
        for shape in shapes
    ]


@pytest.mark.parametrize("case", CASES)
def test_one_program_serves_images_of_every_size(case, rng):
    function, shapes = CASES[case]
    exported = export.export(in_both_modes(function), platforms=("cpu", "cuda", "tpu"))(
        *described(shapes)
    )
    for k in range(2):
        arrays = [
            np.float32(
                rng.standard_normal([SIZES[s][k] if s in SIZES else s for s in shape])
            )
            for shape in shapes
        ]
        # Float32: some hundred terms of order 1, added in another order.
        chex.assert_trees_all_close(
            exported.call(*arrays), in_both_modes(function)(*arrays), rtol=1e-4, atol=1e-4
        )


TOO_SMALL = {
    "a kernel that may not fit": (
        lambda x: jaxcnn.max_pool2d(x, 3, layout="NHWC"),
        r"perhaps more than the input.*constraints=\['h >= 8'",
    ),
    "a mirror that may be too short": (
        lambda x: jaxcnn.conv2d(
            x,
            jnp.ones((1, 1, 4, 1), x.dtype),
            padding=2,
            padding_mode="reflect",
            layout="NHWC",
        ),
        "padding_mode 'reflect' cannot fill",
    ),
    "the other end of an image": (
        lambda x: jaxcnn.conv2d(
            x,
            jnp.ones((1, 1, 4, 1), x.dtype),
            padding=1,
            padding_mode="circular",
            layout="NHWC",
        ),
        "size of the input must be known",
    ),
    "a pooling to a size": (
        lambda x: jaxcnn.adaptive_avg_pool2d(x, 3, layout="NHWC"),
        "positions must be numbers",
    ),
}


@pytest.mark.parametrize("case", TOO_SMALL)
def test_what_cannot_be_said_of_every_size_is_refused(case):
    function, message = TOO_SMALL[case]
    with pytest.raises(ValueError, match=message):
        export.export(jax.jit(function))(*described([IMAGE], constraints=()))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_serves_every_size_or_says_that_it_does_not(engine, rng):
    function = partial(jaxcnn.conv2d, padding=1, layout="NHWC", engine=engine)
    shapes = IMAGE, (3, 3, 4, 4)
    if engine not in ("equations", "canonical", "xla"):
        with pytest.raises(ValueError, match=f"engine is '{engine}', which"):
            export.export(jax.jit(function))(*described(shapes))
        return
    exported = export.export(jax.jit(function))(*described(shapes))
    X, W = (np.float32(rng.standard_normal(s)) for s in ((2, 9, 8, 4), shapes[1]))
    # Float32: 36 terms of order 1, added in another order.
    chex.assert_trees_all_close(exported.call(X, W), function(X, W), rtol=1e-5, atol=1e-5)
