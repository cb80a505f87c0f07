"""Augmented images: what may change, and that everything that may happen does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import augmentation
from experiments.run.augmentation import Augmentation


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: experiments run with JAX's defaults."""


KEY = jax.random.key(0)


def changed(function, images, *how, key=KEY):
    """Every image changed, by a key of its own."""

    @jax.jit
    def of_all(key, images):
        keys = jax.random.split(key, len(images))
        return jax.vmap(lambda key, image: function(key, image, *how))(keys, images)

    return np.asarray(of_all(key, images))


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.integers(1, 256, (400, 6, 8, 2)), jnp.uint8)


def test_a_shift_moves_every_image_by_itself_and_brings_in_black(images):
    moved = changed(augmentation.shift, images, 2)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, whole in zip(moved, padded, strict=True):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(image, whole[i : i + 6, j : j + 8])
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25


def test_half_of_the_images_are_mirrored_and_nothing_else(images):
    flipped = changed(augmentation.flip, images)
    mirrored = np.asarray(images)[:, :, ::-1]
    is_mirrored = np.all(flipped == mirrored, axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped[~is_mirrored], np.asarray(images)[~is_mirrored])
    assert 140 < is_mirrored.sum() < 260  # 200, and six standard deviations of 10


def test_cutout_blacks_out_one_square_of_each_image(images):
    cut = changed(augmentation.cutout, images, 3)
    is_out = np.all(cut == 0, axis=-1)
    np.testing.assert_array_equal(cut[~is_out], np.asarray(images)[~is_out])
    areas = set()
    for out in is_out:
        rows, columns = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
        assert out.sum() == len(rows) * len(columns)
        assert rows.max() - rows.min() + 1 == len(rows) in (2, 3)
        assert columns.max() - columns.min() + 1 == len(columns) in (2, 3)
        areas.add((rows[0], columns[0]))
    assert len(areas) == 5 * 7  # a square begins before the first and ends behind the last


def test_a_crop_enlarges_a_part():
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (24, 24))
    images = np.tile(ramp[None, ..., None], (200, 1, 1, 1))
    enlarged = changed(augmentation.crop, images, 0.5).astype(int)
    # Down a ramp of 10 a pixel it is the slope that the enlargement divides.
    slopes = (enlarged[:, 12, 12, 0] - enlarged[:, 8, 12, 0]) / 4
    assert slopes.min() >= 5 - 0.25  # a rounding at either end, four pixels apart
    assert slopes.max() <= 10 + 0.25
    assert slopes.max() - slopes.min() > 4
    assert np.ptp(enlarged[:, 12, 12, 0]) > 50  # and the part lies anywhere
    assert (np.ptp(enlarged, axis=2) == 0).all()


def test_an_augmentation_does_what_it_is_told_and_no_more(images):
    image = images[0]
    np.testing.assert_array_equal(Augmentation()(KEY, image), image)

    @jax.jit
    def in_two_ways(key, image):
        shifted = augmentation.shift(jax.random.fold_in(key, 0), image, 2)
        flipped = augmentation.flip(jax.random.fold_in(key, 1), shifted)
        return Augmentation(shift=2, flip=True)(key, image), flipped

    both, flipped = in_two_ways(KEY, image)
    np.testing.assert_array_equal(both, flipped)


def test_compiled_it_is_the_same_and_another_key_gives_others(images):
    all_of_it = Augmentation(crop=0.6, shift=1, flip=True, cutout=2)
    compiled = jax.jit(all_of_it)
    once = np.stack([compiled(KEY, image) for image in images[:5]])
    assert once.dtype == images.dtype
    again = np.stack([all_of_it(KEY, image) for image in images[:5]])
    # Fused sums may round an enlarged pixel to the other side.
    assert np.abs(once.astype(int) - again.astype(int)).max() <= 1
    assert np.any(once[0] != compiled(jax.random.key(1), images[0]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"crop": 0.0}, "crop is 0.0"),
        ({"crop": 1.5}, "crop is 1.5"),
        ({"crop": float("nan")}, "crop is nan"),
        ({"shift": -1}, "shift is -1"),
        ({"cutout": -2}, "cutout is -2"),
    ],
)
def test_an_option_out_of_range_is_refused(wrong, said):
    with pytest.raises(ValueError) as refusal:
        Augmentation(**wrong)
    assert said in str(refusal.value)
