"""Every kind of pooling, and patches, in random cases: XLA's numbers and PyTorch's.

The normal run takes the same few cases every time, and a run with ``-m slow`` hundreds.
PyTorch knows no names of paddings, none that differ from side to side, no dilation of
averages, no padding of power averages and no patches of volumes: it is asked what it knows,
its ``ceil_mode`` with the windows at the edge among it, and XLA is asked everything.
"""

from tests.random_cases import windows as strategies
from tests.random_cases.cases import (
    agree,
    agree_to_the_bit,
    answers_of,
    every_number,
    every_oracle,
    for_every,
    ours,
)


@every_oracle
@every_number
def test_max_pooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).max_pooling
    for_every(
        strategies.pools("max_pool", is_torchs=oracle == "torch"),
        number,
        lambda case: agree_to_the_bit(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_max_unpooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).max_unpooling
    for_every(
        strategies.unpools(), number, lambda case: agree_to_the_bit(ours(case), their(case))
    )


@every_oracle
@every_number
def test_average_pooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).average_pooling
    for_every(
        strategies.pools("avg_pool", is_torchs=oracle == "torch"),
        number,
        lambda case: agree(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_power_average_pooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).power_pooling
    for_every(
        strategies.pools("lp_pool", is_torchs=oracle == "torch"),
        number,
        lambda case: agree(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_adaptive_max_pooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).adaptive_max_pooling
    for_every(
        strategies.adaptive_pools("adaptive_max_pool"),
        number,
        lambda case: agree_to_the_bit(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_adaptive_average_pooling_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).adaptive_average_pooling
    for_every(
        strategies.adaptive_pools("adaptive_avg_pool"),
        number,
        lambda case: agree(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_unfolding_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).unfolding
    for_every(
        strategies.patches(strategies.unfolded, 2 if oracle == "torch" else 3),
        number,
        lambda case: agree_to_the_bit(ours(case), their(case)),
    )


@every_oracle
@every_number
def test_folding_and_its_gradient_are_theirs(oracle, number):
    their = answers_of(oracle).folding
    for_every(
        strategies.patches(strategies.folded, 2 if oracle == "torch" else 3),
        number,
        lambda case: agree(ours(case), their(case)),
    )
