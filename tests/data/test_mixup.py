"""Images and labels blended in pairs."""

import numpy as np
import pytest

from mpitrain.data.mixup import mix, pairs
from mpitrain.data.share import parts

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 2, 3, 4)).astype(np.uint8)
LABELS = np.arange(11, dtype=np.int32)


def blended(part, batch, alpha=0.3, images=IMAGES, step=2):
    wide = pairs(part, batch)
    return mix(images[wide], LABELS[wide], part, batch, step, 5, alpha)


@pytest.mark.parametrize("batch", [10, 11])
def test_neighbours_are_blended_by_the_shares_that_their_labels_get(batch):
    images, labels, mixed = blended(slice(0, batch), batch)
    assert labels.tolist() == list(range(batch))
    for place in range(batch):
        other = place ^ 1 if place ^ 1 < batch else place
        share = mixed.shares[place]
        want = share * IMAGES[place] + (1 - share) * IMAGES[other]
        assert np.abs(images[place] - want).max() <= 0.51 and mixed.others[place] == other
    assert np.array_equal(images[10], IMAGES[10]) if batch == 11 else True


@pytest.mark.parametrize("size", [2, 3, 4, 11])
def test_parts_are_blended_as_the_whole_batch_is(size):
    whole = blended(slice(0, 11), 11)
    for part in parts(11, size):
        assert 0 <= pairs(part, 11).start <= part.start <= part.stop <= pairs(part, 11).stop <= 11
        images, labels, mixed = blended(part, 11)
        assert np.array_equal(images, whole[0][part]) and np.array_equal(labels, whole[1][part])
        assert np.array_equal(mixed.others, whole[2].others[part])
        assert np.array_equal(mixed.shares, whole[2].shares[part])
        assert np.array_equal(mixed[1:].shares, mixed.shares[1:])


def test_shares_are_betas_and_steps_draw_others():
    many = np.zeros((4000, 1, 1, 1), np.float32)
    labels = np.zeros(4000, np.int32)
    for alpha in (0.2, 1.0):
        drawn = mix(many, labels, slice(0, 4000), 4000, 0, 0, alpha)[2].shares
        assert drawn.min() >= 0 and drawn.max() <= 1 and abs(drawn.mean() - 0.5) < 0.03
        assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    assert not np.array_equal(blended(slice(0, 4), 10)[0], blended(slice(0, 4), 10, step=3)[0])


def test_float_images_stay_floats():
    images, _, mixed = blended(slice(0, 10), 10, images=IMAGES.astype(np.float32) / 7)
    share = mixed.shares[0]
    want = (share * IMAGES[0] + (1 - share) * IMAGES[1]) / 7
    assert images.dtype == np.float32 and np.allclose(images[0], want, rtol=1e-5)
