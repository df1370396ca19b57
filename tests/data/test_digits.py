"""The digits that come with mpitrain."""

import hashlib

import numpy as np

from mpitrain.data import digits

SHA256 = "e45e2378b9551d56ef92c9cab34281d5663e00daac408bda2818588828e70ac8"
"""Of images, labels, test_images and test_labels as tests/data/make_digits.py makes them."""


def arrays():
    data = digits.open_digits()
    return data, [
        *data.train.read(np.arange(len(data.train))),
        *data.test.read(np.arange(len(data.test))),
    ]


def test_the_arrays_are_those_of_the_making_script():
    hashed = hashlib.sha256(
        b"".join(np.ascontiguousarray(array).tobytes() for array in arrays()[1])
    )
    assert hashed.hexdigest() == SHA256


def test_1437_to_train_and_360_to_test_of_mnists_form():
    data, (images, _, test, _) = arrays()
    assert (len(data.train), len(data.test), data.shape, data.classes) == (
        1437,
        360,
        (1, 28, 28),
        10,
    )
    assert data.name == "digits" and data.class_names == tuple("0123456789")
    edge = np.ones((28, 28), bool)
    edge[4:24, 4:24] = False
    assert not images[:, 0, edge].any() and not test[:, 0, edge].any() and images.max() == 255


def test_both_splits_hold_each_class_in_like_parts_and_share_no_image():
    _, (images, labels, test, test_labels) = arrays()
    parts = np.bincount(test_labels) / (np.bincount(test_labels) + np.bincount(labels))
    assert len(parts) == 10 and np.abs(parts - 0.2).max() < 0.005
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in test}


def test_the_nearest_training_image_names_a_test_digit():
    _, (images, labels, test, test_labels) = arrays()
    x, y = (part.reshape(len(part), -1).astype(np.float32) for part in (images, test))
    nearest = ((x**2).sum(1)[None] - 2 * y @ x.T).argmin(1)
    assert (labels[nearest] == test_labels).mean() > 0.97


def test_the_licence_is_beside_them():
    text = digits.DIGITS.with_suffix(".txt").read_text()
    assert "10.24432/C50P49" in text and "CC BY 4.0" in text and "Changes" in text


def test_more_classes_may_be_asked_for():
    assert digits.open_digits(classes=12).classes == 12
