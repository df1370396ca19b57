"""IDX files, plain and gzipped, whole and broken."""

import gzip
import os
import struct

import numpy as np
import pytest

from mpitrain.data import idx
from mpitrain.job.errors import UserError


def images_bytes(images, magic=0x803):
    return struct.pack(">4I", magic, *images.shape) + images.tobytes()


def labels_bytes(labels, magic=0x801):
    return struct.pack(">2I", magic, len(labels)) + np.asarray(labels, np.uint8).tobytes()


def pictures(count, height=6, width=5):
    return np.random.default_rng(count).integers(0, 256, (count, height, width), np.uint8)


def write(folder, prefix, images, labels, zipped=False, name="{}-{}-idx{}-ubyte"):
    pack, end = (gzip.compress, ".gz") if zipped else (bytes, "")
    (folder / (name.format(prefix, "images", 3) + end)).write_bytes(pack(images))
    (folder / (name.format(prefix, "labels", 1) + end)).write_bytes(pack(labels))


def read_all(split):
    return split.read(np.arange(len(split)))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
def test_images_and_labels_come_back_plain_and_gzipped(tmp_path, zipped, name):
    train, test = pictures(7), pictures(3)
    write(tmp_path, "train", images_bytes(train), labels_bytes([0, 1, 2, 3, 0, 1, 9]), zipped, name)
    write(tmp_path, "t10k", images_bytes(test), labels_bytes([3, 2, 1]), zipped, name)
    assert idx.found(tmp_path)
    data = idx.open_folder(tmp_path, classes=None)
    assert (data.name, data.shape, data.classes) == (tmp_path.name, (1, 6, 5), 10)
    assert np.array_equal(read_all(data.train)[0], train[:, None])
    assert read_all(data.train)[1].tolist() == [0, 1, 2, 3, 0, 1, 9]
    assert np.array_equal(read_all(data.test)[0], test[:, None])
    assert data.train.dtype == np.uint8 and data.train.labels.dtype == np.int64


def test_without_t10k_there_is_no_test_split(tmp_path):
    write(tmp_path, "train", images_bytes(pictures(2)), labels_bytes([0, 1]))
    assert idx.open_folder(tmp_path, classes=None).test is None


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("which", ["images", "labels"])
def test_every_truncation_and_any_extra_byte_is_an_error_naming_the_file(tmp_path, zipped, which):
    whole = {"images": images_bytes(pictures(2, 3, 2)), "labels": labels_bytes([0, 1])}
    write(tmp_path, "train", whole["images"], whole["labels"], zipped)
    number, end = ("3" if which == "images" else "1"), (".gz" if zipped else "")
    file = tmp_path / f"train-{which}-idx{number}-ubyte{end}"
    content = file.read_bytes()
    cut = [content[:length] for length in range(len(content))] + [content + b"x"]
    if zipped:  # cut before it was packed, and longer than it says
        cut += [gzip.compress(whole[which][:length]) for length in range(len(whole[which]))]
        cut += [gzip.compress(whole[which] + b"x")]
    for wrong in cut:
        file.write_bytes(wrong)
        with pytest.raises(UserError) as error:
            idx.open_folder(tmp_path, classes=None)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
    file.write_bytes(content)
    assert len(idx.open_folder(tmp_path, classes=None).train) == 2


@pytest.mark.parametrize("zipped", [False, True])
def test_every_flipped_byte_is_an_error_or_a_dataset(tmp_path, zipped):
    write(tmp_path, "train", images_bytes(pictures(2, 3, 2)), labels_bytes([0, 1]), zipped)
    file = tmp_path / f"train-images-idx3-ubyte{'.gz' if zipped else ''}"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert len(idx.open_folder(tmp_path, classes=None).train) == 2
        except UserError as error:
            assert str(tmp_path) in str(error)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_header_that_promises_too_much_allocates_nothing(tmp_path, zipped):
    lie = struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)
    write(tmp_path, "train", lie, labels_bytes([0]), zipped)
    with pytest.raises(
        UserError, match="its header says 4294967295 images of 4294967295x4294967295"
    ):
        idx.open_folder(tmp_path, classes=None)


def test_wrong_magic_numbers_are_an_error(tmp_path):
    write(tmp_path, "train", images_bytes(pictures(2), magic=0xD03), labels_bytes([0, 1]))
    with pytest.raises(UserError, match="idx3-ubyte: magic number 0x00000d03; expected 0x00000803"):
        idx.open_folder(tmp_path, classes=None)
    write(tmp_path, "train", labels_bytes([0, 1]), images_bytes(pictures(2)))
    with pytest.raises(UserError, match="magic number 0x00000801; expected 0x00000803"):
        idx.open_folder(tmp_path, classes=None)


def test_empty_files_and_unlike_counts_are_an_error(tmp_path):
    write(tmp_path, "train", images_bytes(pictures(0)), labels_bytes([]))
    with pytest.raises(UserError, match="0 images of 6x5; expected at least one"):
        idx.open_folder(tmp_path, classes=None)
    write(tmp_path, "train", images_bytes(pictures(3)), labels_bytes([0, 1]))
    with pytest.raises(
        UserError, match=r"labels-idx1-ubyte: 2 labels; expected 3, .*images-idx3-ubyte"
    ):
        idx.open_folder(tmp_path, classes=None)


@pytest.mark.parametrize(
    "missing", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
)
def test_a_missing_file_is_named(tmp_path, missing):
    write(tmp_path, "train", images_bytes(pictures(2)), labels_bytes([0, 1]))
    write(tmp_path, "t10k", images_bytes(pictures(2)), labels_bytes([0, 1]))
    (tmp_path / f"{missing}-ubyte").unlink()
    with pytest.raises(
        UserError, match=f"expected {missing}-ubyte or {missing}-ubyte.gz, found neither"
    ):
        idx.open_folder(tmp_path, classes=None)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_an_unreadable_file_is_an_error(tmp_path):
    write(tmp_path, "train", images_bytes(pictures(2)), labels_bytes([0, 1]))
    (tmp_path / "train-images-idx3-ubyte").chmod(0)
    with pytest.raises(UserError, match=r"images-idx3-ubyte.*Permission denied"):
        idx.open_folder(tmp_path, classes=None)


def test_a_plain_file_is_mapped_and_not_read(tmp_path):
    """60,000 images cost nothing until they are asked for."""
    images = np.zeros((60_000, 28, 28), np.uint8)
    write(tmp_path, "train", images_bytes(images), labels_bytes(np.arange(60_000) % 10))
    train = idx.open_folder(tmp_path, classes=None).train
    assert len(train) == 60_000
    array = train.images
    while not isinstance(array, np.memmap):
        assert array.base is not None, "the images were copied into memory"
        array = array.base
