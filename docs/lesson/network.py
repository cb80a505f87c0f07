"""The network of the lesson's last scene, as jaxcnn computes it: what the page shows."""

import jax

from jaxcnn import conv2d, dense, max_pool2d, relu, softmax_cross_entropy


def logits(parameters, image):
    """What the network says of one image, (1, 8, 8): a number for each class."""
    W, b, V, c = parameters
    Y = conv2d(image, W, b, stride=2, padding=1)
    M = max_pool2d(relu(Y), 2)
    return dense(M.reshape(1, -1), V, c)[0]


def step(parameters, image, label, rate):
    """One step of gradient descent, down the loss of one image."""

    def loss(parameters):
        return softmax_cross_entropy(logits(parameters, image), label)

    gradients = jax.grad(loss)(parameters)
    return [p - rate * dp for p, dp in zip(parameters, gradients, strict=True)]
