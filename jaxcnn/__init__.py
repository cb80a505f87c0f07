"""Convolutional networks for JAX, with gradients written by hand from the equations.

The map of the package, from the bottom up; imports point one way:

    layout            which axis of an array means what
    window            a sliding window, tap and untap
    equations         the document's sums as explicit loops over taps: the reference
    engines           the sums made fast, one file for each way
    plan              which engine computes what
    convolution_rule  how JAX differentiates and maps a convolution
    pooling_rule      … and a pooling
    rules             which rule differentiates, and what JAX must be told around it
    arguments         from what a user writes to what the library computes with
    convolution  pooling  activations  dense  losses      the public functions
    explain           what the plan chooses for a call, and why
    compiling         options for XLA's compiler
    models            networks as (init, apply) pairs
    training          state, one step, a whole epoch, evaluation
"""

from jaxcnn.activations import log_softmax, relu, softmax
from jaxcnn.compiling import compiler_options
from jaxcnn.convolution import (
    conv2d,
    conv2d_bias_gradient,
    conv2d_input_gradient,
    conv2d_weight_gradient,
)
from jaxcnn.dense import dense, flatten
from jaxcnn.explain import explain
from jaxcnn.losses import softmax_cross_entropy
from jaxcnn.pooling import avg_pool2d, max_pool2d
from jaxcnn.rules import derivatives

__version__ = "0.1.0"

__all__ = [
    "avg_pool2d",
    "compiler_options",
    "conv2d",
    "conv2d_bias_gradient",
    "conv2d_input_gradient",
    "conv2d_weight_gradient",
    "dense",
    "derivatives",
    "explain",
    "flatten",
    "log_softmax",
    "max_pool2d",
    "relu",
    "softmax",
    "softmax_cross_entropy",
]
