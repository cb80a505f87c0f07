"""The experiments that time whole training runs: what they compare is the same work."""

import pytest

from experiments import epoch_time, time_to_accuracy
from experiments.data import sets
from experiments.data.sets import DataSet, Examples

pytestmark = pytest.mark.slow  # every program is compiled for this alone


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the programs run as their users run them, with JAX's defaults."""


@pytest.mark.filterwarnings("ignore")  # flax's and PyTorch's own
@pytest.mark.parametrize("name", time_to_accuracy.CONTESTANTS)
def test_every_contestant_learns(name, rng):
    if name == "torch":
        pytest.importorskip("torch")
    labels = rng.integers(0, 10, 1536).astype("int32")
    images = rng.integers(0, 64, (len(labels), 28, 28, 1)).astype("uint8")
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 6] += 190  # a bright line, where its class says
    examples = Examples(images, labels)
    dataset = DataSet(examples, examples, sets.digits().description)
    accuracies = list(time_to_accuracy.CONTESTANTS[name](dataset, 0))
    assert len(accuracies) == time_to_accuracy.EPOCHS
    assert accuracies[-1] > 0.99
    assert accuracies[0] < accuracies[-1] or accuracies[0] > 0.99


def test_an_epoch_and_its_steps_are_timed():
    settings = epoch_time.Settings(batch_size=16, steps=3, rounds=2)
    whole, alone = epoch_time.measured("digits/small-cnn", settings)
    assert (whole.mode, alone.mode) == ("epoch", "step")
    assert whole.rounds == alone.rounds == 2
    assert whole.median_ms > 0 < alone.median_ms
