"""The main job, run small: what it leaves behind, and what it refuses to overwrite."""

from pathlib import Path

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments import train
from experiments.data import sets
from experiments.run import run_folder, saved_run
from experiments.run.augmentation import Augmentation
from experiments.run.optimization import Optimization
from experiments.run.options import Options
from jaxcnn import training
from tests.experiments.test_data import write_cifar10, write_mnist

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("no_reports_and_a_quick_start")


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the main job runs as its users run it, with JAX's defaults."""


def trained(run_dir, **options):
    """The last metrics of a run with these options."""
    return train.main(train.Settings(Options(**options), run_dir=run_dir))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of two epochs: its folder and its last metrics."""
    folder = tmp_path_factory.mktemp("runs") / "new"
    return folder, trained(folder, model="lenet5", epochs=2)


def test_a_run_leaves_configuration_metrics_and_parameters(finished):
    folder, last = finished
    options, description = saved_run.read_configuration(folder)
    assert options == Options(model="lenet5", epochs=2, batch_size=32)
    assert description == sets.digits().description
    records = run_folder.read_metrics(folder)
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[-1] == last
    assert not list(folder.glob("*partial*"))


def evaluation_of(folder):
    """How well what a run kept classifies the digits."""
    run = saved_run.load(folder)
    test = map(jnp.asarray, sets.digits().test)
    return training.evaluate(run.parameters, *test, model=run.model)


def test_the_saved_parameters_are_those_of_the_last_epoch(finished):
    folder, last = finished
    evaluation = evaluation_of(folder)
    assert float(evaluation.metrics.accuracy) == last["test_accuracy"]
    assert last["test_accuracy"] > 0.8  # chance is 0.1: two epochs have learned something


def test_the_same_seed_gives_the_same_run_and_another_seed_another(finished, tmp_path):
    _, last = finished
    for seed, same in ((0, True), (1, False)):
        repeated = trained(tmp_path / str(seed), model="lenet5", epochs=2, seed=seed)
        assert (repeated["test_loss"] == last["test_loss"]) is same


def test_the_commands_that_are_shown_are_commands():
    shown = [
        line.split("#")[0].split()
        for text in (train.__doc__, (ROOT / "docs/runs.md").read_text())
        for line in text.splitlines()
        if "python -m experiments.train" in line
    ]
    assert len(shown) >= 8
    for words in shown:
        options = words[words.index("experiments.train") + 1 :]
        tyro.cli(train.Settings, args=options, console_outputs=False)


def test_a_finished_run_is_never_overwritten(finished):
    folder, _ = finished
    files = [path for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(FileExistsError, match="is not empty"):
        trained(folder, model="lenet5", epochs=2)
    assert {path: path.read_bytes() for path in files} == before


def test_mnist_trains_from_a_folder_of_idx_files_and_a_name_is_but_a_name(
    tmp_path, rng, capsys
):
    data, run = tmp_path / "MNIST \udcff", tmp_path / "a[/b] :smile: \x1b[2J\u202e"
    data.mkdir()
    write_mnist(data, rng, ".gz")
    last = trained(run, dataset="mnist", data_dir=data, epochs=1, batch_size=20)
    assert last["step"] == 2
    assert saved_run.read_configuration(run)[0].data_dir == data
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.endswith(r"/a[/b] :smile: \x1b[2J\u202e")


def test_a_run_folder_whose_name_is_no_utf8_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"the run folder is .*\\xff; .* UTF-8$"):
        trained(tmp_path / "\udcff")
    assert not list(tmp_path.iterdir())


def test_the_average_of_the_parameters_is_what_is_evaluated_and_kept(tmp_path):
    averaged, plain = (
        trained(
            tmp_path / str(average),
            model="lenet5",
            epochs=1,
            optimization=Optimization(average=average, label_smoothing=0.1, clip=1.0),
        )
        for average in (0.9, 0.0)
    )
    assert averaged["train_loss"] == plain["train_loss"]
    assert averaged["test_loss"] != plain["test_loss"]
    evaluation = evaluation_of(tmp_path / "0.9")
    assert float(evaluation.metrics.loss) == averaged["test_loss"]


def test_cifar10_trains_in_colour_and_augmented(tmp_path, rng):
    write_cifar10(tmp_path, rng)
    last = trained(
        tmp_path / "run",
        dataset="cifar10",
        model="lenet5",
        data_dir=tmp_path,
        epochs=1,
        batch_size=20,
        augment=Augmentation(crop=0.8, shift=2, flip=True, cutout=8),
    )
    assert last["step"] == 1
    parameters = saved_run.load(tmp_path / "run").parameters
    assert parameters["conv1"]["w"].shape == (5, 5, 3, 6)


def test_a_run_that_explodes_stops_and_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss became .* learning_rate"):
        trained(
            tmp_path / "run",
            model="lenet5",
            epochs=3,
            optimization=Optimization(learning_rate=1e30),
        )


def test_a_batch_larger_than_the_data_set_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ValueError, match="batch_size is 1348; with 1347 examples"):
        trained(tmp_path / "run", batch_size=1348)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"epochs": 1, "optimization": Optimization(warmup=0.9999)},
            "warmup is 0.9999, which is all of the run's 42 steps",
        ),
        ({"epochs": 10**8}, "epochs is 100000000, of 42 steps each; there must be fewer"),
        (
            {"augment": Augmentation(shift=10**12)},
            "shift is 1000000000000; with images of 8×8 pixels it must be at most 7",
        ),
        ({"augment": Augmentation(cutout=9)}, "cutout is 9; with images of 8×8 pixels"),
        ({"augment": Augmentation(crop=0.1)}, "crop is 0.1; of images of 8×8 pixels"),
        ({"validate": 1e-9}, "validate is 1e-09, which takes 1 of 1347 images"),
        ({"validate": 0.999}, "validate is 0.999, which takes 1346 of 1347 images"),
    ],
)
def test_options_that_do_not_fit_the_images_are_refused_before_a_folder_is_made(
    tmp_path, options, said
):
    with pytest.raises(ValueError) as refusal:
        trained(tmp_path / "run", **options)
    assert said in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_the_largest_options_that_fit_are_taken():
    Augmentation(shift=7, cutout=8, crop=1 / 8).must_fit((8, 8, 1))
    Options(seed=2**32 - 1)
    Optimization(warmup=41 / 42).rate(42)
    for part in 10 / 1347, 1337 / 1347:
        sets.digits().validating(part)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": -1}, "epochs is -1; it must not be negative"),
        ({"batch_size": -1}, "batch_size is -1; it must not be negative"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"seed": 2**32}, "seed is 4294967296; it must be below 2^32"),
        ({"validate": 1.0}, "validate is 1.0; it must be from 0 to below 1"),
    ],
)
def test_an_option_out_of_range_is_refused(wrong, said):
    with pytest.raises(ValueError) as refusal:
        Options(**wrong)
    assert said in str(refusal.value)


def test_parameters_survive_being_saved(tmp_path):
    parameters = {"conv1": {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}}
    run_folder.save_parameters(tmp_path / "p.npz", parameters)
    read = run_folder.load_parameters(tmp_path / "p.npz", parameters)
    chex.assert_trees_all_equal(read, parameters)
