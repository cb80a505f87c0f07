"""The benchmark's networks, and the training step that is timed.

Two contestants take the same parameters: ``"jaxcnn"``, which is :mod:`jaxcnn.models`, and
``"lax"``, the same networks written here over lax and jnp: nothing of jaxcnn computes in
them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

import jaxcnn
from experiments.benchmarking.cases import NETWORKS
from experiments.peers import lax_operations
from jaxcnn import models
from jaxcnn.layout import over_channels, weight_layout
from jaxcnn.models import STATISTICS, Images, Logits, Model, Parameters

CONTESTANTS = ("jaxcnn", "lax")
RATE, MOMENTUM = 0.01, 0.9  # of the optimizer
DECAY, EPSILON = 0.9, 1e-5  # of batch normalization

Forward = Callable[[Parameters, Images], tuple[Logits, Parameters | None]]
"""To logits, and the parameters with statistics advanced, if any are."""


# --- By jaxcnn ------------------------------------------------------------------------


def model_of(
    name: str, layout: str, image_size: int | None = None, channels: int | None = None
) -> Model:
    """The model of a network, for images of the benchmark's size or of another."""
    _, usual_size, usual_channels = NETWORKS[name]
    return MODELS[name](image_size or usual_size, channels or usual_channels, layout)


MODELS: dict[str, Callable[[int, int, str], Model]] = {
    "LeNet-5": lambda size, channels, layout: models.lenet5(size, channels, layout=layout),
    "MNIST CNN": lambda size, channels, layout: models.small_cnn(
        size, channels, layout=layout
    ),
    "VGG": lambda size, channels, layout: models.vgg(size, channels, layout=layout),
    "ResNet-20": lambda _, channels, layout: models.resnet20(channels, layout=layout),
    "MobileNet": lambda _, channels, layout: models.mobilenet(channels, layout=layout),
}


# --- By lax ---------------------------------------------------------------------------


def lenet5(p: Parameters, x: Images, layout: str) -> tuple[Logits, None]:
    size = x.shape[layout.index("H")]
    padding_1, padding_2 = {8: (2, 2), 28: (2, 0), 32: (0, 0)}[size]
    x = max_pool(conv_relu(p["conv1"], x, padding_1, layout), layout)
    x = max_pool(conv_relu(p["conv2"], x, padding_2, layout), layout)
    x = jax.nn.relu(dense(p["dense1"], x.reshape(len(x), -1)))
    x = jax.nn.relu(dense(p["dense2"], x))
    return dense(p["dense3"], x), None


def mnist_cnn(p: Parameters, x: Images, layout: str) -> tuple[Logits, None]:
    x = max_pool(conv_relu(p["conv1"], x, 1, layout), layout)
    x = max_pool(conv_relu(p["conv2"], x, 1, layout), layout)
    x = jax.nn.relu(dense(p["dense1"], x.reshape(len(x), -1)))
    return dense(p["dense2"], x), None


def vgg(p: Parameters, x: Images, layout: str) -> tuple[Logits, None]:
    for number in 1, 3, 5:
        x = conv_relu(p[f"conv{number}"], x, 1, layout)
        x = max_pool(conv_relu(p[f"conv{number + 1}"], x, 1, layout), layout)
    x = jax.nn.relu(dense(p["dense1"], x.reshape(len(x), -1)))
    return dense(p["dense2"], x), None


def resnet20(p: Parameters, x: Images, layout: str) -> tuple[Logits, Parameters]:
    advanced = dict(p)
    x, advanced["stem"] = normalized(p["stem"], x, layout)
    x = jax.nn.relu(x)
    for name in (f"block{number}" for number in range(1, 10)):
        block = p[name]
        stride = 2 if "along" in block else 1
        y, first = normalized(block["first"], x, layout, stride)
        y, second = normalized(block["second"], jax.nn.relu(y), layout)
        advanced[name] = {"first": first, "second": second}
        if "along" in block:
            x, advanced[name]["along"] = normalized(block["along"], x, layout, stride)
        x = jax.nn.relu(x + y)
    return dense(p["dense"], global_average_pool(x, layout)), advanced


def mobilenet(p: Parameters, x: Images, layout: str) -> tuple[Logits, Parameters]:
    advanced = dict(p)
    x, advanced["stem"] = normalized(p["stem"], x, layout)
    x = jax.nn.relu(x)
    for number, stride in enumerate((1, 2, 1, 2, 1, 2), start=1):
        name = f"pair{number}"
        groups = x.shape[layout.index("C")]
        x, depthwise = normalized(p[name]["depthwise"], x, layout, stride, groups)
        x, pointwise = normalized(p[name]["pointwise"], jax.nn.relu(x), layout)
        x = jax.nn.relu(x)
        advanced[name] = {"depthwise": depthwise, "pointwise": pointwise}
    return dense(p["dense"], global_average_pool(x, layout)), advanced


def conv_relu(p: Parameters, x: Images, padding: int, layout: str) -> Images:
    y = lax_operations.conv(x, p["w"], p["b"], padding=padding, layout=layout)
    return jax.nn.relu(y)


def normalized(
    p: Parameters, x: Images, layout: str, stride: int = 1, groups: int = 1
) -> tuple[Images, Parameters]:
    """A convolution and its batch normalization, which takes the place of a bias; and the
    parameters with the running statistics after this batch."""
    y = lax_operations.conv(
        x,
        p["kernel"],
        stride=stride,
        padding=p["kernel"].shape[weight_layout(layout).index("H")] // 2,
        groups=groups,
        layout=layout,
    )
    axes = tuple(i for i, axis in enumerate(layout) if axis != "C")
    mean = y.mean(axes)
    variance = jnp.maximum((y * y).mean(axes) - mean * mean, 0)
    n = y.size // len(mean)
    statistics = {
        "running_mean": DECAY * p["running_mean"] + (1 - DECAY) * mean,
        "running_var": DECAY * p["running_var"] + (1 - DECAY) * variance * n / (n - 1),
    }
    factor = p["w"] * lax.rsqrt(variance + EPSILON)
    offset = p["b"] - mean * factor
    factor, offset = (over_channels(v, layout) for v in (factor, offset))
    return y * factor + offset, p | statistics


def max_pool(x: Images, layout: str) -> Images:
    return lax_operations.max_pool(x, kernel_size=2, layout=layout)


def global_average_pool(x: Images, layout: str) -> Array:
    return x.mean((layout.index("H"), layout.index("W")))


def dense(p: Parameters, x: Array) -> Array:
    return x @ p["w"] + p["b"][None]


def lax_cross_entropy(logits: Logits, labels: Array) -> Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen[:, 0]


BY_LAX: dict[str, Callable[[Parameters, Images, str], tuple[Logits, Any]]] = {
    "LeNet-5": lenet5,
    "MNIST CNN": mnist_cnn,
    "VGG": vgg,
    "ResNet-20": resnet20,
    "MobileNet": mobilenet,
}


def over_lax(name: str, model: Model) -> Model:
    """The model, computed over lax."""

    def train(parameters: Parameters, images: Images) -> tuple[Logits, Any]:
        return BY_LAX[name](parameters, images, model.layout)

    def apply(parameters: Parameters, images: Images) -> Logits:
        return train(parameters, images)[0]

    return model._replace(apply=apply, train=None if model.train is None else train)


# --- Training them --------------------------------------------------------------------


class State(NamedTuple):
    """What a step takes and returns."""

    parameters: Any
    velocity: Any
    statistics: Any


def initial_state(model: Model) -> State:
    """Where training begins, the same for both contestants."""
    parameters = jax.jit(model.init)(jax.random.key(0))
    return fresh_state(*parted(parameters))


def fresh_state(parameters: Any, statistics: Any) -> State:
    """A state whose velocities are zero."""
    return State(parameters, jax.tree.map(jnp.zeros_like, parameters), statistics)


def parted(parameters: Parameters) -> tuple[Any, Any]:
    """What is trained, and the running statistics; None in the place of the others."""

    def those(are_statistics: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                leaf if (path[-1].key in STATISTICS) is are_statistics else None
            ),
            parameters,
        )

    return those(False), those(True)


def joined(parameters: Any, statistics: Any) -> Parameters:
    """The inverse of :func:`parted`."""
    return jax.tree.map(
        lambda trained, statistic: statistic if trained is None else trained,
        parameters,
        statistics,
        is_leaf=lambda leaf: leaf is None,
    )


def image_batch(
    name: str, layout: str, batch: int | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """Random images and labels, as many as the network is timed with."""
    usual, size, channels = NETWORKS[name]
    rng = np.random.default_rng(seed)
    shape = (batch or usual, size, size, channels)
    images, labels = rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0])
    if layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return jnp.asarray(images), jnp.asarray(labels, jnp.int32)


def forward_of(name: str, contestant: str, model: Model) -> Forward:
    """The network in training, by a contestant, for images laid out as the model's are."""
    return (over_lax(name, model) if contestant == "lax" else model).apply_training


def loss_of(name: str, contestant: str, model: Model) -> Callable:
    """``loss(parameters, statistics, images, labels) -> (mean loss, new statistics)``."""
    forward = forward_of(name, contestant, model)
    cross_entropy = (
        lax_cross_entropy if contestant == "lax" else jaxcnn.softmax_cross_entropy
    )

    def loss(parameters, statistics, images, labels):
        logits, advanced = forward(joined(parameters, statistics), images)
        if advanced is not None:
            _, statistics = parted(advanced)
        return cross_entropy(logits, labels).mean(), statistics

    return loss


def training_step(loss: Callable) -> Callable:
    """One step of stochastic gradient descent with momentum: from state to state."""

    def step(state: State, batch):
        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.parameters, state.statistics, *batch
        )
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, state.velocity, gradients)
        parameters = jax.tree.map(lambda p, v: p - RATE * v, state.parameters, velocity)
        return State(parameters, velocity, statistics), value

    return step
