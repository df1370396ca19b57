"""CIFAR binary folders."""

import numpy as np
import pytest

from mpitrain.data import cifar
from mpitrain.job.errors import UserError


def records(labels, seed=0):
    """Bytes of one record a row of labels, and their pixels."""
    labels = np.atleast_2d(np.asarray(labels, np.uint8).T).T
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return np.hstack([labels, pixels]).tobytes(), pixels.reshape(-1, 3, 32, 32)


def write_ten(folder):
    parts = []
    for number in range(1, 6):
        content, pixels = records([number, 0], seed=number)
        (folder / f"data_batch_{number}.bin").write_bytes(content)
        parts.append(pixels)
    content, test = records([9, 8, 7], seed=9)
    (folder / "test_batch.bin").write_bytes(content)
    return np.concatenate(parts), test


def test_cifar10_is_its_five_files_in_order(tmp_path):
    train, test = write_ten(tmp_path)
    assert cifar.found(tmp_path)
    data = cifar.open_folder(tmp_path, classes=None)
    assert (data.name, data.shape, data.classes) == (tmp_path.name, (3, 32, 32), 10)
    images, labels = data.train.read(np.arange(10))
    assert np.array_equal(images, train) and labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    images, labels = data.test.read(np.arange(3))
    assert np.array_equal(images, test) and labels.tolist() == [9, 8, 7]


def test_cifar100_takes_the_fine_label(tmp_path):
    content, pixels = records([[19, 99], [3, 0]])
    (tmp_path / "train.bin").write_bytes(content)
    data = cifar.open_folder(tmp_path, classes=None)
    images, labels = data.train.read(np.array([1, 0]))
    assert np.array_equal(images, pixels[::-1]) and labels.tolist() == [0, 99]
    assert data.classes == 100 and data.test is None


def test_a_missing_training_file_is_named(tmp_path):
    write_ten(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_3\.bin is missing"):
        cifar.open_folder(tmp_path, classes=None)


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_truncated_file_is_an_error_with_both_sizes(tmp_path, length):
    write_ten(tmp_path)
    file = tmp_path / "data_batch_4.bin"
    file.write_bytes(bytes(length))
    with pytest.raises(
        UserError, match=rf"data_batch_4\.bin: {length} bytes; expected whole records of 3073"
    ):
        cifar.open_folder(tmp_path, classes=None)


@pytest.mark.parametrize(("label", "classes", "most"), [(10, None, 9), (200, 300, 9), (5, 5, 4)])
def test_a_label_out_of_range_names_its_own_file(tmp_path, label, classes, most):
    write_ten(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(records([0, label])[0])
    for number in (1, 3, 4, 5):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(records([0, 1])[0])
    with pytest.raises(
        UserError, match=rf"data_batch_2\.bin: image 1 has the label {label}; expected 0 to {most}"
    ):
        cifar.open_folder(tmp_path, classes=classes)
