"""How ``vmap`` folds the sums.

A convolution's three sums are one product of three arrays (:mod:`jaxcnn.convolution.rule`).
``vmap`` adds an axis to one of the arguments or to both. Folded into an axis that the sum
already has, it turns many small sums into a large one:

    which argument is mapped              the axis is folded into
    one; it shares with the result only   b, the batch (X and Y)
                                          i, the input channels (X and W)
                                          o, the output channels (Y and W)
    both                                  g, the groups (all three)

A pooling treats all images alike: there the axis is folded into the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxcnn import plan
from jaxcnn.layout import Length, Numbers, grouped, merge_axes, split_axis, weight_layout
from jaxcnn.problem import PATCH_ROLES, ROLES, Problem
from jaxcnn.sharding import with_auto_axes

# --- Convolution ----------------------------------------------------------------------

LETTERS = {"x": {"b", "i"}, "w": {"o", "i"}, "y": {"b", "o"}}
"""The indices of each array, the groups' g aside, which all three have."""


def common_dtype(
    first: Numbers, second: Numbers, problem: Problem
) -> tuple[Numbers, Numbers]:
    """Two operands in one dtype: the wider of theirs.

    They differ where the output's preferred dtype is wider than the input's: its gradient
    then is, too. For a result in float64 all sums are computed in float64.
    """
    dtypes = [first.dtype, second.dtype]
    if problem.preferred is not None and jnp.dtype(problem.preferred).itemsize > 4:
        dtypes.append(jnp.dtype(problem.preferred))
    widest = max(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize)
    return first.astype(widest), second.astype(widest)


def mapped_convolution(
    sum_name: str, first: Numbers, second: Numbers, problem: Problem
) -> Numbers:
    """One of the three sums, by the engine that the plan chooses; ``vmap`` folds it."""
    first, second = common_dtype(first, second, problem)
    plan.record(sum_name, problem, first, second)
    *of_operands, of_result = ROLES[sum_name]
    return with_auto_axes(
        _convolution_that_folds(sum_name, problem),
        [_indices(role, problem) for role in of_operands],
        _indices(of_result, problem),
        first,
        second,
    )


def _indices(role: str, problem: Problem) -> list[str | None]:
    """The index b, i or o of every axis of an array; None for spatial ones.

    With several groups it is None for the input channels of the weights, too: those are
    the channels of one group.
    """
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    known = {"N": "b", "C": "i" if role == "x" else "o", "O": "o"}
    if problem.groups == 1:
        known["I"] = "i"
    return [known.get(letter) for letter in layout]


@lru_cache(maxsize=4096)
def _convolution_that_folds(sum_name: str, problem: Problem) -> Callable[..., Numbers]:
    """One of the three sums as a function of two arrays that ``vmap`` folds.

    Compiled and remembered, so that calls outside of ``jit`` do not trace it anew.
    """

    @custom_vmap
    def the_sum(first: Numbers, second: Numbers) -> Numbers:
        return plan.compute(sum_name, problem, first, second)

    @the_sum.def_vmap
    def fold_the_mapped_axis(
        axis_size: Length, is_mapped: Sequence[bool], first: Numbers, second: Numbers
    ) -> tuple[Numbers, bool]:
        first_role, second_role, result_role = ROLES[sum_name]
        first_mapped, second_mapped = is_mapped
        letter, folded = "g", replace(problem, groups=problem.groups * axis_size)
        if not (first_mapped and second_mapped):
            folded = problem
            mapped, other = (
                (first_role, second_role) if first_mapped else (second_role, first_role)
            )
            (letter,) = LETTERS[mapped] & LETTERS[result_role] - LETTERS[other]
        if first_mapped:
            first = _fold(first, first_role, letter, problem)
        if second_mapped:
            second = _fold(second, second_role, letter, problem)
        result = mapped_convolution(sum_name, first, second, folded)
        return _unfold(result, axis_size, result_role, letter, problem), True

    return jax.jit(the_sum)


def _fold(array: Numbers, role: str, letter: str, problem: Problem) -> Numbers:
    """(V, …) to (…): the mapped axis V becomes part of the axis that holds ``letter``."""
    axis, outer = _place(role, letter, problem)
    array = split_axis(array, axis + 1, outer, array.shape[axis + 1] // outer)
    return merge_axes(jnp.moveaxis(array, 0, axis + 1), axis, 3)


def _unfold(
    array: Numbers, axis_size: Length, role: str, letter: str, problem: Problem
) -> Numbers:
    """The inverse of :func:`_fold`."""
    axis, outer = _place(role, letter, problem)
    inner = array.shape[axis] // (outer * axis_size)
    array = split_axis(array, axis, outer, axis_size, inner)
    return merge_axes(jnp.moveaxis(array, axis + 1, 0), axis + 1, 2)


def _place(role: str, letter: str, problem: Problem) -> tuple[int, int]:
    """Which axis holds an index, and how many groups that axis is split into first."""
    layout = weight_layout(problem.layout) if role == "w" else problem.layout
    if letter == "b":
        return layout.index("N"), 1
    if role == "w" and letter == "i":
        return layout.index("I"), 1
    return layout.index("O" if role == "w" else "C"), problem.groups


# --- Pooling --------------------------------------------------------------------------


def mapped_pooling(name: str, problem: Problem, *operands: Numbers) -> Any:
    """A pooling, by the engine that the plan chooses; ``vmap`` adds to its batch."""
    plan.record(name, problem, *operands)
    *of_operands, of_result = PATCH_ROLES.get(name, ("x",) * (len(operands) + 1))
    return with_auto_axes(
        _pooling_that_folds(name, problem),
        [_images_and_channels(role, problem.layout) for role in of_operands],
        _images_and_channels(of_result, problem.layout),
        *operands,
    )


def _images_and_channels(role: str, layout: str) -> list[str | None]:
    """The axes N and C of an array by name, for :func:`jaxcnn.sharding.with_auto_axes`."""
    letters = grouped(layout) if role == "p" else layout
    return [letter if letter in "NC" else None for letter in letters]


@lru_cache(maxsize=4096)
def _pooling_that_folds(name: str, problem: Problem) -> Callable[..., Any]:
    """One of the poolings as a function of arrays that ``vmap`` folds into the batch.

    Compiled and remembered, so that calls outside of ``jit`` do not trace it anew.
    """
    batch = problem.layout.index("N")

    @custom_vmap
    def pool(*operands: Numbers) -> Any:
        return plan.compute(name, problem, *operands)

    @pool.def_vmap
    def fold_into_the_batch(
        axis_size: Length, is_mapped: Sequence[bool], *operands: Numbers
    ) -> tuple[Any, Any]:
        all_mapped = [
            operand if mapped else jnp.broadcast_to(operand, (axis_size, *operand.shape))
            for operand, mapped in zip(operands, is_mapped, strict=True)
        ]
        folded = [
            merge_axes(jnp.moveaxis(operand, 0, batch), batch, 2) for operand in all_mapped
        ]
        results = pool(*folded)
        unfolded = jax.tree.map(
            lambda r: jnp.moveaxis(split_axis(r, batch, axis_size, -1), batch, 0),
            results,
        )
        return unfolded, jax.tree.map(lambda _: True, results)

    return jax.jit(pool)
