"""The ways of computing the sums, one file each.

An engine is a module with the functions of :mod:`jaxcnn.equations`, or with those that it
is good for: the same names, signatures and results. Its function ``refuses`` says why a
problem is not for it. :mod:`jaxcnn.plan` chooses.

    equations   loops over taps: any problem, anywhere
    loops       the same loops, compiled by numba: on CPUs, where it is installed
    xla         XLA's convolution and sum of windows, and JAX's transposes of them: for
                accelerators
    canonical   all three sums as XLA's channels-last convolution: many channels
    banded      one matrix product of whole runs of pixels: few channels
    patches     one matrix product of patches: whatever there is no better engine for
    unrolled    multiply-adds in one fused loop: depthwise convolution
    pooled      all the poolings, likewise
    reductions  one fused sum for each tap: depthwise weight gradients, on GPUs

All but the first two want channels last, and the plan turns arrays around for them;
:mod:`.averages`, :mod:`.groups`, :mod:`.memory`, :mod:`.rotation`, :mod:`.sums` and
:mod:`.taps` are what several of them share.
"""

from jaxcnn import equations
from jaxcnn.engines import (
    banded,
    canonical,
    loops,
    patches,
    pooled,
    reductions,
    unrolled,
    xla,
)

ENGINES = {
    "equations": equations,
    "loops": loops,
    "xla": xla,
    "canonical": canonical,
    "banded": banded,
    "patches": patches,
    "unrolled": unrolled,
    "pooled": pooled,
    "reductions": reductions,
}
