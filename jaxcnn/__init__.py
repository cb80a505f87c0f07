"""Convolutional networks for JAX, with gradients written by hand from the equations.

Every public function can be imported from here. Inside, the imports point one way, from the
bottom up:

    layout  window          which axis means what; a sliding window, tap and untap
    sharding  rounding      arrays on several devices; half precisions
    originals               JAX's own functions, whatever is patched
    equations               the sums as explicit loops over taps: the reference
    problem                 what is to be computed, described before there are arrays
    engines/                the sums made fast, one file for each way
    plan                    which engine computes what, and why
    primitives              how an operation becomes a primitive of JAX's
    differentiation         who differentiates an operation: its rule, or JAX
    arguments               from what a user writes to what the library computes with
    convolution/  pooling/  the operations, each beside its rule
    layers/                 activations, losses, normalization, dense, dropout
    patching/               the operations in the place of JAX's own
    checking/  compiling    is a gradient right? options for XLA's compiler, and memory
    models/                 networks as (init, apply) pairs
    inspection  training    a network's layers; its training, step by step
"""

from jaxcnn import inspection as inspection
from jaxcnn import models as models
from jaxcnn import training as training
from jaxcnn.checking.compare import compare
from jaxcnn.checking.gradcheck import gradcheck
from jaxcnn.compiling import compiler_options, keep_memory
from jaxcnn.convolution.conv import conv1d, conv2d, conv3d
from jaxcnn.convolution.gradients import (
    conv1d_bias_gradient,
    conv1d_input_gradient,
    conv1d_weight_gradient,
    conv2d_bias_gradient,
    conv2d_input_gradient,
    conv2d_weight_gradient,
    conv3d_bias_gradient,
    conv3d_input_gradient,
    conv3d_weight_gradient,
)
from jaxcnn.convolution.separable import (
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
    separable_conv1d,
    separable_conv2d,
    separable_conv3d,
)
from jaxcnn.convolution.transposed import (
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from jaxcnn.differentiation import derivatives
from jaxcnn.layers.activations import (
    elu,
    gelu,
    hard_swish,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from jaxcnn.layers.dense import dense, flatten
from jaxcnn.layers.dropout import dropout
from jaxcnn.layers.losses import (
    binary_cross_entropy_with_logits,
    mse_loss,
    softmax_cross_entropy,
)
from jaxcnn.layers.normalization import batch_norm, group_norm, instance_norm, layer_norm
from jaxcnn.layers.softmax import log_softmax, softmax
from jaxcnn.patching import drop_in as drop_in
from jaxcnn.patching.patch import patch_jax, patched_jax, unpatch_jax
from jaxcnn.plan import explain
from jaxcnn.pooling.adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    global_avg_pool,
    global_max_pool,
)
from jaxcnn.pooling.average import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
)
from jaxcnn.pooling.maximum import (
    max_pool1d,
    max_pool2d,
    max_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
)
from jaxcnn.pooling.unfolding import fold, unfold

__version__ = "0.2.0"

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "compare",
    "compiler_options",
    "conv1d",
    "conv1d_bias_gradient",
    "conv1d_input_gradient",
    "conv1d_weight_gradient",
    "conv2d",
    "conv2d_bias_gradient",
    "conv2d_input_gradient",
    "conv2d_weight_gradient",
    "conv3d",
    "conv3d_bias_gradient",
    "conv3d_input_gradient",
    "conv3d_weight_gradient",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dense",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "derivatives",
    "dropout",
    "elu",
    "explain",
    "flatten",
    "fold",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "gradcheck",
    "group_norm",
    "hard_swish",
    "instance_norm",
    "keep_memory",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mse_loss",
    "patch_jax",
    "patched_jax",
    "relu",
    "separable_conv1d",
    "separable_conv2d",
    "separable_conv3d",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
    "unfold",
    "unpatch_jax",
]
