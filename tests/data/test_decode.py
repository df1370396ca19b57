"""Parts of image files."""

import io

import numpy as np
import pytest
from PIL import Image

from mpitrain.data.folder import FolderSplit
from mpitrain.data.picture import centre, decode
from mpitrain.data.view import View

SMOOTH = np.add.outer(np.arange(375), np.arange(500))[..., None] * np.array([0.2, 0.1, 0.25])
PHOTO = Image.fromarray(SMOOTH.astype(np.uint8))


def encoded(image, form="png", **more):
    there = io.BytesIO()
    image.save(there, form, **more)
    there.seek(0)
    return there


def near(one, other, most):
    return np.abs(one.astype(int) - other.astype(int)).max() <= most


@pytest.mark.parametrize("form", ["png", "jpeg"])
@pytest.mark.parametrize("side", [32, 40, 64, 256])
def test_the_shorter_side_is_scaled_and_the_centre_taken(form, side):
    """As in two steps, but for how they round."""
    shape = (3, 32, 30)
    found = decode(
        encoded(PHOTO, form, **({} if form == "png" else {"quality": 98})),
        shape,
        centre(side, shape),
    )
    long = round(500 * side / 375)
    small = PHOTO.resize((long, side), Image.Resampling.BILINEAR)
    left, upper = (long - 30) / 2, (side - 32) / 2
    box = (left, upper, left + 30, upper + 32)
    want = np.asarray(small.resize((30, 32), Image.Resampling.BILINEAR, box=box))
    assert near(found.transpose(1, 2, 0), want, 4)


def test_a_jpeg_is_decoded_small_where_a_part_has_pixels_enough(monkeypatch):
    """A part that is as wide as the network's image is decoded in full."""
    sizes = []
    resize = Image.Image.resize

    def noted(self, *arguments, **more):
        sizes.append(self.size)
        return resize(self, *arguments, **more)

    monkeypatch.setattr(Image.Image, "resize", noted)
    shape = (3, 40, 40)
    for box, size in (
        ((0, 0, 500, 375), (63, 47)),
        ((100, 100, 300, 300), (125, 94)),
        ((10, 10, 50, 50), (500, 375)),
    ):
        found = decode(encoded(PHOTO, "jpeg", quality=98), shape, lambda w, h, box=box: box)
        assert sizes.pop() == size
        want = PHOTO.resize((40, 40), Image.Resampling.BILINEAR, box=box)
        assert near(found.transpose(1, 2, 0), np.asarray(want), 6)


def test_a_part_of_a_photo_held_sideways_is_of_the_upright_one():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = PHOTO.transpose(Image.Transpose.ROTATE_270)
    box = (20, 30, 330, 480)
    sizes = []

    def cut(width, height):
        sizes.append((width, height))
        return box

    for form in ("jpeg", "png"):
        more = {"quality": 98} if form == "jpeg" else {}
        found = decode(encoded(PHOTO, form, exif=exif, **more), (3, 30, 20), cut)
        want = upright.resize((20, 30), Image.Resampling.BILINEAR, box=box)
        assert near(found.transpose(1, 2, 0), np.asarray(want), 6)
    assert sizes == [(375, 500)] * 2


def test_a_view_of_files_is_the_same_in_any_order_and_company(tmp_path):
    for number in range(4):
        PHOTO.rotate(10 * number).save(tmp_path / f"{number}.jpg")
    split = FolderSplit(tmp_path, [f"{n}.jpg" for n in range(4)], np.arange(4), (3, 24, 24))
    view = View(1, 2, (3, 24, 24), resized=True, jitter=True)
    whole, _ = split.read(np.arange(4), view)
    assert np.array_equal(split.read(np.array([3, 0]), view)[0], whole[[3, 0]])
    assert not np.array_equal(whole, split.read(np.arange(4))[0])
    assert split.seconds > 0
