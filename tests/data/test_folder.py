"""Folders of images."""

import io

import numpy as np
import pytest
from PIL import Image

from mpitrain.data import folder
from mpitrain.data.picture import decode
from mpitrain.job.errors import RunError, UserError

SHAPE = (3, 8, 10)


def picture(file, size=(10, 8), colour=(200, 100, 50), mode="RGB", **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(file, **options)


def test_train_and_val_with_classes_by_name(tmp_path):
    picture(tmp_path / "train" / "cat" / "1.png", colour=(1, 2, 3))
    picture(tmp_path / "train" / "ant" / "2.PNG", colour=(4, 5, 6))
    picture(tmp_path / "train" / "ant" / "1.bmp", colour=(7, 8, 9))
    picture(tmp_path / "val" / "cat" / "9.png", colour=(9, 9, 9))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    data = folder.open_folder(tmp_path, shape=SHAPE, classes=None)
    assert (data.name, data.shape, data.classes, data.class_names) == (
        tmp_path.name,
        SHAPE,
        2,
        ("ant", "cat"),
    )
    images, labels = data.train.read(np.array([2, 0, 1]))
    assert images.shape == (3, *SHAPE) and images.dtype == data.train.dtype == np.uint8
    assert images[:, :, 3, 3].tolist() == [[1, 2, 3], [7, 8, 9], [4, 5, 6]]
    assert labels.tolist() == [1, 0, 0] and labels.dtype == np.int64
    assert data.test.read(np.array([0]))[1].tolist() == [1]
    np.testing.assert_allclose(data.mean, [0.485, 0.456, 0.406])


def test_class_folders_alone_are_one_split(tmp_path):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "1.png", mode="L")
    data = folder.open_folder(tmp_path, shape=(1, 8, 8), classes=5)
    assert (len(data.train), data.test, data.classes, data.class_names) == (2, None, 5, ())
    assert data.train.read(np.arange(2))[0].shape == (2, 1, 8, 8) and data.mean.shape == (1,)


@pytest.mark.parametrize("size", [(10, 8), (100, 8), (8, 100), (3, 2), (640, 480)])
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_any_size_is_scaled_and_cut_around_the_centre(tmp_path, size, name):
    picture(tmp_path / name, size)
    pixels = decode(tmp_path / name, SHAPE)
    assert pixels.shape == SHAPE
    assert np.abs(pixels.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 3


def test_the_centre_of_a_wide_image_is_kept(tmp_path):
    grey = np.zeros((8, 24), np.uint8)
    grey[:, 8:16] = 255
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", (1, 8, 8)).min() == 255


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "CMYK"])
def test_any_mode_becomes_the_channels_asked_for(tmp_path, mode):
    name = "x.tif" if mode == "CMYK" else "x.png"
    picture(tmp_path / name, mode=mode)
    assert decode(tmp_path / name, SHAPE).shape == SHAPE
    assert decode(tmp_path / name, (1, 8, 10)).shape == (1, 8, 10)


def test_a_photo_held_sideways_stands_upright(tmp_path):
    image = Image.new("L", (16, 16))
    image.paste(255, (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what was on top is right
    image.save(tmp_path / "x.jpg", exif=exif, quality=95)
    pixels = decode(tmp_path / "x.jpg", (1, 16, 16))[0]
    assert pixels[:, 9:].min() > 240 and pixels[:, :7].max() < 15


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_a_truncated_image_is_an_error_naming_the_file(tmp_path, form):
    whole, file = io.BytesIO(), tmp_path / "train" / "a" / f"x.{form}"
    file.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(whole, form)
    content = whole.getvalue()
    for length in [*range(min(80, len(content))), len(content) // 2]:
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"x\.{form}: cannot be decoded; expected an image"):
            decode(file, SHAPE)
    data = folder.open_folder(tmp_path, shape=SHAPE, classes=None)
    with pytest.raises(RunError, match=rf"x\.{form}: cannot be decoded"):
        data.train.read(np.array([0]))


def test_a_file_gone_since_is_an_error_of_the_run(tmp_path):
    picture(tmp_path / "a" / "1.png")
    data = folder.open_folder(tmp_path, shape=SHAPE, classes=None)
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(RunError, match=r"a/1\.png: cannot be decoded"):
        data.train.read(np.array([0]))


def test_an_image_of_a_million_by_a_million_is_not_decoded(tmp_path):
    file = tmp_path / "x.ppm"
    file.write_bytes(b"P6 1000000 1000000 255\n" + bytes(100))
    with pytest.raises(UserError, match=r"x\.ppm: cannot be decoded"):
        decode(file, SHAPE)


def test_folders_that_cannot_be_a_dataset_are_errors(tmp_path):
    picture(tmp_path / "train" / "a" / "1.png")
    picture(tmp_path / "val" / "b" / "1.png")
    with pytest.raises(
        UserError, match=r"val: class folder b is not in .*train; expected the same classes"
    ):
        folder.open_folder(tmp_path, shape=SHAPE, classes=None)
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(UserError, match=r"train/b: expected images .*, found none"):
        folder.open_folder(tmp_path, shape=SHAPE, classes=None)
    with pytest.raises(UserError, match="2 class folders; expected at most 1"):
        folder.open_folder(tmp_path, shape=SHAPE, classes=1)
    with pytest.raises(UserError, match="1 or 3 channels; the network expects 2"):
        folder.open_folder(tmp_path, shape=(2, 8, 8), classes=None)


def test_other_names_sizes_or_classes_are_another_identity(tmp_path):
    def identity(name, files):
        for file, size in files.items():
            picture(tmp_path / name / file, size=size)
        return folder.open_folder(tmp_path / name, shape=SHAPE, classes=None).train.identity()

    files = {"a/1.png": (10, 8), "a/2.png": (10, 8), "b/1.png": (10, 8)}
    same = identity("first", files)
    assert identity("elsewhere", files) == same
    assert identity("larger", {**files, "a/2.png": (400, 80)}) != same
    assert identity("named", {"a/1.png": (10, 8), "a/3.png": (10, 8), "b/1.png": (10, 8)}) != same
    assert identity("sorted", {"a/1.png": (10, 8), "b/1.png": (10, 8), "b/2.png": (10, 8)}) != same
