"""The convolutional network of each framework's own documentation, ready to train.

None of them knows of jaxcnn. Each function here builds a network with fixed seeds and
returns its training step: called with a batch ``(B, 28, 28, 1)`` and its labels, it updates
the network and returns the loss. It is compiled as the framework does it.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Step = Callable[[jax.Array, jax.Array], jax.Array | float]

SEED = 0


def flax_linen() -> Step:
    """From flax's "Linen MNIST": two 3×3 convolutions, average pools, two dense layers."""
    from flax import linen

    class CNN(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(features=32, kernel_size=(3, 3))(x))
            x = linen.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = linen.relu(linen.Conv(features=64, kernel_size=(3, 3))(x))
            x = linen.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = x.reshape((x.shape[0], -1))
            x = linen.relu(linen.Dense(features=256)(x))
            return linen.Dense(features=10)(x)

    model, optimizer = CNN(), optax.sgd(0.1, momentum=0.9)
    parameters = model.init(jax.random.key(SEED), jnp.ones((1, 28, 28, 1)))
    return _updating(parameters, optimizer, model.apply)


def flax_nnx() -> Step:
    """From flax's "MNIST tutorial": the same with batch norm, as an nnx module."""
    from flax import nnx

    class CNN(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
            self.norm1 = nnx.BatchNorm(32, rngs=rngs)
            self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
            self.norm2 = nnx.BatchNorm(64, rngs=rngs)
            self.dense1 = nnx.Linear(3136, 256, rngs=rngs)
            self.dense2 = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm1(self.conv1(x)))
            x = nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = nnx.relu(self.norm2(self.conv2(x)))
            x = nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
            x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
            return self.dense2(x)

    model = CNN(nnx.Rngs(SEED))
    optimizer = nnx.Optimizer(model, optax.adamw(0.005, 0.9), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images, labels):
        def loss_of(model):
            return _mean_loss(model(images), labels)

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    return lambda images, labels: step(model, optimizer, images, labels)


def equinox() -> Step:
    """From equinox's "CNN on MNIST": one 4×4 convolution and pool, three dense layers."""
    import equinox as eqx

    class CNN(eqx.Module):
        layers: list

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.layers = [
                eqx.nn.Conv2d(1, 3, kernel_size=4, key=keys[0]),
                eqx.nn.MaxPool2d(kernel_size=2),
                jax.nn.relu,
                jnp.ravel,
                eqx.nn.Linear(1728, 512, key=keys[1]),
                jax.nn.sigmoid,
                eqx.nn.Linear(512, 64, key=keys[2]),
                jax.nn.relu,
                eqx.nn.Linear(64, 10, key=keys[3]),
            ]

        def __call__(self, image):
            x = image
            for layer in self.layers:
                x = layer(x)
            return x

    arrays, rest = eqx.partition(CNN(jax.random.key(SEED)), eqx.is_array)

    def apply(arrays, images):
        model = eqx.combine(arrays, rest)
        return jax.vmap(model)(images.transpose(0, 3, 1, 2))

    return _updating(arrays, optax.adamw(3e-4), apply)


def haiku() -> Step:
    """In the style of haiku's examples: strided convolution, max pools, an MLP."""
    import haiku as hk

    def network(images):
        return hk.Sequential(
            [
                hk.Conv2D(32, kernel_shape=3),
                jax.nn.relu,
                hk.MaxPool(window_shape=2, strides=2, padding="VALID"),
                hk.Conv2D(64, kernel_shape=3),
                jax.nn.relu,
                hk.MaxPool(window_shape=2, strides=2, padding="VALID"),
                hk.Flatten(),
                hk.nets.MLP([256, 10]),
            ]
        )(images)

    model = hk.without_apply_rng(hk.transform(network))
    parameters = model.init(jax.random.key(SEED), jnp.ones((1, 28, 28, 1)))
    return _updating(parameters, optax.adam(1e-3), model.apply)


def keras() -> Step:
    """From Keras's "Simple MNIST convnet", trained by Keras itself."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras
    from keras import layers

    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam")
    return lambda images, labels: float(model.train_on_batch(images, labels))


FRAMEWORKS = {
    "flax linen": flax_linen,
    "flax nnx": flax_nnx,
    "equinox": equinox,
    "haiku": haiku,
    "Keras": keras,
}


def _mean_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _updating(parameters, optimizer, apply) -> Step:
    """The step of a model that is a function of its parameters, which it keeps."""
    state = parameters, optimizer.init(parameters)

    @jax.jit
    def step(state, images, labels):
        parameters, optimizer_state = state

        def loss_of(parameters):
            return _mean_loss(apply(parameters, images), labels)

        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return (optax.apply_updates(parameters, updates), optimizer_state), loss

    def update(images, labels):
        nonlocal state
        state, loss = step(state, images, labels)
        return loss

    return update
