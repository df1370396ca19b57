"""CIFAR's pickled folders."""

import pickle

import numpy as np
import pytest

from mpitrain.data import cifar_python
from mpitrain.data.source import open_source
from mpitrain.job.errors import UserError

RANDOM = np.random.default_rng(0)


def batch(file, count, key="labels", classes=10, **more):
    pixels = RANDOM.integers(0, 256, (count, 3072), np.uint8)
    labels = (np.arange(count) % classes).tolist()
    content = {b"data": pixels, key.encode(): labels, **more}
    file.write_bytes(pickle.dumps(content, 2))
    return pixels.reshape(-1, 3, 32, 32), labels


def ten(folder):
    parts = [batch(folder / f"data_batch_{number}", number) for number in range(1, 6)]
    names = [b"plane", b"car", *(str(n).encode() for n in range(2, 10))]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    return parts


def test_five_batches_are_one_split_in_their_order_with_names(tmp_path):
    parts = ten(tmp_path)
    batch(tmp_path / "test_batch", 4)
    data = open_source(str(tmp_path), shape_hint=(1, 8, 8))
    assert (data.shape, data.classes, data.class_names[:2]) == ((3, 32, 32), 10, ("plane", "car"))
    images, labels = data.train.read(np.arange(15))
    assert np.array_equal(images, np.concatenate([part[0] for part in parts]))
    assert labels.tolist() == [each for part in parts for each in part[1]] and len(data.test) == 4


def test_a_hundred_classes_are_the_fine_ones(tmp_path):
    _, labels = batch(tmp_path / "train", 101, "fine_labels", 100, coarse_labels=[0] * 101)
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": ["x"] * 100}, 4))
    data = open_source(str(tmp_path), shape_hint=(1, 8, 8))
    assert (data.classes, data.test, len(data.class_names)) == (100, None, 100)
    assert data.train.read(np.arange(101))[1].tolist() == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "got no dict"),
        ({}, "data is missing"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, r"data is \(2, 3071\)"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "labels is missing"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, "1"]}, "no list of whole numbers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "1 labels for 2 images"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1 << 70]}, "that is no class"),
        ({"data": np.zeros((2, 3072)), "labels": [0, 1]}, "array of another type"),
    ],
)
def test_a_batch_of_another_form_is_a_sentence_naming_the_file(tmp_path, content, message):
    ten(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match=rf"data_batch_3: .*{message}"):
        cifar_python.open_folder(tmp_path, classes=None)


def test_labels_outside_the_classes_are_named(tmp_path):
    ten(tmp_path)
    batch(tmp_path / "data_batch_1", 12, classes=12)
    with pytest.raises(UserError, match="image 10 has the label 10; expected 0 to 9"):
        cifar_python.open_folder(tmp_path, classes=None)


def test_a_missing_batch_is_named(tmp_path):
    ten(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(UserError, match="data_batch_4 is missing"):
        cifar_python.open_folder(tmp_path, classes=None)


def test_every_truncation_is_a_sentence(tmp_path):
    ten(tmp_path)
    file = tmp_path / "data_batch_1"
    whole = file.read_bytes()
    for length in [*range(120), *range(len(whole) - 60, len(whole))]:
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="data_batch_1"):
            cifar_python.open_folder(tmp_path, classes=None)
