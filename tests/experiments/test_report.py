"""The report: that it needs nothing but itself, and says what is true."""

import base64
import json
import shutil
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.data import sets
from experiments.pages import insight, report
from experiments.run import run_folder, saved_run
from experiments.run.options import Options
from jaxcnn import inspection, models
from tests.experiments import quick_start
from tests.models.parameters import drawn

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the main job runs as its users run it, with JAX's defaults."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one epoch, which writes its report."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        quick_start.patch(patch.setattr)
        train.main(train.Settings(Options(model="lenet5", epochs=1), run_dir=folder))
    return folder


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, content):
        super().__init__()
        self.references, self.text, self.alternatives = [], "", []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe")
        found = dict(attributes)
        self.references += [found[name] for name in ("src", "href") if name in found]
        if tag == "img":
            self.alternatives.append(found["alt"])

    def handle_data(self, data):
        self.text += data


def test_a_report_needs_nothing_but_itself(folder):
    content = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(content)
    pictures = [each for each in page.references if not each.startswith("#")]
    assert len(pictures) == len(page.alternatives) > 20
    assert all(page.alternatives)
    for each in pictures:
        kind, _, encoded = each.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(encoded).startswith(PNG)
    assert "url(" not in content


def test_a_report_says_what_was_measured(folder):
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    last = run_folder.read_metrics(folder)[-1]
    wrong = round((1 - last["test_accuracy"]) * 450)
    assert f"{100 * last['test_accuracy']:.2f} %" in page.text
    assert f"{last['test_loss']:.4f}" in page.text
    assert f"{wrong} of 450" in page.text
    layers = inspection.layers(models.lenet5(8), (8, 8, 1))
    for layer in layers:
        assert layer.name in page.text
    assert f"{sum(layer.multiply_adds for layer in layers):,}" in page.text


def test_the_worst_mistakes_come_first(rng):
    logits = 3 * rng.standard_normal((50, 4)).astype("float32")
    labels = rng.integers(0, 4, 50)
    found = insight.answers_from(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = -np.log(p[np.arange(50), labels])
    wrong = [k for k in np.argsort(-losses) if p[k].argmax() != labels[k]]
    assert found.mistakes.tolist() == wrong
    np.testing.assert_allclose(found.probabilities, p.max(1), rtol=1e-5)


def test_saliency_is_how_the_answer_changes_with_a_pixel(rng):
    with jax.enable_x64(True):
        model = models.small_cnn(8, channels=2, dtype=jnp.float64)
        parameters, apply = drawn(model, rng), jax.jit(model.apply)
        images = jnp.asarray(rng.random((2, 8, 8, 2)))
        found = insight.saliency(parameters, images, model=model)
        for row, column in (0, 0), (3, 4), (7, 2):
            slopes = []
            for channel in range(2):
                nearby = []
                for step in (-1e-5, 1e-5):
                    moved = np.array(images)
                    moved[1, row, column, channel] += step
                    nearby.append(np.asarray(apply(parameters, moved)))
                slopes.append((nearby[1][1].max() - nearby[0][1].max()) / 2e-5)
            # float64 differences with a step of 1e-5: 1e-10 of rounding.
            wanted = np.abs(slopes).max()
            np.testing.assert_allclose(found[1, row, column], wanted, rtol=1e-6)


def test_a_deep_network_shows_some_of_its_layers():
    layers = inspection.layers(models.resnet20(), (32, 32, 3))
    shown = [layer.name for layer in insight.with_feature_maps(layers)]
    assert shown == ["stem", *(f"block{number}" for number in range(1, 10))]
    parameters = jax.eval_shape(models.resnet20().init, jax.random.key(0))
    parameters = jax.tree.map(lambda p: np.zeros(p.shape), parameters)
    assert insight.first_kernel(layers, parameters).shape == (3, 3, 3, 16)


def test_names_are_text_and_no_markup(folder):
    run = saved_run.load(folder)
    classes = ("<b>zero</b>", *run.description.classes[1:])
    run = run._replace(description=sets.Description((8, 8, 1), classes, (0.0,), (16.0,)))
    test = sets.Examples(*(each[:10] for each in sets.digits().test))
    records = run_folder.read_metrics(folder)
    content = report.page(run, records, test)
    assert "<b>zero" not in content
    Page(content)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "is missing"),
        ([], "is empty"),
        (["{"], "is damaged in line 1"),
        (["{}"], "is damaged in line 1: epoch, step"),
        ([{"epoch": 3}], "has epoch 3 in line 1: a line is missing"),
        ([{}, {"epoch": 3}], "has epoch 3 in line 2: a line is missing"),
    ],
)
def test_damaged_metrics_are_named_and_the_old_report_stays(folder, tmp_path, lines, said):
    copy = shutil.copytree(folder, tmp_path / "run")
    path, before = copy / "metrics.jsonl", (copy / "report.html").read_bytes()
    (record,) = run_folder.read_metrics(copy)
    path.unlink()
    if lines is not None:
        changed = [
            each if isinstance(each, str) else json.dumps(record | each) for each in lines
        ]
        path.write_text("".join(f"{each}\n" for each in changed))
    with pytest.raises((ValueError, OSError), match=rf"metrics\.jsonl {said}"):
        report.write(copy)
    assert (copy / "report.html").read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_no_numbers_are_not_used(folder, tmp_path, value):
    """Neither for a report nor by anything else that uses a saved run."""
    copy = shutil.copytree(folder, tmp_path / "run")
    path = copy / "parameters.npz"
    parameters = saved_run.load(copy).parameters
    parameters["conv2"]["b"][3] = value
    run_folder.save_parameters(path, parameters)
    with pytest.raises(ValueError, match=r"parameters\.npz .* in conv2/b that are"):
        saved_run.load(copy)
    with pytest.raises(ValueError, match=r"parameters\.npz .* in conv2/b that are"):
        report.write(copy)
