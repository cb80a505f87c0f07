"""What :mod:`experiments.compare_gradients` compares: every operation, many ways.

The configurations of each public operation: those in which its gradients are compared, and
one that is large enough to be timed. With what a configuration's call is made is drawn in
:mod:`experiments.gradients.arguments`.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from experiments.gradients import arguments
from experiments.gradients.arguments import ties
from experiments.gradients.case import Case, Configurations, Operation
from jaxcnn.layout import LAYOUTS


def cases(operation: str, seed: int, most: int | None = None) -> Iterator[Case]:
    """The cases of an operation: all, or at most so many."""
    rng = np.random.default_rng(seed)
    described = OPERATIONS[operation]
    for name, configuration in list(described.compared.items())[:most]:
        yield described.case(rng, operation, name, configuration)


def timed_case(operation: str, seed: int) -> Case:
    """The case of an operation that is large enough to be timed."""
    described = OPERATIONS[operation]
    return described.case(np.random.default_rng(seed), operation, "timed", described.timed)


# --- Configurations -------------------------------------------------------------------


def in_both_layouts(configurations: Configurations, dimensions: int = 2) -> Configurations:
    return {
        f"{name}, {layout}": {**configuration, "layout": layout}
        for name, configuration in configurations.items()
        for layout in LAYOUTS[dimensions]
    }


def in_turns(
    configurations: Configurations, first: int = 0, dimensions: int = 2
) -> Configurations:
    """One in one layout, the next in the other: half the time of both."""
    layouts = LAYOUTS[dimensions]
    return {
        f"{name}, {layouts[i % 2]}": {**configuration, "layout": layouts[i % 2]}
        for i, (name, configuration) in enumerate(configurations.items(), first)
    }


CONVOLUTIONS: Configurations = {
    "stride 2, padding 1": {"stride": 2, "padding": 1},
    "stride 1": {},
    "stride 3, padding 1": {"stride": 3, "padding": 1},
    "stride 3, kernel 2×2": {"stride": 3, "kernel_size": (2, 2)},
    "stride (2, 1), kernel 2×3": {"stride": (2, 1), "kernel_size": (2, 3)},
    "stride 2, last row unseen": {"stride": 2, "size": (8, 8)},
    "SAME, stride 2, kernel 4×4": {"padding": "SAME", "stride": 2, "kernel_size": (4, 4)},
    "SAME_LOWER, kernel 2×4": {"padding": "SAME_LOWER", "kernel_size": (2, 4)},
    "padding ((0, 2), (1, 0))": {"padding": ((0, 2), (1, 0))},
    "padding ((-1, 0), (1, -2))": {"padding": ((-1, 0), (1, -2))},
    "padding 4, kernel 3×2": {"padding": 4, "kernel_size": (3, 2)},
    "dilation (2, 3), padding 2": {"dilation": (2, 3), "padding": 2},
    "dilation 2, stride 2": {"dilation": 2, "stride": 2},
    "groups 2, padding 1": {"groups": 2, "channels": (4, 6), "padding": 1},
    "depthwise, stride 2": {"groups": 3, "channels": (3, 6), "stride": 2},
    "kernel 1×1": {"kernel_size": (1, 1)},
    "kernel 1×1, stride 2": {"kernel_size": (1, 1), "stride": 2},
    "kernel as large as the image": {"kernel_size": (7, 9)},
}

IN_OTHER_DIMENSIONS: Configurations = {
    "stride 2, padding 1": {"stride": 2, "padding": 1},
    "dilation 2, SAME": {"dilation": 2, "padding": "SAME"},
    "groups 2": {"groups": 2, "channels": (4, 6)},
}

PADDED_WITH_ITSELF: Configurations = {
    mode: {"padding": 1, "padding_mode": mode}
    for mode in ("reflect", "replicate", "circular")
}

DEPTHWISE: Configurations = {
    "padding 1": {"padding": 1},
    "SAME, stride 2": {"padding": "SAME", "stride": 2},
    "dilation 2, stride 2, padding 2": {"dilation": 2, "stride": 2, "padding": 2},
}

TRANSPOSED: Configurations = {
    "stride 2, padding 1, output padding 1": {
        "stride": 2,
        "padding": 1,
        "output_padding": 1,
    },
    "stride 1": {},
    "dilation 2": {"dilation": 2},
    "groups 2, stride 3": {"groups": 2, "stride": 3},
    "SAME, stride 2": {"padding": "SAME", "stride": 2},
}

PATCHES: Configurations = {
    "3×3, stride 2, padding 1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "2×3": {"kernel_size": (2, 3)},
    "3×3, dilation 2": {"kernel_size": 3, "dilation": 2},
}

POOL_3X3 = {"kernel_size": 3, "stride": 2, "padding": 1}

POOLINGS: Configurations = {
    "3×3, stride 2, padding 1": POOL_3X3,
    "2×2": {"kernel_size": 2},
    "3×3, stride 1": {"kernel_size": 3, "stride": 1},
    "2×2, stride 3": {"kernel_size": 2, "stride": 3},
    "2×3, stride (1, 2)": {"kernel_size": (2, 3), "stride": (1, 2)},
    "4×4, SAME, stride 2": {"kernel_size": 4, "stride": 2, "padding": "SAME"},
    "4×4, SAME_LOWER, stride 2": {"kernel_size": 4, "stride": 2, "padding": "SAME_LOWER"},
    "3×2, padding ((1, 0), (0, 1))": {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1))},
    "as large as the image": {"kernel_size": (7, 9)},
}

MAXIMA: Configurations = {
    "2×2, dilation 2": {"kernel_size": 2, "stride": 1, "dilation": 2},
    "3×3, stride 2, sizes rounded up": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
}

TIES: Configurations = {"ties, 3×3, stride 2": {**POOL_3X3, "values": ties}}

UNCOUNTED: Configurations = {
    f"{name}, uncounted": {**configuration, "count_include_pad": False}
    for name, configuration in {
        "3×3, padding 1": POOL_3X3,
        "((1, 0), (0, 1))": {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1))},
        "4×4, SAME": {"kernel_size": 4, "stride": 2, "padding": "SAME"},
        "4×4, SAME_LOWER": {"kernel_size": 4, "stride": 2, "padding": "SAME_LOWER"},
    }.items()
}

POWERS: Configurations = {
    "p = 2, 3×3, stride 2": {"norm_type": 2, "kernel_size": 3, "stride": 2},
    "p = 3, 2×2": {"norm_type": 3, "kernel_size": 2, "values": arguments.positive},
}

POOLINGS_ELSEWHERE: Configurations = {
    "3, stride 2, padding 1": POOL_3X3,
    "2, SAME": {"kernel_size": 2, "stride": 1, "padding": "SAME"},
}

SOFTMAXES: Configurations = {
    "4×10": {"shape": (4, 10)},
    "axis 1 of 2×5×3": {"shape": (2, 5, 3), "axis": 1},
    "logits of scale 10": {"shape": (4, 10), "scale": 8},
}

IMAGES = {"batch": 16, "size": (32, 32), "layout": "NHWC"}
SEQUENCES = {"batch": 16, "size": (1024,), "layout": "NWC"}
VOLUMES = {"batch": 4, "size": (16, 16, 16), "layout": "NDHWC"}
TIMED = {1: SEQUENCES, 2: IMAGES, 3: VOLUMES}
ELEMENTS = {"shape": (16, 32, 32, 32), "values": arguments.normal}


def convolutions() -> Iterator[tuple[str, Operation]]:
    """Everything that slides weights over images, in one to three dimensions."""
    for n, timed in TIMED.items():
        both, turns = (partial(each, dimensions=n) for each in (in_both_layouts, in_turns))
        is_2d = n == 2
        of_all = CONVOLUTIONS if is_2d else IN_OTHER_DIMENSIONS
        more = PADDED_WITH_ITSELF | {"no bias": {"bias": False}, "one image": {"batch": 1}}
        compared = (both(of_all) if is_2d else turns(of_all)) | turns(more if is_2d else {})
        timed_3x3 = {**timed, "channels": (16, 32), "padding": 1}
        yield f"conv{n}d", Operation(arguments.convolution, compared, timed_3x3)
        yield (
            f"conv{n}d_bias_gradient",
            Operation(
                arguments.bias_gradient, both({"of images": {}}), {**timed, "channels": 32}
            ),
        )
        for first, which in enumerate(("weight", "input")):
            gradient = Operation(arguments.convolution, turns(of_all, first), timed_3x3)
            yield f"conv{n}d_{which}_gradient", gradient
        yield (
            f"conv_transpose{n}d",
            Operation(
                arguments.transposed,
                both(TRANSPOSED) if is_2d else turns(TRANSPOSED),
                {**timed, "channels": (32, 16), "stride": 2, "padding": 1},
            ),
        )
        for kind in "depthwise", "separable":
            timed_of_kind = {**timed, "channels": (32, 64), "padding": 1}
            separate = Operation(arguments.convolution, turns(DEPTHWISE), timed_of_kind)
            yield f"{kind}_conv{n}d", separate


def poolings() -> Iterator[tuple[str, Operation]]:
    """Everything that makes one number of many positions, and back."""
    for n, timed in TIMED.items():
        both, turns = (partial(each, dimensions=n) for each in (in_both_layouts, in_turns))
        is_2d = n == 2
        windows = POOLINGS if is_2d else POOLINGS_ELSEWHERE
        timed_2x2 = {**timed, "channels": 32, "kernel_size": 2}
        maxima = turns(windows | MAXIMA) | both(TIES)
        yield f"max_pool{n}d", Operation(arguments.pooling, maxima, timed_2x2)
        averages = windows | (UNCOUNTED if is_2d else {})
        yield f"avg_pool{n}d", Operation(arguments.pooling, turns(averages, 1), timed_2x2)
        powers = Operation(arguments.pooling, turns(POWERS), {**timed_2x2, "norm_type": 2})
        yield f"lp_pool{n}d", powers
        unpooled = both({"2, side by side": {"kernel_size": 2, "size": (4, 6, 4)[:n]}})
        yield f"max_unpool{n}d", Operation(arguments.unpooling, unpooled, timed_2x2)
        bins = {f"{k} bins": {"output_size": k} for k in (2, 3)}
        timed_bins = {**timed, "channels": 32, "output_size": 7}
        for kind in "avg", "max":
            adaptive = Operation(arguments.pooling, both(bins), timed_bins)
            yield f"adaptive_{kind}_pool{n}d", adaptive
    for kind in "avg", "max":
        whole = Operation(
            arguments.pooling, in_both_layouts({"7×9": {}}), {**IMAGES, "channels": 32}
        )
        yield f"global_{kind}_pool", whole


def normalizations() -> Iterator[tuple[str, Operation]]:
    shape, timed = (
        {"shape": (3, 4, (3, 5))},
        {"shape": (16, 32, (32, 32)), "layout": "NHWC"},
    )
    for name, options in (
        ("batch_norm", {"training": True}),
        ("group_norm", {"groups": 2}),
        ("instance_norm", {}),
    ):
        compared = in_both_layouts({"3 of 4×3×5": shape | options})
        if name == "batch_norm":
            after = shape | {"training": False}
            compared |= in_turns({"running statistics": after})
        yield name, Operation(arguments.normalization, compared, timed | options)
    yield (
        "layer_norm",
        Operation(
            arguments.normalization,
            {
                "3×4 of 2×3×4": {"shape": (2, 3, 4), "normalized_shape": (3, 4)},
                "7 of 5×7": {"shape": (5, 7), "normalized_shape": (7,)},
            },
            {"shape": (512, 1024), "normalized_shape": (1024,)},
        ),
    )


def activations() -> Iterator[tuple[str, Operation]]:
    plain: Configurations = {"4×10": {}}
    options: dict[str, Configurations] = {
        "relu": {"ties (zeros)": {"values": ties}},
        "leaky_relu": {"slope 0.25": {"negative_slope": 0.25}},
        "elu": {"α = 0.5": {"alpha": 0.5}},
        "hard_swish": {},
        "gelu": {"by tanh": {"approximate": "tanh"}},
        "sigmoid": {},
        "silu": {},
        "softplus": {"β = 2": {"beta": 2.0}},
        "tanh": {},
    }
    for name, more in options.items():
        yield name, Operation(arguments.elementwise, plain | more, ELEMENTS)


OPERATIONS = {
    **dict(convolutions()),
    "unfold": Operation(
        arguments.unfolding,
        in_both_layouts(PATCHES)
        | in_turns({"3, stride 2": {"kernel_size": 3, "stride": 2}}, dimensions=1)
        | in_turns({"2×2×2": {"kernel_size": 2}}, dimensions=3),
        {**IMAGES, "channels": 32, "kernel_size": 3, "padding": 1},
    ),
    **dict(poolings()),
    **dict(normalizations()),
    **dict(activations()),
    "dropout": Operation(
        arguments.dropping,
        {"p = 0.25": {"shape": (4, 10), "p": 0.25}},
        {"shape": ELEMENTS["shape"], "p": 0.5},
    ),
    "dense": Operation(
        arguments.dense,
        {
            "5×7 to 5×3": {"x_shape": (5, 7), "outputs": 3},
            "no bias": {"x_shape": (5, 7), "outputs": 3, "bias": False},
            "2×3×4 to 2×3×5": {"x_shape": (2, 3, 4), "outputs": 5},
            "a single vector": {"x_shape": (7,), "outputs": 3},
        },
        {"x_shape": (512, 1024), "outputs": 256},
    ),
    "softmax": Operation(arguments.softmaxes, SOFTMAXES, {"shape": (1024, 1000)}),
    "log_softmax": Operation(arguments.softmaxes, SOFTMAXES, {"shape": (1024, 1000)}),
    "softmax_cross_entropy": Operation(
        arguments.cross_entropy,
        {
            "4×10": {"shape": (4, 10)},
            "2×3×5": {"shape": (2, 3, 5)},
            "logits of scale 10": {"shape": (4, 10), "scale": 8},
            "smoothed": {"shape": (4, 10), "label_smoothing": 0.25},
        },
        {"shape": (1024, 1000)},
    ),
    "mse_loss": Operation(
        arguments.loss, {"4×10": {"shape": (4, 10)}}, {"shape": (1024, 1000)}
    ),
    "binary_cross_entropy_with_logits": Operation(
        arguments.loss, {"4×10": {"shape": (4, 10)}}, {"shape": (1024, 1000)}
    ),
}
OPERATIONS["fold"] = OPERATIONS["unfold"]
"""All that is public and has a gradient."""
