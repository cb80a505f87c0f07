"""Arguments: what a user may write, and what it means. What not: see test_errors."""

import numpy as np
import pytest

from jaxcnn.arguments import window_over
from jaxcnn.window import Window


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        (-1, ((-1, -1), (-1, -1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (0, -3)), ((1, 2), (0, -3))),
        ([[1, 2], [0, 3]], ((1, 2), (0, 3))),
        ((np.int64(1), 2), ((1, 1), (2, 2))),
        # A window of 3 that moves by 2 over 8 and 9 needs 9 for four steps and for five 11.
        ("SAME", ((0, 1), (1, 1))),
        ("SAME_LOWER", ((1, 0), (1, 1))),
        ("VALID", ((0, 0), (0, 0))),
    ],
)
def test_every_form_of_padding_means_low_and_high_pairs(padding, pairs):
    assert window_over((8, 9), 3, stride=2, padding=padding).padding == pairs


def test_ints_stand_for_every_dimension():
    window = window_over((9, 9, 9), 2, stride=3, dilation=np.int32(4))
    assert window == Window((2,) * 3, (3,) * 3, ((0, 0),) * 3, (4,) * 3)


def test_a_window_that_just_fits_is_accepted():
    assert window_over((2,), 3, padding=((0, 3),), dilation=2).output_size((2,)) == (1,)
