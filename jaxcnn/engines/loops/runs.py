"""Where a window meets an image: the geometry of the loops, in one dimension.

Position i of the result sees, through tap m, position s·i + d·m − p of the source, if there
is such a one. At the borders some taps see nothing. So the positions are divided into runs,
within which all positions see through the same taps:

    kernel of 3, padding 1, 6 positions          taps 0 1 2
                                         run 0        · x x      position 0
                                         run 1        x x x      positions 1 to 4
                                         run 2        x x ·      position 5

Within a run no loop has to look for borders, and no padded copy of the image is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from jaxcnn.window import Window


@dataclass(frozen=True)
class Run:
    """Positions of a result, and the taps through which all of them see.

    The k-th position is first + step·k. Through the t-th tap, tap + tap_step·t, it sees
    position source + source_step·k + source_per_tap·t.
    """

    first: int
    count: int
    step: int
    source: int
    source_step: int
    tap: int
    taps: int
    tap_step: int
    source_per_tap: int

    def rotated(self, kernel_size: int) -> "Run":
        """The same for a kernel whose taps are counted from the last, K − 1 − m."""
        last = max(self.taps - 1, 0)
        return replace(
            self,
            source=self.source + last * self.source_per_tap,
            tap=kernel_size - 1 - (self.tap + last * self.tap_step),
            source_per_tap=-self.source_per_tap,
        )


ONE = Run(0, 1, 1, 0, 1, 0, 1, 1, 1)
"""A dimension that is not there."""


def most(window: Window, input_size: Sequence[int], is_transposed: bool) -> int:
    """No more runs than this are there, in all dimensions together.

    They are positions at an edge, and what is between; of inputs, between for each of s.
    """
    outputs = window.output_size(input_size)
    each = zip(
        window.extent, window.stride, window.padding, input_size, outputs, strict=True
    )
    if is_transposed:
        return prod(min(size, s + 2 * extent) for extent, s, _, size, _ in each)
    return prod(
        min(out, 1 + sum(-(-max(edge, 0) // s) for edge in edges))
        for _, s, edges, _, out in each
    )


def over_outputs(k: int, s: int, d: int, p: int, size: int, out: int) -> list[Run]:
    """What output positions see of the input: s·i + d·m − p.

    >>> runs = over_outputs(3, 1, 1, 1, 6, 6)
    >>> [(run.first, run.count, run.tap, run.taps) for run in runs]
    [(0, 1, 1, 2), (1, 4, 0, 3), (5, 1, 0, 2)]
    """
    start = s * np.arange(out) - p
    first = np.clip(-(start // d), 0, k)
    after = np.clip((size - 1 - start) // d + 1, 0, k)
    return [
        Run(i, n, 1, s * i + d * tap - p, s, tap, taps, 1, d)
        for i, n, tap, taps in _alike(first, after)
    ]


def over_inputs(k: int, s: int, d: int, p: int, size: int, out: int) -> list[Run]:
    """What input positions see of the output: (k + p − d·m)/s, where it is a whole number.

    Of s neighbours each is seen through other taps: those with d·m ≡ k + p modulo s.

    >>> for run in over_inputs(3, 2, 1, 0, 7, 3):
    ...     seen = f"sees {run.source} by {run.tap} {run.taps}"
    ...     print(run.first, run.count, run.step, seen)
    0 1 2 sees 0 by 0 1
    2 2 2 sees 1 by 0 2
    6 1 2 sees 2 by 2 1
    1 3 2 sees 0 by 1 1
    """
    runs = []
    common = gcd(d, s)
    period, back = s // common, d // common
    for k0 in range(min(s, size)):
        count = -(-(size - k0) // s)
        tap = next((m for m in range(min(k, period)) if (k0 + p - d * m) % s == 0), None)
        if tap is None:
            runs.append(Run(k0, count, s, 0, 1, 0, 0, 1, 1))
            continue
        taps = -(-(k - tap) // period)
        nearest = (k0 + p - d * tap) // s + np.arange(count)
        first = np.clip(-((out - 1 - nearest) // back), 0, taps)
        after = np.clip(nearest // back + 1, 0, taps)
        runs += [
            Run(
                k0 + s * q,
                n,
                s,
                int(nearest[q]) - back * t,
                1,
                tap + period * t,
                seen,
                period,
                -back,
            )
            for q, n, t, seen in _alike(first, after)
        ]
    return runs


def _alike(first: np.ndarray, after: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Runs of neighbours with the same taps: where it begins, how long it is, its taps."""
    taps = np.maximum(after - first, 0)
    first = np.where(taps == 0, 0, first)
    changes = np.flatnonzero((np.diff(first) != 0) | (np.diff(taps) != 0)) + 1
    starts = [0, *changes.tolist()] if len(taps) else []
    ends = [*starts[1:], len(taps)]
    return [
        (start, end - start, int(first[start]), int(taps[start]))
        for start, end in zip(starts, ends, strict=True)
    ]
