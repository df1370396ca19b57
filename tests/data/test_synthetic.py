"""Images made on the fly."""

import time

import numpy as np
import pytest

from mpitrain.data.synthetic import open_synthetic
from mpitrain.job.errors import UserError


def data(spec="synthetic", shape=(3, 32, 32), classes=10, seed=0):
    return open_synthetic(spec, shape=shape, classes=classes, seed=seed)


def test_a_sample_number_is_always_the_same_image():
    images, labels = data().train.read(np.array([5, 70, 5]))
    again, labels_again = data().train.read(np.array([70]))
    assert np.array_equal(images[0], images[2]) and np.array_equal(images[1], again[0])
    assert labels.tolist() == [5, 0, 5] and labels_again.tolist() == [0]
    assert images.dtype == data().train.dtype == np.uint8 and labels.dtype == np.int64


def test_numbers_seeds_and_splits_differ():
    one = data()
    images = [
        one.train.read(np.arange(2))[0],
        data(seed=1).train.read(np.arange(2))[0],
        one.test.read(np.arange(2))[0],
    ]
    assert len({image.tobytes() for image in np.concatenate(images)}) == 6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 7, 5), (4, 2, 64)])
def test_any_shape_and_number_of_classes(shape):
    made = data(shape=shape, classes=3)
    images, labels = made.train.read(np.arange(9))
    assert images.shape == (9, *shape) and labels.tolist() == [0, 1, 2] * 3
    assert made.mean.shape == made.std.shape == (shape[0],) and (made.std > 0).all()
    assert made.train.read(np.arange(0))[0].shape == (0, *shape)


def test_the_pattern_can_be_learnt_and_is_weak():
    made = data(shape=(1, 28, 28))
    images, labels = made.train.read(np.arange(500))
    means = np.stack([images[labels == label].mean(0) for label in range(10)]) - images.mean(0)
    test, truth = made.test.read(np.arange(200))
    near = ((test - images.mean(0))[:, None] * means).sum((2, 3, 4)) - (means**2).sum((1, 2, 3)) / 2
    assert (near.argmax(1) == truth).mean() > 0.9
    assert means.std() < images.std() / 2


def test_a_count_can_be_given():
    assert (len(data("synthetic:10").train), len(data("synthetic:10").test)) == (10, 3)
    assert len(data().train) == 65_536
    for wrong in (
        "synthetic:",
        "synthetic:0",
        "synthetic:-1",
        "synthetic:ten",
        "synthetic:9999999999",
        "synthetic:²",
    ):
        with pytest.raises(UserError, match="expected synthetic:COUNT"):
            data(wrong)


def test_mean_and_std_are_those_of_the_images():
    made = data()
    images = made.train.read(np.arange(1000))[0] / 255
    np.testing.assert_allclose(made.mean, images.mean((0, 2, 3)), atol=0.01)
    np.testing.assert_allclose(made.std, images.std((0, 2, 3)), atol=0.01)


def test_an_imagenet_image_takes_less_than_a_millisecond():
    made = data(shape=(3, 224, 224), classes=1000)
    made.train.read(np.arange(2))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        made.train.read(np.arange(20))
        times.append((time.perf_counter() - start) / 20)
    assert min(times) < 1e-3
