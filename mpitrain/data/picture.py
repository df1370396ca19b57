"""Decode one image file: the file and a choice of what part of it counts in; pixels of the
network's shape out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mpitrain.data.dataset import Shape
from mpitrain.job.errors import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MOST_PIXELS = 1 << 26
"""Of an image, after the JPEG decoder's own scaling: a file of a few KiB may promise gigabytes.
8,192 x 8,192: 770 MiB while it is scaled."""
ORIENTATION = 0x0112
"""EXIF's tag; from 5 on rows and columns change places."""
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge of a part of an upright image, in pixels."""
Cut = Callable[[int, int], Box]
"""Width and height of an upright image -> the part of it that is scaled to the network's shape."""


def decode(
    file: Path | IO[bytes], shape: Shape, cut: Cut | None = None, name: str = ""
) -> NDArray[np.uint8]:
    """One image as uint8 (C, H, W), upright: what `cut` names of it, else the largest part around
    its centre, scaled to H x W.

    name: for errors, where the file is an open one. Raises UserError when it is missing, truncated,
    too large or no image.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(file) as image:
            # A JPEG is decoded at a half, a quarter, ...: several times faster.
            if cut is None:
                image.draft(mode, (max(height, width),) * 2)
                _check_size(image)
                fitted = ImageOps.fit(
                    ImageOps.exif_transpose(image).convert(mode),
                    (width, height),
                    Image.Resampling.BILINEAR,
                )
            else:
                fitted = _part(image, mode, (width, height), cut)
            pixels = np.asarray(fitted, np.uint8).reshape(height, width, channels)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        # Pillow names the file once more, as Python shows an open one.
        unknown = isinstance(error, UnidentifiedImageError)
        why = "no format that is known" if unknown else str(error)
        words = f"{name or file}: cannot be decoded; expected an image ({why})"
        raise UserError(words) from error
    chw: NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return chw


def _part(image: Image.Image, mode: str, size: tuple[int, int], cut: Cut) -> Image.Image:
    """The part of an image that `cut` names, scaled to size (width, height)."""
    turned = image.getexif().get(ORIENTATION, 1) >= 5
    full = image.size[::-1] if turned else image.size
    box = cut(*full)
    # As small as the decoder can make it while the part has no fewer pixels than are wanted.
    least = [
        max(1, math.ceil(length * pixels / (box[2 + axis] - box[axis])))
        for axis, (length, pixels) in enumerate(zip(full, size, strict=True))
    ]
    image.draft(mode, (least[1], least[0]) if turned else (least[0], least[1]))
    _check_size(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode != mode:
        upright = upright.convert(mode)
    ratios = [now / before for now, before in zip(upright.size, full, strict=True)]
    left, upper, right, lower = (edge * ratios[axis % 2] for axis, edge in enumerate(box))
    within = (left, upper, min(right, upright.width), min(lower, upright.height))
    return upright.resize(size, Image.Resampling.BILINEAR, box=within)


def _check_size(image: Image.Image) -> None:
    if math.prod(image.size) > MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS}")


def centre(side: int, shape: Shape) -> Cut:
    """The part around the centre that has H x W pixels once the image's shorter side has `side`."""

    def cut(width: int, height: int) -> Box:
        scale = min(width, height) / side
        across, down = min(shape[2] * scale, width), min(shape[1] * scale, height)
        left, upper = (width - across) / 2, (height - down) / 2
        return left, upper, left + across, upper + down

    return cut
