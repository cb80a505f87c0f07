"""Five steps of training with jaxcnn as it is installed: what ``make wheel`` runs.

Its environment has a wheel of jaxcnn and what that depends on, and nothing else.
"""

from importlib.resources import files
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import optax

import jaxcnn
from jaxcnn import models, training


def main() -> None:
    assert (files(jaxcnn) / "py.typed").is_file()
    assert find_spec("experiments") is None
    model, optimizer = models.lenet5(image_size=8), optax.sgd(0.01)
    key = jax.random.key(0)
    images, labels = jax.random.normal(key, (32, 8, 8, 1)), jnp.arange(32) % 10
    state = training.initial_state(model, optimizer, key)
    losses = []
    for _ in range(5):
        state, metrics = training.train_step(
            state, images, labels, model=model, optimizer=optimizer
        )
        losses.append(float(metrics.loss))
    print(f"jaxcnn {jaxcnn.__version__}, jax {jax.__version__}: losses {losses}")
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    main()
