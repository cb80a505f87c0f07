"""What poolings cost by the engine that serves where there are no compiled loops."""

import functools
import math

import numpy as np
import pytest

import jaxcnn
from jaxcnn.layout import LAYOUTS
from tests.accounts import account

# (pooling, shape of x, options): windows that were too large to be written out, or nearly.
CASES = {
    "max, 8×8": (jaxcnn.max_pool2d, (4, 40, 40, 16), {"kernel_size": 8, "stride": 1}),
    "max, 14×15": (
        jaxcnn.max_pool2d,
        (4, 40, 40, 16),
        {"kernel_size": (14, 15), "stride": 2, "padding": 7},
    ),
    "max, 31×31": (jaxcnn.max_pool2d, (2, 50, 50, 8), {"kernel_size": 31, "stride": 3}),
    "max, long": (
        jaxcnn.max_pool1d,
        (4, 3000, 16),
        {"kernel_size": 200, "stride": 1, "padding": 100},
    ),
    "max, long, strided": (
        jaxcnn.max_pool1d,
        (4, 3000, 16),
        {"kernel_size": 200, "stride": 30},
    ),
    "max, 3-D": (jaxcnn.max_pool3d, (2, 16, 17, 18, 8), {"kernel_size": 6, "stride": 2}),
    "average, 2×2": (
        jaxcnn.avg_pool2d,
        (4, 64, 64, 16),
        {"kernel_size": 2, "stride": 1, "padding": (1, 0)},
    ),
    "average, 7×7": (
        jaxcnn.avg_pool2d,
        (4, 64, 64, 16),
        {"kernel_size": 7, "stride": 1, "padding": 3},
    ),
    "average, 33×33": (
        jaxcnn.avg_pool2d,
        (4, 64, 64, 16),
        {"kernel_size": 33, "stride": 2},
    ),
    "average, long": (
        jaxcnn.avg_pool1d,
        (4, 5000, 16),
        {"kernel_size": 1000, "stride": 1, "padding": 500, "count_include_pad": False},
    ),
    "average, 3-D": (
        jaxcnn.avg_pool3d,
        (2, 16, 17, 18, 8),
        {"kernel_size": (11, 10, 9), "stride": (1, 2, 3)},
    ),
}


@functools.cache
def account_of(case):
    pool, shape, options = CASES[case]
    layout = LAYOUTS[len(shape) - 2][1]
    pool = functools.partial(pool, engine="pooled", layout=layout, **options)
    return account(pool, shape)


@pytest.mark.parametrize("case", CASES)
def test_no_more_is_compiled_for_many_taps_than_for_64(case):
    instructions, _ = account_of(case)
    assert instructions < (1200 if case.startswith("max") else 200)


@pytest.mark.parametrize("case", CASES)
def test_what_is_temporary_is_a_few_times_the_image(case):
    _, temporary = account_of(case)
    _, shape, _ = CASES[case]
    assert temporary < 5 * math.prod(shape) * np.dtype("float32").itemsize
