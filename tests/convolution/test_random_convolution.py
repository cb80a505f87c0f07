"""Every kind of convolution in random cases: XLA's numbers and PyTorch's.

The normal run takes the same few cases every time, and a run with ``-m slow`` hundreds.
"""

import jax
import numpy as np

import jaxcnn
from tests.random_cases import strategies
from tests.random_cases.cases import (
    agree,
    answers_of,
    channels_first,
    close,
    every_number,
    every_oracle,
    for_every,
    given_arrays,
    ours,
)


@every_oracle
@every_number
def test_convolution_and_its_gradients_are_theirs(oracle, number):
    their = answers_of(oracle).convolution
    for_every(
        strategies.convolutions(),
        number,
        lambda case: agree(ours(case), their(case), convolved=True),
    )


def gradients_alone(case):
    """What the three gradients are as functions of their own."""
    n = len(case.size)
    bias, weight, image = (
        getattr(jaxcnn, f"conv{n}d_{each}_gradient") for each in ("bias", "weight", "input")
    )

    @jax.jit
    def computed(dy, x, w, *b):
        options = {**case.written, "layout": case.layout}
        dx = image(dy, w, case.size, **options)
        dw = weight(x, dy, case.window.kernel_size, **options)
        return dx, dw, *(bias(dy, layout=case.layout) for _ in b)

    operands, dy = given_arrays(case)
    return channels_first(jax.tree.map(np.asarray, computed(dy, *operands)), case)


@every_oracle
@every_number
def test_the_gradients_as_functions_are_theirs(oracle, number):
    their = answers_of(oracle).convolution
    for_every(
        strategies.convolutions(is_plain=True),
        number,
        lambda case: close(gradients_alone(case), their(case).gradients, convolved=True),
    )


@every_oracle
@every_number
def test_separable_convolution_and_its_gradients_are_theirs(oracle, number):
    their = answers_of(oracle).separable_convolution
    for_every(
        strategies.separable_convolutions(),
        number,
        lambda case: agree(ours(case), their(case), convolved=True),
    )


@every_oracle
@every_number
def test_transposed_convolution_and_its_gradients_are_theirs(oracle, number):
    their = answers_of(oracle).transposed_convolution
    for_every(
        strategies.transposed_convolutions(),
        number,
        lambda case: agree(ours(case), their(case), convolved=True),
    )
