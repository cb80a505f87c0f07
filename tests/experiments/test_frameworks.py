"""Networks of other libraries learn the same from jaxcnn's rules as from JAX's.

For them JAX is what users have by default: in float32, and promoting dtypes and ranks as
these libraries rely on. Their own deprecation warnings are not jaxcnn's to heed.
"""

import jax
import numpy as np
import pytest

from experiments.benchmarking.framework_models import FRAMEWORKS
from jaxcnn.patching.patch import patched_jax
from tests import asked

pytestmark = pytest.mark.filterwarnings("ignore")

MODULES = {
    "flax linen": "flax.linen",
    "flax nnx": "flax.nnx",
    "equinox": "equinox",
    "haiku": "haiku",
    "Keras": "keras",
}
CONVOLUTION = {"forward", "weight_gradient", "input_gradient"}
POOLINGS = (
    {"max_pool", "take_winners", "max_pool_gradient"},
    {"average_pool", "average_pool_gradient"},
)
STEPS = 4


@pytest.fixture
def jax_by_default(strict_jax):
    """JAX as it is without the tests' strictness, to which ``strict_jax`` resets all."""
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture
def keras_on_jax(monkeypatch, tmp_path):
    """Keras reads this, and writes its configuration there, when it is imported first."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def losses(name):
    """Of a network that was not trained before, on random images."""
    rng = np.random.default_rng(0)
    step = FRAMEWORKS[name]()
    return [
        float(
            step(
                jax.numpy.asarray(rng.standard_normal((8, 28, 28, 1)), "float32"),
                jax.numpy.asarray(rng.integers(0, 10, 8), "int32"),
            )
        )
        for _ in range(STEPS)
    ]


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.usefixtures("jax_by_default", "keras_on_jax")
def test_the_network_of_its_documentation_learns_the_same_by_jaxcnns_rules(name):
    pytest.importorskip(MODULES[name])
    with asked.noted() as sums:
        theirs = losses(name)
    assert not sums
    with patched_jax(), asked.noted() as sums:
        ours = losses(name)
    # The first layer's images need no gradient, and equinox's network has no other.
    assert {*sums} | {"input_gradient"} in [CONVOLUTION | pooling for pooling in POOLINGS]
    # Float32: sums of up to a thousand terms round off 1e-6 of a gradient; Adam divides by
    # its size, which makes more of it where a gradient is small.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert len(set(theirs)) == STEPS
