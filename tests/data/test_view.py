"""Random parts and colours of training images."""

import numpy as np
import pytest

from mpitrain.data.dataset import ArraySplit
from mpitrain.data.view import AREA, RATIO, STRENGTH, View, scaled

SHAPE = (3, 16, 16)
PICTURE = np.random.default_rng(0).integers(0, 256, (3, 40, 50)).astype(np.uint8)


def view(seed=0, epoch=0, shape=SHAPE, resized=True, jitter=False):
    return View(seed, epoch, shape, resized, jitter)


def boxes(each, width=500, height=375, count=2000):
    return np.array([each.cut(number)(width, height) for number in range(count)])


def test_parts_have_any_size_place_and_a_ratio_within_bounds():
    left, upper, right, lower = boxes(view()).T
    wide, high = right - left, lower - upper
    area, ratio = wide * high / (500 * 375), wide / high
    assert (left >= 0).all() and (upper >= 0).all() and (right <= 500).all()
    assert (lower <= 375).all() and (wide >= 1).all() and (high >= 1).all()
    assert AREA[0] - 0.01 < area.min() < 0.12 and area.max() > 0.9
    assert RATIO[0] - 0.02 < ratio.min() < 0.77 and 1.3 < ratio.max() < RATIO[1] + 0.02
    assert 0.4 < np.log(ratio).mean() + 0.5 < 0.6, "as often wide as high"
    assert 0.4 < (left / np.maximum(500 - wide, 1)).mean() < 0.6


def test_a_part_depends_on_seed_epoch_and_image_alone():
    assert np.array_equal(boxes(view()), boxes(view()))
    others = [view(seed=1), view(epoch=1)]
    assert all(not np.array_equal(boxes(view(), count=5), boxes(each, count=5)) for each in others)
    assert len({tuple(box) for box in boxes(view(), count=50).tolist()}) == 50


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_the_longest_and_the_smallest_images_have_a_part(size):
    for left, upper, right, lower in boxes(view(), *size, count=50):
        assert 0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]


def test_a_wide_network_sees_wide_parts():
    left, upper, right, lower = boxes(view(shape=(3, 10, 20)), 1000, 1000).T
    ratio = (right - left) / (lower - upper)
    assert ratio.min() > 1.45 and ratio.max() < 2.7


def test_a_whole_image_scaled_to_its_own_size_is_itself():
    whole = scaled(PICTURE, lambda width, height: (0, 0, width, height), (3, 40, 50))
    assert np.array_equal(whole, PICTURE)
    floats = PICTURE.astype(np.float32) - 300
    part = scaled(floats, lambda width, height: (10, 5, 20, 12), (3, 7, 10))
    assert part.dtype == np.float32 and np.allclose(part, floats[:, 5:12, 10:20])


def test_colours_change_within_bounds_and_not_places():
    grey = np.full((3, 4, 4), 100, np.uint8)
    found = [view(jitter=True).colour(number, grey) for number in range(300)]
    values = np.array([image[0, 0, 0] for image in found])
    assert all((image == image[0, 0, 0]).all() for image in found), "grey stays grey"
    assert 100 * (1 - STRENGTH) - 1 <= values.min() < 65 and 135 < values.max() <= 141
    changed = view(jitter=True).colour(3, PICTURE)
    assert changed.dtype == np.uint8 and not np.array_equal(changed, PICTURE)
    assert np.corrcoef(changed.ravel(), PICTURE.ravel())[0, 1] > 0.8
    assert view(jitter=True).colour(3, PICTURE[:1]).shape == (1, 40, 50)
    assert view().colour(3, PICTURE) is PICTURE


def test_saturation_moves_colours_from_their_grey_and_keeps_it():
    red = np.zeros((3, 1, 1), np.uint8)
    red[0] = 100
    for number in range(40):
        r, g, b = view(jitter=True).colour(number, red).ravel().astype(float)
        assert g == b and r >= g
    assert len({tuple(view(jitter=True).colour(n, red).ravel()) for n in range(40)}) > 20


def test_arrays_are_looked_at_as_files_are(tmp_path):
    images = np.stack([PICTURE, PICTURE[:, ::-1]])
    split = ArraySplit(images, np.arange(2), tmp_path, tmp_path)
    seen = view(jitter=True)
    found, _ = split.read(np.array([1, 0, 1]), seen)
    assert found.shape == (3, *SHAPE) and np.array_equal(found[0], found[2])
    want = seen.colour(1, scaled(images[1], seen.cut(1), SHAPE))
    assert np.array_equal(found[0], want)
