"""The ways of computing the sums, one file each.

An engine is a module with the functions of :mod:`jaxcnn.equations`, or with those that it
is good for: the same names, signatures and results. Its function ``refuses`` says why a
problem is not for it. :mod:`jaxcnn.plan` chooses.

    equations   loops over taps: any problem, anywhere
    loops       the same loops, compiled by numba: on CPUs, where it is installed
    xla         XLA's convolution and sum of windows, and JAX's transposes of them: for
                accelerators
    canonical   all three sums as XLA's channels-last convolution: many channels
    banded      one matrix product of whole runs of pixels: few channels, 1×1 kernels
    patches     one matrix product of patches: weight gradients
    winograd    the same with fewer products, kernels of 2 to 5 columns: many channels
    unrolled    multiply-adds in one fused loop: depthwise convolution
    pooled      all the poolings, likewise
    reductions  one fused sum for each tap: depthwise weight gradients, on GPUs

All but the first two want channels last, and the plan turns arrays around for them;
:mod:`.averages`, :mod:`.groups`, :mod:`.memory`, :mod:`.rotation` and :mod:`.sums` are what
several of them share.
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
    winograd,
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
    "winograd": winograd,
    "reductions": reductions,
}
