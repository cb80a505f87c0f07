"""Checking gradients, one's own among them.

File by file, named for the function that is in it:

    gradcheck    is a gradient right? every derivative, in both modes, against differences
    differences  that know how far off they are
    compare      two functions side by side: values, derivatives, time, memory

The functions are :func:`jaxcnn.gradcheck` and :func:`jaxcnn.compare`; here are the types of
what they return.
"""

from jaxcnn.checking.compare import Comparison, Difference
from jaxcnn.checking.gradcheck import ArgumentCheck, Derivative, GradientCheck, ModeCheck

__all__ = [
    "ArgumentCheck",
    "Comparison",
    "Derivative",
    "Difference",
    "GradientCheck",
    "ModeCheck",
]
