"""The main job, run small: what it leaves behind, and what it refuses to overwrite."""

import json

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data, run_folder, train
from experiments.augmentation import Augmentation
from experiments.optimization import Optimization
from jaxcnn import models, training
from tests.test_data import write_cifar10, write_mnist


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the main job runs as its users run it, with JAX's defaults."""


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of one epoch: its options and its last metrics."""
    folder = tmp_path_factory.mktemp("runs") / "new"
    options = train.Options(model="lenet5", epochs=2, run_dir=folder)
    return options, train.main(options)


def test_a_run_leaves_configuration_metrics_parameters_and_pictures(finished):
    options, last = finished
    configuration = json.loads((options.run_dir / "configuration.json").read_text())
    assert configuration["options"]["epochs"] == 2
    assert configuration["options"]["batch_size"] == 32
    records = run_folder.read_lines(options.run_dir / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[-1] == last
    for name in ("curves", "filters", "confusion"):
        picture = (options.run_dir / f"{name}.png").read_bytes()
        assert picture.startswith(PNG)
        assert len(picture) > 5_000
    assert not list(options.run_dir.glob("*partial*"))


def evaluation_of(folder):
    """How well the LeNet-5 of digits that a run kept classifies them."""
    digits = data.digits()
    return training.evaluate(
        run_folder.load_parameters(folder / "parameters.npz"),
        *map(jnp.asarray, digits.test),
        model=models.standardized(models.lenet5(8), digits.mean, digits.std),
    )


def test_the_saved_parameters_are_those_of_the_last_epoch(finished):
    options, last = finished
    evaluation = evaluation_of(options.run_dir)
    assert float(evaluation.metrics.accuracy) == last["test_accuracy"]
    assert last["test_accuracy"] > 0.8  # chance is 0.1: two epochs have learned something


def test_the_same_seed_gives_the_same_run_and_another_seed_another(finished, tmp_path):
    options, last = finished
    for seed, same in ((options.seed, True), (options.seed + 1, False)):
        repeated = train.main(
            train.Options(model="lenet5", epochs=2, seed=seed, run_dir=tmp_path / str(seed))
        )
        assert (repeated["test_loss"] == last["test_loss"]) is same


def test_a_finished_run_is_never_overwritten(finished):
    options, _ = finished
    before = {path: path.read_bytes() for path in options.run_dir.iterdir()}
    with pytest.raises(FileExistsError, match="is not empty"):
        train.main(options)
    assert {path: path.read_bytes() for path in options.run_dir.iterdir()} == before


def test_mnist_trains_from_a_folder_of_idx_files(tmp_path, rng):
    write_mnist(tmp_path, rng, ".gz")
    options = train.Options(
        dataset="mnist",
        data_dir=tmp_path,
        epochs=1,
        batch_size=20,
        run_dir=tmp_path / "run",
    )
    assert train.main(options)["step"] == 2


def test_the_average_of_the_parameters_is_what_is_evaluated_and_kept(tmp_path):
    averaged, plain = (
        train.main(
            train.Options(
                model="lenet5",
                epochs=1,
                optimization=Optimization(average=average, label_smoothing=0.1, clip=1.0),
                run_dir=tmp_path / str(average),
            )
        )
        for average in (0.9, 0.0)
    )
    assert averaged["train_loss"] == plain["train_loss"]
    assert averaged["test_loss"] != plain["test_loss"]
    evaluation = evaluation_of(tmp_path / "0.9")
    assert float(evaluation.metrics.loss) == averaged["test_loss"]


def test_cifar10_trains_in_colour_and_augmented(tmp_path, rng):
    write_cifar10(tmp_path, rng)
    options = train.Options(
        dataset="cifar10",
        data_dir=tmp_path,
        epochs=1,
        batch_size=20,
        augment=Augmentation(crop=0.8, shift=2, flip=True, cutout=8),
        run_dir=tmp_path / "run",
    )
    assert train.main(options)["step"] == 1
    parameters = run_folder.load_parameters(tmp_path / "run" / "parameters.npz")
    assert parameters["stem"]["kernel"].shape == (3, 3, 3, 16)  # ResNet-20's


def test_a_run_that_explodes_stops_and_says_so(tmp_path):
    options = train.Options(
        model="lenet5",
        epochs=3,
        optimization=Optimization(learning_rate=1e30),
        run_dir=tmp_path / "run",
    )
    with pytest.raises(FloatingPointError, match=r"the loss became .* learning_rate"):
        train.main(options)


def test_a_batch_larger_than_the_data_set_is_refused_before_a_folder_is_made(tmp_path):
    options = train.Options(batch_size=1348, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size is 1348; with 1347 examples"):
        train.main(options)
    assert not options.run_dir.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": -1}, "epochs is -1; it must not be negative"),
        ({"batch_size": -1}, "batch_size is -1; it must not be negative"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
    ],
)
def test_an_option_out_of_range_is_refused(wrong, said):
    with pytest.raises(ValueError) as refusal:
        train.Options(**wrong)
    assert said in str(refusal.value)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    run_folder.write_json(path, {"a": 1})

    def fail_half_way():
        with run_folder.replacing(path) as partial:
            partial.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_parameters_survive_being_saved(tmp_path):
    parameters = {"conv1": {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}}
    run_folder.save_parameters(tmp_path / "p.npz", parameters)
    chex.assert_trees_all_equal(run_folder.load_parameters(tmp_path / "p.npz"), parameters)
