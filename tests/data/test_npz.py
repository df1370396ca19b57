"""NumPy archives, whole and broken."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from mpitrain.data.npz import open_npz
from mpitrain.job.errors import UserError


def pictures(count, shape=(3, 4, 5), dtype=np.uint8):
    return np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(dtype)


def header(shape, dtype="|u1"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def pack(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["uint8", "<f4", ">f4"])
@pytest.mark.parametrize("labels_dtype", ["int64", "uint8", ">i4"])
def test_arrays_come_back(tmp_path, save, dtype, labels_dtype):
    images, test = pictures(6, dtype=dtype), np.asfortranarray(pictures(2, dtype=dtype))
    labels = np.array([0, 1, 2, 3, 4, 5], labels_dtype)
    save(
        tmp_path / "set.npz", images=images, labels=labels, test_images=test, test_labels=labels[:2]
    )
    data = open_npz(tmp_path / "set.npz", classes=None)
    assert (data.name, data.shape, data.classes) == ("set", (3, 4, 5), 6)
    got, numbers = data.train.read(np.arange(6))
    assert np.array_equal(got, images) and numbers.tolist() == list(range(6))
    assert (
        got.dtype == data.train.dtype == np.dtype(dtype).newbyteorder("=")
        and numbers.dtype == np.int64
    )
    assert np.array_equal(data.test.read(np.arange(2))[0], test)


def test_images_with_their_channels_last_are_refused_unless_a_layout_is_named(tmp_path):
    file, images = tmp_path / "set.npz", pictures(6, (32, 30, 3))
    np.savez(file, images=images, labels=np.arange(6))
    with pytest.raises(UserError, match=r"looks like \(n, H, W, C\); expected \(n, C, H, W\)"):
        open_npz(file, classes=None)
    data = open_npz(file, classes=None, layout="nhwc")
    assert data.shape == (3, 32, 30)
    assert np.array_equal(data.train.read(np.arange(6))[0], images.transpose(0, 3, 1, 2))
    assert open_npz(file, classes=None, layout="nchw").shape == (32, 30, 3)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (512, 4, 4), (3, 4, 3), (64, 1, 1)])
def test_images_with_their_channels_first_need_no_layout(tmp_path, shape):
    np.savez(tmp_path / "set.npz", images=pictures(2, shape), labels=np.arange(2))
    assert open_npz(tmp_path / "set.npz", classes=None).shape == shape


@pytest.mark.parametrize("layout", [None, "nhwc", "nchw"])
def test_images_of_one_channel_need_no_axis_for_it(tmp_path, layout):
    grey = pictures(4, (9, 7))
    np.savez(tmp_path / "set.npz", images=grey, labels=np.arange(4).reshape(4, 1))
    data = open_npz(tmp_path / "set.npz", classes=None, layout=layout)
    images, labels = data.train.read(np.arange(4))
    assert np.array_equal(images[:, 0], grey) and labels.tolist() == [0, 1, 2, 3]


def test_keras_archives_are_known_by_their_names(tmp_path):
    """As keras.datasets leaves mnist.npz: grey images without an axis of channels."""
    x, y = pictures(6, (28, 28)), np.arange(6, dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = open_npz(tmp_path / "mnist.npz", classes=None)
    assert (data.shape, len(data.train), len(data.test)) == ((1, 28, 28), 6, 2)
    for shape in ((32, 32, 3), (3, 32, 32)):
        images = pictures(4, shape)
        np.savez(tmp_path / "cifar.npz", x_train=images, y_train=y[:4, None])
        data = open_npz(tmp_path / "cifar.npz", classes=None)
        moved = images.transpose(0, 3, 1, 2) if shape[2] == 3 else images
        assert np.array_equal(data.train.read(np.arange(4))[0], moved)


@pytest.mark.parametrize(("tested", "of"), [("test", "test"), ("val", "val"), ("both", "test")])
def test_medmnist_archives_are_known_by_their_names(tmp_path, tested, of):
    splits = {"train": 6, "val": 3, "test": 2}
    arrays = {
        f"{name}_{kind}": pictures(count, (28, 28, 3)) if kind == "images" else np.ones((count, 1))
        for name, count in splits.items()
        if name in ("train", tested) or tested == "both"
        for kind in ("images", "labels")
    }
    arrays |= {name: each.astype(np.uint8) for name, each in arrays.items() if "labels" in name}
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    data = open_npz(tmp_path / "pathmnist.npz", classes=9)
    assert (data.shape, len(data.train), len(data.test)) == ((3, 28, 28), 6, splits[of])
    assert data.test.read(np.arange(2))[1].tolist() == [1, 1]


def test_without_test_arrays_there_is_no_test_split(tmp_path):
    np.savez(tmp_path / "a.npz", images=pictures(2), labels=np.array([0, 1]))
    assert open_npz(tmp_path / "a.npz", classes=None).test is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pictures(2)}, "expected arrays images and labels, found images"),
        ({}, "found none"),
        (
            {"images": pictures(2).astype(np.float64), "labels": np.zeros(2, int)},
            "images is float64; expected uint8 or",
        ),
        (
            {"images": pictures(2).astype(np.int8), "labels": np.zeros(2, int)},
            "images is int8; expected uint8 or",
        ),
        ({"images": pictures(2), "labels": np.zeros(2)}, "labels is float64; expected integers"),
        (
            {"images": pictures(2), "labels": np.array(["a", "b"])},
            "labels is <U1; expected integers",
        ),
        (
            {"images": pictures(2)[:, 0, 0], "labels": np.zeros(2, int)},
            r"shape \(2, 5\); expected \(n, H, W\) or \(n, C, H, W\)",
        ),
        (
            {"images": pictures(2), "labels": np.zeros((2, 14), int)},
            r"shape \(2, 14\); expected \(n,\) or \(n, 1\), one class an image",
        ),
        (
            {"images": pictures(2), "labels": np.zeros((2, 1, 1), int)},
            r"shape \(2, 1, 1\); expected \(n,\) or \(n, 1\)",
        ),
        ({"images": pictures(2), "x_train": pictures(2)}, "it has images and x_train; expected"),
        ({"x_train": pictures(2)}, "expected arrays x_train and y_train, found x_train"),
        ({"data": pictures(2)}, r"labels \(or x_train and y_train, or .*\), found data"),
        (
            {"train_images": pictures(2, (8, 8, 5)), "train_labels": np.zeros(2, int)},
            r"could be \(n, H, W, C\) or \(n, C, H, W\)\. --layout nhwc takes",
        ),
        ({"images": pictures(2), "labels": np.zeros(3, int)}, "3 labels; expected 2"),
        ({"images": pictures(0), "labels": np.zeros(0, int)}, "0 images"),
        ({"images": pictures(2), "labels": np.array([0, -4])}, "image 1 has the label -4"),
        (
            {"images": pictures(2), "labels": np.zeros(2, int), "test_images": pictures(2)},
            "expected test_images and",
        ),
    ],
)
def test_arrays_of_another_form_are_an_error_naming_the_file(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UserError, match=rf"set\.npz: .*{message}"):
        open_npz(tmp_path / "set.npz", classes=None)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    content = header((1,), "|O") + pickle.dumps(Trap())
    pack(tmp_path / "trap.npz", {"images.npy": content, "labels.npy": content})
    with pytest.raises(UserError, match="images is object; expected uint8 or float32"):
        open_npz(tmp_path / "trap.npz", classes=None)


@pytest.mark.parametrize(
    "shape", [(10**12, 3, 224, 224), (2, 3, 4, 6), (2, 3, 4, 4), (-2, -3, 4, 5)]
)
def test_a_header_that_lies_is_an_error_before_anything_is_allocated(tmp_path, shape):
    labels = header((2,)) + bytes(2)
    pack(tmp_path / "lie.npz", {"images.npy": header(shape) + bytes(120), "labels.npy": labels})
    with pytest.raises(UserError, match=r"lie\.npz: "):
        open_npz(tmp_path / "lie.npz", classes=None)


@pytest.mark.parametrize(
    "text", [b"{'shape': (", b"(" * 5000, b"{}", b"", b"'\x00", b"{'descr': '|u1', 'shape': (2L, 3"]
)
def test_a_header_that_is_no_header_is_an_error(tmp_path, text):
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    pack(tmp_path / "x.npz", {"images.npy": content, "labels.npy": content})
    with pytest.raises(UserError, match=r"x\.npz: truncated or damaged; .*no npy header"):
        open_npz(tmp_path / "x.npz", classes=None)


def test_an_archive_whose_entry_lies_too_is_an_error(tmp_path):
    content, file = header((10**9, 3, 1, 1)) + bytes(120), tmp_path / "lie.npz"
    pack(file, {"images.npy": content, "labels.npy": header((2,)) + bytes(2)})
    true, false = (
        len(content).to_bytes(4, "little"),
        (len(content) - 120 + 3 * 10**9).to_bytes(4, "little"),
    )
    file.write_bytes(file.read_bytes().replace(true + true, true + false))
    with pytest.raises(UserError, match=r"says 3000000000 bytes; a file of .* cannot hold that"):
        open_npz(file, classes=None)


def test_other_compressions_are_an_error(tmp_path):
    content = header((2, 3, 4, 5)) + bytes(120)
    pack(
        tmp_path / "x.npz",
        {"images.npy": content, "labels.npy": header((2,)) + bytes(2)},
        zipfile.ZIP_BZIP2,
    )
    with pytest.raises(UserError, match="images is packed by method 12; expected numpy's savez"):
        open_npz(tmp_path / "x.npz", classes=None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_truncation_is_an_error_and_a_flipped_byte_never_a_traceback(tmp_path, save):
    whole, file = io.BytesIO(), tmp_path / "set.npz"
    save(whole, images=pictures(2, (1, 3, 3)), labels=np.array([0, 1]))
    content = whole.getvalue()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"set\.npz"):
            open_npz(file, classes=None)
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            open_npz(file, classes=None)
        except UserError as error:
            assert "set.npz" in str(error)
