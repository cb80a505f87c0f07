"""The benchmark's networks, each written once over a small set of operations.

``network(layers, images) -> logits``, where ``layers`` is a :class:`Layers`, whose
operations are jaxcnn's or lax's and which hands every layer its parameters, in order.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxcnn
from experiments.benchmarking.cases import CLASSES, NETWORKS
from experiments.peers import lax_operations

RATE, MOMENTUM = 0.01, 0.9  # of the optimizer
DECAY, EPSILON = 0.9, 1e-5  # of batch normalization


class Operations(NamedTuple):
    """What a network is made of; images are in ``layout``."""

    conv: Callable
    max_pool: Callable
    global_average_pool: Callable
    batch_norm: Callable
    dense: Callable
    relu: Callable
    cross_entropy: Callable


def batch_norm(x, scale, bias, statistics, layout: str):
    """Normalize by the batch, in plain jnp; also the new running mean and variance."""
    axes = tuple(i for i, axis in enumerate(layout) if axis != "C")
    mean = x.mean(axes)
    variance = jnp.maximum((x * x).mean(axes) - mean * mean, 0)
    factor = scale * lax.rsqrt(variance + EPSILON)
    offset = bias - mean * factor
    running = [
        DECAY * old + (1 - DECAY) * new
        for old, new in zip(statistics, (mean, variance), strict=True)
    ]
    factor, offset = (lax_operations.over_channels(v, layout) for v in (factor, offset))
    return x * factor + offset, running


def lax_cross_entropy(logits, labels):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen[:, 0]


def jaxcnn_global_average_pool(x, layout: str):
    size = x.shape[layout.index("H")], x.shape[layout.index("W")]
    pooled = jaxcnn.avg_pool2d(x, size, layout=layout)
    return pooled.reshape(len(x), x.shape[layout.index("C")])


OPERATIONS = {
    "jaxcnn": Operations(
        conv=jaxcnn.conv2d,
        max_pool=lambda x, layout: jaxcnn.max_pool2d(x, 2, layout=layout),
        global_average_pool=jaxcnn_global_average_pool,
        batch_norm=batch_norm,
        dense=jaxcnn.dense,
        relu=jaxcnn.relu,
        cross_entropy=jaxcnn.softmax_cross_entropy,
    ),
    "lax": Operations(
        conv=lax_operations.conv,
        max_pool=lambda x, layout: lax_operations.max_pool(x, kernel_size=2, layout=layout),
        global_average_pool=lambda x, layout: x.mean(
            (layout.index("H"), layout.index("W"))
        ),
        batch_norm=batch_norm,
        dense=lambda x, w, b: x @ w + b[None],
        relu=jax.nn.relu,
        cross_entropy=lax_cross_entropy,
    ),
}


class Layers:
    """The layers of one network, in the order in which it calls them.

    Each takes the next parameters from the list it was given; without one it makes them,
    and leaves them in ``parameters`` and ``statistics``.
    """

    def __init__(self, operations: Operations, layout: str, state: "State | None" = None):
        self.operations, self.layout, self.state = operations, layout, state
        self.rng = np.random.default_rng(0)
        self.parameters, self.statistics = [], []
        self.relu = operations.relu

    def conv(self, x, c_out, kernel, stride=1, groups=1, padding=None, bias=True):
        c_in = x.shape[self.layout.index("C")] // groups
        shape = (kernel, kernel, c_in, c_out)
        if self.layout == "NCHW":
            shape = (c_out, c_in, kernel, kernel)
        w, b = self._next(shape, 2 / (kernel**2 * c_in), c_out if bias else None)
        padding = kernel // 2 if padding is None else padding
        known = {"stride": stride, "padding": padding, "groups": groups}
        return self.operations.conv(x, w, b, **known, layout=self.layout)

    def normalized(self, x, c_out, kernel, stride=1, groups=1):
        """A convolution and its batch normalization, which takes the place of a bias."""
        x = self.conv(x, c_out, kernel, stride, groups, bias=False)
        if self.state is None:
            self.parameters.append(
                [np.ones(c_out, np.float32), np.zeros(c_out, np.float32)]
            )
            statistics = [np.zeros(c_out, np.float32), np.ones(c_out, np.float32)]
        else:
            self.parameters.append(self.state.parameters[len(self.parameters)])
            statistics = self.state.statistics[len(self.statistics)]
        x, running = self.operations.batch_norm(
            x, *self.parameters[-1], statistics, self.layout
        )
        self.statistics.append(statistics if self.state is None else running)
        return x

    def dense(self, x, width):
        w, b = self._next((x.shape[1], width), 1 / x.shape[1], width)
        return self.operations.dense(x, w, b)

    def max_pool(self, x):
        return self.operations.max_pool(x, layout=self.layout)

    def global_average_pool(self, x):
        return self.operations.global_average_pool(x, layout=self.layout)

    def flatten(self, x):
        return x.reshape(len(x), -1)

    def _next(self, shape, variance: float, bias: int | None):
        if self.state is None:
            w = self.rng.standard_normal(shape, np.float32) * np.float32(variance**0.5)
            b = None if bias is None else np.zeros(bias, np.float32)
            self.parameters.append([w, b])
        else:
            self.parameters.append(self.state.parameters[len(self.parameters)])
        return self.parameters[-1]


# --- The networks ---------------------------------------------------------------------


def lenet5(net: Layers, x):
    x = net.max_pool(net.relu(net.conv(x, 6, 5)))
    x = net.max_pool(net.relu(net.conv(x, 16, 5, padding=0)))
    x = net.relu(net.dense(net.flatten(x), 120))
    x = net.relu(net.dense(x, 84))
    return net.dense(x, CLASSES)


def mnist_cnn(net: Layers, x):
    x = net.max_pool(net.relu(net.conv(x, 32, 3)))
    x = net.max_pool(net.relu(net.conv(x, 64, 3)))
    x = net.relu(net.dense(net.flatten(x), 256))
    return net.dense(x, CLASSES)


def vgg(net: Layers, x):
    for width in 64, 128, 256:
        x = net.relu(net.conv(x, width, 3))
        x = net.max_pool(net.relu(net.conv(x, width, 3)))
    x = net.relu(net.dense(net.flatten(x), 256))
    return net.dense(x, CLASSES)


def resnet20(net: Layers, x):
    x, before = net.relu(net.normalized(x, 16, 3)), 16
    for width in 16, 16, 16, 32, 32, 32, 64, 64, 64:
        stride = 1 if width == before else 2
        y = net.relu(net.normalized(x, width, 3, stride))
        y = net.normalized(y, width, 3)
        if width != before:
            x = net.normalized(x, width, 1, stride)
        x, before = net.relu(x + y), width
    return net.dense(net.global_average_pool(x), CLASSES)


def mobilenet(net: Layers, x):
    x, before = net.relu(net.normalized(x, 32, 3)), 32
    widths_and_strides = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)
    for width, stride in widths_and_strides:
        x = net.relu(net.normalized(x, before, 3, stride, groups=before))
        x, before = net.relu(net.normalized(x, width, 1)), width
    return net.dense(net.global_average_pool(x), CLASSES)


FORWARD = {
    "LeNet-5": lenet5,
    "MNIST CNN": mnist_cnn,
    "VGG": vgg,
    "ResNet-20": resnet20,
    "MobileNet": mobilenet,
}


# --- Training them --------------------------------------------------------------------


class State(NamedTuple):
    """What a step takes and returns."""

    parameters: Any
    velocity: Any
    statistics: Any


def initial_state(name: str, layout: str, batch: int | None = None) -> State:
    """That of the network that is timed."""
    return state_for(name, layout, image_batch(name, layout, batch)[0])


def state_for(name: str, layout: str, images) -> State:
    """Weights that keep the variance, the same for jaxcnn and lax; velocities of zero."""
    layers = Layers(OPERATIONS["lax"], layout)
    jax.eval_shape(lambda x: FORWARD[name](layers, x), images)
    return fresh_state(layers.parameters, layers.statistics)


def fresh_state(parameters, statistics) -> State:
    parameters, statistics = jax.tree.map(jnp.asarray, (parameters, statistics))
    return State(parameters, jax.tree.map(jnp.zeros_like, parameters), statistics)


def image_batch(name: str, layout: str, batch: int | None = None, seed: int = 0):
    """Random images and labels, as many as the network is timed with."""
    usual, size, channels = NETWORKS[name]
    rng = np.random.default_rng(seed)
    shape = (batch or usual, size, size, channels)
    images, labels = rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0])
    if layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return jnp.asarray(images), jnp.asarray(labels, jnp.int32)


def loss_of(name: str, operations: Operations, layout: str) -> Callable:
    """``loss(parameters, statistics, images, labels) -> (mean loss, new statistics)``."""

    def loss(parameters, statistics, images, labels):
        layers = Layers(operations, layout, State(parameters, None, statistics))
        logits = FORWARD[name](layers, images)
        return operations.cross_entropy(logits, labels).mean(), layers.statistics

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
