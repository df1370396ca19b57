"""Checks and statistics of a dataset."""

from pathlib import Path

import numpy as np
import pytest

from mpitrain.data import dataset
from mpitrain.data.dataset import ArraySplit, from_arrays, statistics
from mpitrain.job.errors import UserError


def split(images, labels):
    return ArraySplit(
        np.asarray(images), np.asarray(labels, np.int64), Path("images"), Path("labels")
    )


def pictures(count=50, shape=(3, 9, 7), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 300, 301), (2, 1, 1)])
def test_mean_and_std_are_those_of_all_pixels(shape):
    images = pictures(40, shape)
    mean, std = statistics(split(images, np.zeros(40)))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-6)


def test_mean_and_std_of_white_images_do_not_overflow():
    mean, std = statistics(split(np.full((70, 1, 256, 256), 255, np.uint8), np.zeros(70)))
    assert mean.tolist() == [1.0] and std.tolist() == [1.0]


def test_a_large_set_is_sampled_and_comes_close(monkeypatch):
    monkeypatch.setattr(dataset, "EXACT_PIXELS", 1000)
    monkeypatch.setattr(dataset, "SAMPLED_IMAGES", 200)
    images = pictures(1000)
    sampled, exact = statistics(split(images, np.zeros(1000))), (images / 255).mean((0, 2, 3))
    assert not np.array_equal(sampled[0], exact.astype(np.float32))
    np.testing.assert_allclose(sampled[0], exact, atol=0.02)
    assert np.array_equal(sampled[0], statistics(split(images, np.zeros(1000)))[0])


def test_float_images_are_taken_as_they_are():
    mean, std = statistics(split(np.ones((4, 2, 3, 3), np.float32) * 9, np.zeros(4)))
    assert mean.tolist() == [0, 0] and std.tolist() == [1, 1]


def test_classes_are_the_highest_label_of_both_splits_plus_one_unless_given():
    train, test = split(pictures(3), [0, 4, 1]), split(pictures(2), [6, 0])
    assert from_arrays("x", train, None, classes=None).classes == 5
    assert from_arrays("x", train, test, classes=None).classes == 7
    assert from_arrays("x", train, test, classes=10).classes == 10


def test_reading_gives_the_numbered_images_and_cannot_change_the_set():
    images = pictures(10)
    part = split(images, range(10))
    got, labels = part.read(np.array([7, 2, 7]))
    assert np.array_equal(got, images[[7, 2, 7]]) and labels.tolist() == [7, 2, 7]
    got[:] = 0
    assert images[7].any()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 5, 1], 5, "^labels: image 1 has the label 5; expected 0 to 4"),
        ([0, 1, -1], None, "^labels: image 2 has the label -1; expected 0 to 1"),
        ([-1, -1, -2], None, "has the label -1"),
        ([0, 1, 1 << 40], None, "has the label 1099511627776; expected 0 to 1048575"),
        ([0, 1], None, "^labels: 2 labels; expected 3, one for each image of images"),
    ],
)
def test_wrong_labels_are_an_error(labels, classes, message):
    with pytest.raises(UserError, match=message):
        from_arrays("x", split(pictures(3), labels), None, classes=classes)


def test_empty_or_unlike_splits_are_an_error():
    with pytest.raises(UserError, match=r"^images: 0 images of 3x9x7; expected at least one"):
        from_arrays("x", split(pictures(0), []), None, classes=None)
    with pytest.raises(UserError, match="2 images of 3x0x7"):
        from_arrays("x", split(pictures(2, (3, 0, 7)), [0, 1]), None, classes=None)
    with pytest.raises(
        UserError, match="test images are 3x7x9 uint8; expected 3x9x7 uint8 like the training"
    ):
        from_arrays(
            "x", split(pictures(2), [0, 1]), split(pictures(2, (3, 7, 9)), [0, 1]), classes=None
        )
    with pytest.raises(UserError, match="float32; expected 3x9x7 uint8"):
        test = split(pictures(2).astype(np.float32), [0, 1])
        from_arrays("x", split(pictures(2), [0, 1]), test, classes=None)


@pytest.mark.parametrize("sampled", [False, True])
def test_other_pixels_or_labels_are_another_identity(monkeypatch, sampled):
    if sampled:
        monkeypatch.setattr(dataset, "EXACT_PIXELS", 1000)
        monkeypatch.setattr(dataset, "SAMPLED_IMAGES", 10)
    images, labels = pictures(50), np.arange(50) % 7
    same = split(images, labels).identity()
    assert split(images.copy(), labels).identity() == same
    assert split(images.astype(np.float32), labels).identity() != same
    assert split(images, np.where(np.arange(50) == 3, 6 - labels, labels)).identity() == same
    assert split(images, np.where(np.arange(50) == 2, 6 - labels, labels)).identity() != same
    changed = images.copy()
    changed[45, 2, 8, 6] ^= 1
    assert split(changed, labels).identity() != same
