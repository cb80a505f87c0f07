"""What activations, losses, normalizations and dropout should not take.

Rows as in :mod:`tests.refusals.arrays`: (the call, the exception, what its message must
contain, with … between the parts).
"""

import jax
import numpy as np

from jaxcnn.layers.activations import (
    elu,
    gelu,
    hard_swish,
    leaky_relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from jaxcnn.layers.dropout import dropout
from jaxcnn.layers.losses import binary_cross_entropy_with_logits as bce
from jaxcnn.layers.losses import mse_loss, softmax_cross_entropy
from jaxcnn.layers.normalization import batch_norm, group_norm, instance_norm, layer_norm

ONES = np.ones(4, np.float32)  # one for each channel of x, and of rows


def trained(x, mean=None, var=None, *wb, **options):
    return batch_norm(x, mean, var, *wb, training=True, **options)


def drop(x, **options):
    return dropout(x, jax.random.key(0), **options)


BAD_LAYERS = {
    # Activations
    "leaky_relu of integers": (
        lambda a: leaky_relu(a.labels),
        TypeError,
        "x has dtype int32",
    ),
    "elu of a list": (lambda a: elu([1.0]), TypeError, "x is a list … an array"),
    "hard_swish of None": (lambda a: hard_swish(None), TypeError, "x is a NoneType"),
    "sigmoid of bools": (lambda a: sigmoid(a.x > 0), TypeError, "x has dtype bool"),
    "tanh of a string": (lambda a: tanh("x"), TypeError, "x is a str … an array"),
    "silu of integers": (lambda a: silu(a.labels), TypeError, "x has dtype int32"),
    "softplus of a tuple": (lambda a: softplus((1.0,)), TypeError, "x is a tuple"),
    "gelu of integers": (lambda a: gelu(a.labels), TypeError, "x has dtype int32"),
    "negative_slope an array": (
        lambda a: leaky_relu(a.x, a.b),
        TypeError,
        "negative_slope is … must be a number, and not an array",
    ),
    "negative_slope a NaN": (
        lambda a: leaky_relu(a.x, float("nan")),
        ValueError,
        "negative_slope is nan … a number",
    ),
    "alpha a string": (lambda a: elu(a.x, "1"), TypeError, "alpha is '1' … a number"),
    "beta 0": (lambda a: softplus(a.x, 0), ValueError, "beta is 0 … positive"),
    "beta negative": (lambda a: softplus(a.x, -1.0), ValueError, "beta is -1.0 … positive"),
    "beta None": (lambda a: softplus(a.x, None), TypeError, "beta is None … number"),
    "threshold None": (
        lambda a: softplus(a.x, threshold=None),
        TypeError,
        "threshold is None … a number",
    ),
    "approximate": (
        lambda a: gelu(a.x, "sigmoid"),
        ValueError,
        "approximate is 'sigmoid' … 'none', 'tanh'",
    ),
    "approximate True": (lambda a: gelu(a.x, True), ValueError, "approximate is True"),
    # Losses
    "label_smoothing too large": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, label_smoothing=1.5),
        ValueError,
        "label_smoothing is 1.5 … between 0 and 1",
    ),
    "label_smoothing negative": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, label_smoothing=-0.1),
        ValueError,
        "label_smoothing is -0.1 … between 0 and 1",
    ),
    "label_smoothing None": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, label_smoothing=None),
        TypeError,
        "label_smoothing is None … a number",
    ),
    "mse_loss of integers": (
        lambda a: mse_loss(a.labels, a.labels),
        TypeError,
        "predictions has dtype int32",
    ),
    "mse_loss: targets integers": (
        lambda a: mse_loss(a.rows, a.rows.astype("int32")),
        TypeError,
        "targets has dtype int32",
    ),
    "mse_loss: targets' dtype": (
        lambda a: mse_loss(a.rows, a.rows.astype("float16")),
        TypeError,
        "targets has dtype float16 … predictions has float32",
    ),
    "mse_loss: targets' shape": (
        lambda a: mse_loss(a.rows, a.rows[:1]),
        ValueError,
        "targets has shape (1, 4) … must be (2, 4), as predictions",
    ),
    "mse_loss: reduction": (
        lambda a: mse_loss(a.rows, a.rows, reduction="average"),
        ValueError,
        "reduction is 'average' … 'mean', 'sum', 'none'",
    ),
    "bce of None": (lambda a: bce(None, a.rows), TypeError, "logits is a NoneType"),
    "bce: targets bools": (
        lambda a: bce(a.rows, a.rows > 0),
        TypeError,
        "targets has dtype bool … targets.astype",
    ),
    "bce: targets' shape": (
        lambda a: bce(a.rows, a.rows[:, :1]),
        ValueError,
        "targets has shape (2, 1) … must be (2, 4), as logits",
    ),
    "bce: reduction": (
        lambda a: bce(a.rows, a.rows, reduction=None),
        ValueError,
        "reduction is None",
    ),
    # Normalization
    "batch_norm of integers": (
        lambda a: trained(a.x.astype("int32")),
        TypeError,
        "x has dtype int32",
    ),
    "batch_norm: x's rank": (
        lambda a: trained(a.x[0]),
        ValueError,
        "x has shape (4, 5, 6) … 'NCHW' … (N, C, H, W)",
    ),
    "batch_norm: layout": (
        lambda a: trained(a.x, layout="CNHW"),
        ValueError,
        "layout is 'CNHW' … 'NC', 'NCW', 'NWC', 'NCHW', 'NHWC', 'NCDHW', 'NDHWC'",
    ),
    "batch_norm: no statistics": (
        lambda a: batch_norm(a.x, None, None),
        TypeError,
        "running_mean is a NoneType",
    ),
    "batch_norm: no variance": (
        lambda a: batch_norm(a.x, ONES, None),
        TypeError,
        "running_var is a NoneType",
    ),
    "batch_norm: running_mean's shape": (
        lambda a: trained(a.x, a.b, ONES),
        ValueError,
        "running_mean has shape (6,) … must be (4,) … channel of x",
    ),
    "batch_norm: running_var's shape": (
        lambda a: batch_norm(a.x, ONES, ONES[None]),
        ValueError,
        "running_var has shape (1, 4) … must be (4,)",
    ),
    "batch_norm: running_var's dtype": (
        lambda a: batch_norm(a.x, ONES, ONES.astype("float16")),
        TypeError,
        "running_var has dtype float16 … x has float32",
    ),
    "batch_norm: w's shape": (
        lambda a: trained(a.x, None, None, a.b),
        ValueError,
        "w has shape (6,) … must be (4,)",
    ),
    "batch_norm: w's dtype": (
        lambda a: trained(a.x, None, None, ONES.astype("float64")),
        TypeError,
        "w has dtype float64 … x has float32",
    ),
    "batch_norm: b's shape, channels last": (
        lambda a: trained(a.x, None, None, None, ONES, layout="NHWC"),
        ValueError,
        "b has shape (4,) … must be (6,)",
    ),
    "batch_norm: training": (
        lambda a: batch_norm(a.x, ONES, ONES, training=1),
        TypeError,
        "training is 1 … True or False",
    ),
    "batch_norm: momentum": (
        lambda a: trained(a.x, momentum=2),
        ValueError,
        "momentum is 2 … between 0 and 1",
    ),
    "batch_norm: momentum None": (
        lambda a: trained(a.x, momentum=None),
        TypeError,
        "momentum is None … a number",
    ),
    "batch_norm: eps": (lambda a: trained(a.x, eps=0), ValueError, "eps is 0 … positive"),
    "batch_norm: eps None": (lambda a: trained(a.x, eps=None), TypeError, "eps is None"),
    "batch_norm: a single value": (
        lambda a: trained(a.rows[:1], layout="NC"),
        ValueError,
        "x has shape (1, 4) … every channel has 1 element(s) … at least 2",
    ),
    "batch_norm: no value": (
        lambda a: trained(a.x[:0]),
        ValueError,
        "x has shape (0, 4, 5, 6) … every channel has 0 element(s)",
    ),
    "layer_norm of None": (lambda a: layer_norm(None, 4), TypeError, "x is a NoneType"),
    "layer_norm: normalized_shape": (
        lambda a: layer_norm(a.x, (4, 6)),
        ValueError,
        "normalized_shape is (4, 6) … last axes of x … (2, 4, 5, 6)",
    ),
    "layer_norm: normalized_shape too long": (
        lambda a: layer_norm(a.rows, (1, 2, 4)),
        ValueError,
        "normalized_shape is (1, 2, 4) … (2, 4)",
    ),
    "layer_norm: normalized_shape empty": (
        lambda a: layer_norm(a.rows, ()),
        ValueError,
        "normalized_shape is ()",
    ),
    "layer_norm: normalized_shape a float": (
        lambda a: layer_norm(a.rows, 4.0),
        TypeError,
        "normalized_shape is 4.0 … int",
    ),
    "layer_norm: w's shape": (
        lambda a: layer_norm(a.x, (5, 6), ONES),
        ValueError,
        "w has shape (4,) … must be (5, 6) … normalized_shape",
    ),
    "layer_norm: b's dtype": (
        lambda a: layer_norm(a.rows, 4, None, ONES.astype("int32")),
        TypeError,
        "b has dtype int32",
    ),
    "layer_norm: eps": (
        lambda a: layer_norm(a.rows, 4, eps=-1e-5),
        ValueError,
        "eps is -1e-05 … positive",
    ),
    "group_norm: groups": (
        lambda a: group_norm(a.x, 3),
        ValueError,
        "groups is 3 … does not divide the 4 channels",
    ),
    "group_norm: groups 0": (lambda a: group_norm(a.x, 0), ValueError, "groups is 0"),
    "group_norm: groups a float": (
        lambda a: group_norm(a.x, 2.0),
        TypeError,
        "groups is 2.0 … a positive int",
    ),
    "group_norm: w's shape": (
        lambda a: group_norm(a.x, 2, ONES[:2]),
        ValueError,
        "w has shape (2,) … must be (4,) … channel",
    ),
    "group_norm: layout": (
        lambda a: group_norm(a.x, 2, layout="NCWH"),
        ValueError,
        "layout is 'NCWH' … 'NCHW'",
    ),
    "instance_norm: x's rank": (
        lambda a: instance_norm(a.rows),
        ValueError,
        "x has shape (2, 4) … (N, C, H, W)",
    ),
    "instance_norm: a single value": (
        lambda a: instance_norm(a.x[:, :, :1, :1]),
        ValueError,
        "x has shape (2, 4, 1, 1) … every channel of an image has 1 element(s)",
    ),
    "instance_norm: b's dtype": (
        lambda a: instance_norm(a.x, None, ONES.astype("bfloat16")),
        TypeError,
        "b has dtype bfloat16 … x has float32",
    ),
    # Dropout
    "dropout of integers": (lambda a: drop(a.labels), TypeError, "x has dtype int32"),
    "dropout: p too large": (
        lambda a: drop(a.x, p=1.5),
        ValueError,
        "p is 1.5 … between 0 and 1",
    ),
    "dropout: p negative": (lambda a: drop(a.x, p=-0.5), ValueError, "p is -0.5"),
    "dropout: p an array": (lambda a: drop(a.x, p=a.b), TypeError, "p is … a number"),
    "dropout: training": (
        lambda a: drop(a.x, training=None),
        TypeError,
        "training is None … True or False",
    ),
    "dropout: no key": (
        lambda a: dropout(a.x, None),
        TypeError,
        "key is None … jax.random.key(0)",
    ),
    "dropout: key a seed": (lambda a: dropout(a.x, 0), TypeError, "key is 0 … a key of"),
    "dropout: key an array": (
        lambda a: dropout(a.x, jax.numpy.asarray(a.b)),
        TypeError,
        "key has dtype float32 … a key of",
    ),
    "dropout: several keys": (
        lambda a: dropout(a.x, jax.random.split(jax.random.key(0), 3)),
        ValueError,
        "key has shape (3,) … a single one",
    ),
    "dropout: several older keys": (
        lambda a: dropout(a.x, jax.random.split(jax.random.PRNGKey(0), 3)),
        ValueError,
        "key has shape (3, 2) … a single one",
    ),
}

WITH_DERIVATIVES = {
    "leaky_relu": leaky_relu,
    "elu": elu,
    "hard_swish": hard_swish,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "silu": silu,
    "gelu": gelu,
    "batch_norm, training": trained,
    "batch_norm": lambda x, **options: batch_norm(x, ONES, ONES, **options),
    "layer_norm": lambda x, **options: layer_norm(x, 6, **options),
    "group_norm": lambda x, **options: group_norm(x, 2, **options),
    "instance_norm": instance_norm,
    "dropout": drop,
    "dropout, inference": lambda x, **options: dropout(x, None, training=False, **options),
}


def with_unknown_derivatives(layer):
    return lambda a: layer(a.x, derivatives="numeric")


BAD_LAYERS |= {
    f"{name}: derivatives": (
        with_unknown_derivatives(layer),
        ValueError,
        "derivatives is 'numeric' … 'custom', 'autodiff'",
    )
    for name, layer in WITH_DERIVATIVES.items()
}
