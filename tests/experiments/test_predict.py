"""Pictures from files: that they become what a model knows, and what it says of them."""

import functools
import json
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageDraw

from experiments import predict, train
from experiments.data import image_files, sets
from experiments.pages import report
from experiments.run import saved_run
from experiments.run.options import Options
from tests.experiments import quick_start, untrained


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the command runs as its users run it, with JAX's defaults."""


@pytest.fixture(autouse=True, scope="module")
def runs_are_loaded_once():
    """And so their models are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_run, "load", functools.cache(saved_run.load))
        yield


DIGITS = sets.digits()
MNIST = sets.Description((28, 28, 1), sets.DIGITS, mean=(0.0,), std=(255.0,))
CLOTHES = sets.Description((28, 28, 1), sets.CLOTHES, mean=(0.0,), std=(255.0,))
CIFAR10 = sets.Description((32, 32, 3), sets.OBJECTS, mean=(125.0,), std=(60.0,))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "new"
    options = Options(model="lenet5", epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: None)  # another test's matter
        quick_start.patch(patch.setattr)
        train.main(train.Settings(options, run_dir=folder))
    return folder


def predicted(run, *pictures, **options):
    return predict.main(predict.Settings(run, pictures, **options))


def drawn(size=(200, 150), paper=255, ink=0, mode="L", width=9):
    """A seven, far from the middle."""
    picture = Image.new(mode, size, paper)
    strokes = [(115, 15), (175, 20), (140, 110)]
    ImageDraw.Draw(picture).line(strokes, ink, width, joint="curve")
    return picture


def loaded(path, picture, dataset="mnist", description=MNIST, invert="auto", **how):
    """What becomes of a picture that is saved to a file."""
    picture.save(path, **how)
    return image_files.load(path, dataset, description, invert)


# --- What the model says --------------------------------------------------------------


def test_images_of_the_data_set_are_classified_from_files_as_they_are_from_arrays(
    finished, tmp_path
):
    images = DIGITS.test.images[:30]
    for number, image in enumerate(images):
        image_files.save(tmp_path / f"{number:02}.png", image, DIGITS.description)
    predictions = predicted(finished, tmp_path)
    expected = saved_run.load(finished).probabilities(images)
    for each, probabilities in zip(predictions, np.asarray(expected), strict=True):
        assert each["probabilities"] == {
            str(digit): float(probabilities[digit]) for digit in range(10)
        }
    best = [int(next(iter(each["probabilities"]))) for each in predictions]
    assert np.mean(np.array(best) == DIGITS.test.labels[:30]) > 0.6


def test_the_table_and_the_file_tell_the_same(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seven = Path("[7] :smile: \x1b[2J\udcff.png")
    drawn().save(seven)
    output = Path("predictions.json")
    (prediction,) = predicted(finished, seven, output=output)
    assert prediction["file"] == str(seven)
    assert json.loads(output.read_text()) == [prediction]
    (best, probability), (second, less), *_ = prediction["probabilities"].items()
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    printed = capsys.readouterr().out
    said = f"{best} │ {100 * probability:.1f} % │ {second} ({100 * less:.1f} %)"
    assert rf"│ [7] :smile: \x1b[2J\xff.png │ {said} │" in " ".join(printed.split())


def test_what_the_model_saw_can_be_looked_at_and_is_seen_the_same_again(finished, tmp_path):
    (tmp_path / "drawn").mkdir()
    for width in 5, 15:
        drawn(width=width).save(tmp_path / "drawn" / f"{width}.jpg")
    seen = tmp_path / "seen"
    predictions = predicted(finished, tmp_path / "drawn", show=seen)
    assert [path.name for path in sorted(seen.iterdir())] == ["0001-15.png", "0002-5.png"]
    again = predicted(finished, seen)
    for one, other in zip(predictions, again, strict=True):
        assert one["probabilities"] == other["probabilities"]


@pytest.mark.parametrize(
    ("stem", "shown"),
    [
        (251 * "a", 100 * "a"),
        ("x" + 83 * "号", "x" + 33 * "号"),  # of three bytes each
        (125 * "\udcff", 100 * "\udcff"),  # as names that are no UTF-8 are read
        ("a*{b}", "a*{b}"),
    ],
)
def test_what_the_model_saw_has_a_name_that_fits(finished, tmp_path, stem, shown):
    (tmp_path / "drawn").mkdir()
    drawn().save(tmp_path / "drawn" / f"{stem}.png")
    seen = tmp_path / "seen"
    assert len(predicted(finished, tmp_path / "drawn", show=seen)) == 1
    assert [path.name for path in seen.iterdir()] == [f"0001-{shown}.png"]


def test_a_folder_stands_for_its_files_in_the_order_of_their_names(finished, tmp_path):
    for name in "b.png", "a.png", ".hidden.png":
        drawn().save(tmp_path / name)
    (tmp_path / "c").mkdir()
    predictions = predicted(finished, tmp_path / "b.png", tmp_path)
    names = [Path(each["file"]).name for each in predictions]
    assert names == ["b.png", "a.png", "b.png"]


def test_many_images_are_classified_in_several_batches(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "AT_ONCE", 2)
    for number, image in enumerate(DIGITS.test.images[:5]):
        image_files.save(tmp_path / f"{number}.png", image, DIGITS.description)
    best = [next(iter(each["probabilities"])) for each in predicted(finished, tmp_path)]
    expected = saved_run.load(finished).probabilities(DIGITS.test.images[:5])
    assert best == [str(each) for each in np.argmax(expected, axis=1)]


# --- What becomes of a picture --------------------------------------------------------


def test_an_image_that_is_saved_is_loaded_as_it_was(tmp_path, rng):
    path = tmp_path / "image.png"
    for dataset, description in ("mnist", MNIST), ("cifar10", CIFAR10):
        image = rng.integers(0, 120, description.shape).astype(np.uint8)
        image_files.save(path, image, description)
        assert (image_files.load(path, dataset, description) == image).all()


def centre_of_mass(image):
    return [np.average(index, weights=image[..., 0]) for index in np.indices((28, 28))]


def extent(image):
    return [int(np.ptp(np.flatnonzero(image[..., 0].max(axis)))) + 1 for axis in (1, 0)]


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (220, 40), (0, 255)])
@pytest.mark.parametrize("width", [1, 9, 20])
def test_a_digit_is_cut_out_and_centred_as_in_mnist(tmp_path, paper, ink, width):
    image = loaded(tmp_path / "seven.png", drawn(paper=paper, ink=ink, width=width))
    assert image.shape == (28, 28, 1)
    assert (image.dtype, image.min(), image.max()) == (np.uint8, 0, 255)
    assert extent(image)[0] == 20
    assert 10 <= extent(image)[1] <= 17
    np.testing.assert_allclose(centre_of_mass(image), 14, atol=0.6)


def test_a_wide_digit_is_as_wide_as_the_box(tmp_path):
    picture = drawn().resize((600, 75))
    assert extent(loaded(tmp_path / "wide.png", picture))[1] == 20


def test_a_digit_fills_the_height_of_the_small_digits(tmp_path):
    image = loaded(tmp_path / "seven.png", drawn(), "digits", DIGITS.description)
    assert image.shape == (8, 8, 1)
    assert image.max() == 16
    assert (image.max(axis=(1, 2)) > 0).all()
    assert not image[:, 0].any()


def test_grain_and_shadows_are_no_ink(tmp_path, rng):
    shadow = np.linspace(-25, 0, 200) + rng.normal(0, 5, (150, 200))
    pixels = np.asarray(drawn(paper=230, ink=30)) + shadow
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = loaded(tmp_path / "photograph.png", picture)
    clean = loaded(tmp_path / "clean.png", drawn())
    np.testing.assert_allclose(centre_of_mass(image), 14, atol=0.6)
    assert np.abs(image.astype(float) - clean).mean() < 4


def test_the_thinnest_line_is_still_a_line(tmp_path):
    picture = Image.new("L", (3000, 4000), 255)
    ImageDraw.Draw(picture).line([(1500, 200), (1500, 3700)], 0, 1)
    assert extent(loaded(tmp_path / "line.png", picture)) == [20, 1]


def on_transparency():
    ink = drawn().point(lambda gray: 255 - gray)
    picture = Image.new("RGBA", ink.size, (255, 0, 255, 0))
    picture.paste((0, 0, 0, 255), mask=ink)
    return picture


def turned():
    """Lying on its side, as a camera held upright writes it, and what says so."""
    picture = drawn().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: to be turned by 90° clockwise
    return picture, exif


VARIANTS = {
    "colour.png": lambda: (drawn(mode="RGB", paper="white", ink="black"), {}),
    "palette.png": lambda: (drawn().convert("P"), {}),
    "bilevel.png": lambda: (drawn().convert("1"), {}),
    "deep.png": lambda: (Image.fromarray(np.asarray(drawn()).astype(np.uint16) * 257), {}),
    "transparent.png": lambda: (on_transparency(), {}),
    "transparent-gray.png": lambda: (on_transparency().convert("LA"), {}),
    "transparent-palette.png": lambda: (on_transparency().quantize(2), {}),
    "turned.png": lambda: (turned()[0], {"exif": turned()[1]}),
    "animated.gif": lambda: (
        drawn(),
        {"save_all": True, "append_images": [Image.new("L", (200, 150), 255)]},
    ),
    "print.tiff": lambda: (drawn(mode="CMYK", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)), {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_however_a_picture_is_stored_it_looks_the_same(tmp_path, name):
    picture, how = VARIANTS[name]()
    image = loaded(tmp_path / name, picture, **how)
    np.testing.assert_array_equal(image, loaded(tmp_path / "plain.png", drawn()))


def test_the_same_picture_as_jpeg_looks_almost_the_same(tmp_path):
    image, plain = (
        loaded(tmp_path / f"picture.{kind}", drawn()) for kind in ("jpg", "png")
    )
    np.testing.assert_allclose(image.astype(float), plain, atol=20)


def test_bright_and_dark_change_places_as_one_says(tmp_path):
    picture = Image.new("L", (28, 28), 255)
    path = tmp_path / "page.png"
    for invert, brightness in {"auto": 0, "yes": 0, "no": 255}.items():
        image = loaded(path, picture, "fashion-mnist", CLOTHES, invert)
        assert (image == brightness).all()


def test_clothes_keep_their_aspect_ratio_on_black(tmp_path):
    picture = Image.new("L", (400, 200), 255)
    picture.paste(55, (20, 20, 380, 180))
    image = loaded(tmp_path / "bag.png", picture, "fashion-mnist", CLOTHES)[..., 0]
    assert not image[:7].any()
    assert not image[21:].any()
    np.testing.assert_allclose(image[11:17, 5:23], 200.0, atol=2)


def test_photographs_keep_their_colours_and_are_padded_with_their_border(tmp_path):
    picture = Image.new("RGB", (100, 200), (250, 240, 230))
    picture.paste((200, 10, 20), (10, 20, 90, 180))
    image = loaded(tmp_path / "photograph.png", picture, "cifar10", CIFAR10)
    assert (image[:, :8] == (250, 240, 230)).all()
    assert (image[:, 24:] == (250, 240, 230)).all()
    np.testing.assert_allclose(image[13:19, 15:17].min((0, 1)), (200, 10, 20), atol=3)


# --- What is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("words.txt", b"no picture", "cannot identify image file"),
        ("empty.png", b"", "cannot identify image file"),
        ("cut.png", None, "cannot be used"),
    ],
)
def test_a_file_that_is_no_picture_is_named(finished, tmp_path, name, content, said):
    drawn().save(tmp_path / "picture.png")
    whole = (tmp_path / "picture.png").read_bytes()
    (tmp_path / name).write_bytes(whole[:-60] if content is None else content)
    with pytest.raises(ValueError, match=said) as refusal:
        predicted(finished, tmp_path)
    assert str(tmp_path / name) in str(refusal.value)


def test_files_that_cannot_be_used_are_skipped_and_named_at_the_end(
    finished, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "500")  # so that no name is broken into lines
    pages, output, show = tmp_path / "pages", tmp_path / "all.json", tmp_path / "seen"
    pages.mkdir()
    for name in "b.png", "d.png":
        drawn().save(pages / name)
    (pages / "a.png").write_bytes(b"no picture")
    names = [pages / f"{each}.png" for each in "abd"]
    with pytest.raises(ValueError) as refusal:
        predicted(finished, *names, output=output, show=show)
    first, second = str(refusal.value).splitlines()
    assert first == "1 of 3 pictures were skipped:"
    assert second.startswith(f"{pages / 'a.png'} cannot be used")
    written = json.loads(output.read_text())
    assert [each["file"] for each in written] == [str(each) for each in names[1:]]
    assert [path.name for path in sorted(show.iterdir())] == ["0001-b.png", "0002-d.png"]
    assert capsys.readouterr().out.count("b.png") == 1
    with pytest.raises(ValueError, match=r"^1 of 1 pictures were skipped"):
        predicted(finished, names[0])


def test_an_empty_page_is_named(tmp_path, rng):
    grain = Image.fromarray(rng.integers(235, 250, (90, 90)).astype(np.uint8))
    with pytest.raises(ValueError, match=r"page\.png cannot .* stands out from its border"):
        loaded(tmp_path / "page.png", grain)


def png_of(width, height):
    """The beginning of a picture, which announces its size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + b"\0\0\0\4IDAT"
    )


@pytest.mark.parametrize("size", [(2**13, 2**13 + 1), (2**17, 2**16)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(*size))
    with pytest.raises(ValueError) as refusal:
        image_files.load(path, "mnist", MNIST)
    assert (
        str(refusal.value) == f"{path} cannot be used: it has more than 67,108,864 pixels"
    )


def test_a_large_picture_takes_a_few_times_the_memory_of_its_pixels(tmp_path):
    path = tmp_path / "large.png"
    drawn(size=(2000, 1500)).save(path)
    image_files.load(path, "mnist", MNIST)
    tracemalloc.start()
    image_files.load(path, "mnist", MNIST)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 12 * 2000 * 1500  # beside what pillow holds; it was 32


DAMAGED_PICTURES = {
    "texture.blp": b"BLP2" + bytes(8) + struct.pack("<II", 8, 8) + bytes(2000),
    "icon.ico": b"\0\0\1\0\1\0" + bytes(16) + bytes(40),
    "cut.avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(60),
    "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "negative.bmp": b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, -9, -9, 1, 24, 0),
}


@pytest.mark.parametrize("name", DAMAGED_PICTURES)
def test_whatever_pillow_makes_of_a_damaged_picture_the_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED_PICTURES[name])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be used: "):
        image_files.load(path, "mnist", MNIST)


@pytest.mark.parametrize(
    "error",
    [KeyError("size"), RecursionError("too deep"), MemoryError(), struct.error("4")],
)
def test_a_reader_that_fails_is_a_damaged_file(tmp_path, monkeypatch, error):
    path = tmp_path / "picture.png"
    drawn().save(path)
    monkeypatch.setattr(Image, "open", mock.Mock(side_effect=error))
    with pytest.raises(ValueError) as refusal:
        image_files.load(path, "mnist", MNIST)
    said = f"{error} ({type(error).__name__})".strip()
    assert str(refusal.value) == f"{path} cannot be used: {said}"


def test_numbers_that_may_mean_any_brightness_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"floats\.tiff cannot .* mode F"):
        loaded(tmp_path / "floats.tiff", drawn().convert("F"))


def test_there_must_be_something_to_classify(finished, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture in the folder"):
        predicted(finished, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        predicted(finished, tmp_path / "missing.png")
    with pytest.raises(ValueError, match="pictures are missing"):
        predicted(finished)


def test_photographs_are_never_inverted(tmp_path):
    options = Options(dataset="cifar10", model="lenet5")
    in_colour = untrained.saved(tmp_path / "run", options, CIFAR10).folder
    path = tmp_path / "photograph.png"
    Image.new("RGB", (40, 40), "white").save(path)
    assert len(predicted(in_colour, path)) == 1
    with pytest.raises(ValueError, match="--invert is yes; images of cifar10"):
        predicted(in_colour, path, invert="yes")


@pytest.mark.parametrize("option", ["output", "show"])
def test_nothing_is_overwritten(finished, tmp_path, option):
    drawn().save(tmp_path / "seven.png")
    before = (tmp_path / "seven.png").read_bytes()
    with pytest.raises(FileExistsError, match=f"--{option} .* exists"):
        predicted(finished, tmp_path, **{option: tmp_path / "seven.png"})
    assert (tmp_path / "seven.png").read_bytes() == before
    with pytest.raises(FileNotFoundError, match=f"--{option} is .* there is no folder"):
        predicted(finished, tmp_path, **{option: tmp_path / "none" / "new"})


def test_a_mistake_ends_the_command_with_a_sentence(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "experiments.predict", str(tmp_path), "picture.png"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {tmp_path} is no run folder")
