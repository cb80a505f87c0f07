"""What programs cost, beside lax, where the compiled loops are not at hand."""

from functools import partial

import jax
import pytest

import jaxcnn
from experiments.benchmarking.random_problems import drawn
from experiments.peers import lax_operations
from jaxcnn.layout import LAYOUTS
from tests.accounts import account


@pytest.fixture(autouse=True)
def without_loops(monkeypatch):
    monkeypatch.setenv("JAXCNN_LOOPS", "0")
    jax.clear_caches()
    yield
    jax.clear_caches()


MOST_INSTRUCTIONS = 2000
"""A thousand take about a second to compile, and lax's programs have some 30."""

# (function, options, shape of x, of w), channels last: what once fell off a cliff.
CASES = {
    "long depthwise": ("conv1d", {"groups": 16}, (4, 200, 16), (31, 1, 16)),
    "longer depthwise": ("conv1d", {"groups": 16}, (4, 1000, 16), (31, 1, 16)),
    "large depthwise": (
        "conv2d",
        {"padding": 1, "groups": 64},
        (4, 512, 512, 64),
        (3, 3, 1, 64),
    ),
    "81 taps depthwise": (
        "conv2d",
        {"padding": 4, "groups": 64},
        (8, 28, 28, 64),
        (9, 9, 1, 64),
    ),
    "961 taps depthwise": (
        "conv2d",
        {"padding": 15, "groups": 32},
        (2, 56, 56, 32),
        (31, 31, 1, 32),
    ),
    "a depthwise volume": (
        "conv3d",
        {"padding": (2, 0, 0), "groups": 77},
        (48, 8, 16, 6, 77),
        (5, 1, 3, 1, 77),
    ),
    "far dilation": ("conv1d", {"dilation": 256}, (4, 4000, 16), (3, 16, 16)),
    "a volume": ("conv3d", {"padding": 1}, (1, 128, 128, 128, 32), (3, 3, 3, 32, 32)),
    "a large image": ("conv2d", {"padding": 1}, (1, 2048, 2048, 64), (3, 3, 64, 64)),
    "large, few channels": (
        "conv2d",
        {"padding": 3, "stride": 2},
        (4, 512, 512, 3),
        (7, 7, 3, 64),
    ),
    "large, few result channels": (
        "conv2d",
        {"padding": 1},
        (4, 512, 512, 64),
        (3, 3, 64, 3),
    ),
    "large, 1×1": ("conv2d", {}, (4, 512, 512, 64), (1, 1, 64, 64)),
    "large, a stride": (
        "conv2d",
        {"padding": 1, "stride": 2},
        (4, 512, 512, 32),
        (3, 3, 32, 64),
    ),
    "3→24 channels": ("conv2d", {"padding": 2}, (32, 32, 32, 3), (5, 5, 3, 24)),
    "225 taps": ("conv2d", {"padding": 7}, (2, 32, 32, 16), (15, 15, 16, 16)),
    "1000 taps": ("conv1d", {"padding": 500}, (2, 4000, 4), (1000, 4, 4)),
    "16 groups": ("conv2d", {"padding": 1, "groups": 16}, (8, 28, 28, 64), (3, 3, 4, 64)),
}


def is_bounded(ours, lax, *shapes, dtype="float32"):
    instructions, temporary = account(ours, *shapes, dtype=dtype)
    _, theirs = account(lax, *shapes, dtype=dtype)
    assert instructions < MOST_INSTRUCTIONS
    assert temporary < 1.5 * theirs or temporary < theirs + 2**25


IN_FLOAT64 = "3→24 channels", "81 taps depthwise"
PAIRS = [(case, "float32") for case in CASES] + [(case, "float64") for case in IN_FLOAT64]


@pytest.mark.parametrize(("case", "dtype"), PAIRS)
def test_what_once_fell_off_a_cliff_compiles_and_takes_little_memory(case, dtype):
    name, options, x, w = CASES[case]
    known = {"layout": LAYOUTS[len(x) - 2][1], **options}
    ours = partial(getattr(jaxcnn, name), **known)
    with jax.enable_x64(dtype == "float64"):
        is_bounded(ours, partial(lax_operations.conv, **known), x, w, dtype=dtype)


def test_a_layer_under_vmap_costs_no_more():
    def layers(conv, x, w):
        return jax.vmap(partial(conv, layout="NHWC"))(x, w)

    shapes = (8, 4, 28, 28, 1), (8, 5, 5, 1, 6)
    ours, lax = (partial(layers, conv) for conv in (jaxcnn.conv2d, lax_operations.conv))
    is_bounded(ours, lax, *shapes)


PROBLEMS = drawn(27, seed=19)


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_random_problems_compile_and_take_little_memory(number):
    problem = PROBLEMS[number]
    shapes = [shape for name, shape in problem.shapes.items() if name != "dy"]
    layout = LAYOUTS[len(problem.size)][1]
    functions = (partial(each, layout=layout) for each in problem.functions.values())
    lax, ours = functions
    is_bounded(ours, lax, *shapes)
