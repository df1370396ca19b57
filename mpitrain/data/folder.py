"""Folders of images: one folder a class in, a Dataset out, each image decoded when it is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mpitrain.data.dataset import Dataset, Images, Labels, Shape
from mpitrain.report import RunError, UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
THREADS = 4
"""Pillow decodes without Python's lock, so a few threads a rank decode at once."""
# ImageNet's usual values (torchvision), for folders of colour images; their average for grey ones.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MOST_PIXELS = 1 << 26
"""Of an image, after the JPEG decoder's own scaling: a file of a few KiB may promise gigabytes. 8,192 x 8,192: 770 MiB while it is scaled."""


def found(path: Path) -> bool:
    """Whether the folder has folders in it."""
    return any(True for _ in folders(path))


def open_folder(path: Path, *, shape: Shape, classes: int | None) -> Dataset:
    """`train/CLASS/IMAGE` and perhaps `val/CLASS/IMAGE`, or `CLASS/IMAGE` as one split; classes sorted by name.

    Images become uint8 of shape (C is 1 or 3). Raises UserError for a class without images, one in val that
    train has not, more folders than classes, and other channels.
    """
    if shape[0] not in (1, 3):
        raise UserError(f"{path}: images have 1 or 3 channels; the network expects {shape[0]}")
    root = path / "train" if (path / "train").is_dir() else path
    names = sorted(folders(root))
    if not names:
        raise UserError(f"{root}: expected one folder a class, found none")
    if classes is not None and len(names) > classes:
        raise UserError(f"{root}: {len(names)} class folders; expected at most {classes} (--classes)")
    train = open_split(root, names, names, shape)
    test = None
    if root != path and (path / "val").is_dir():
        there = sorted(folders(path / "val"))
        if unknown := sorted(set(there) - set(names)):
            raise UserError(
                f"{path / 'val'}: class folder {unknown[0]} is not in {root}; expected the same classes"
            )
        test = open_split(path / "val", there, names, shape)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if shape[0] == 3 else ((0.449,), (0.226,))
    return Dataset(
        path.resolve().name,
        shape,
        classes or len(names),
        train,
        test,
        np.array(mean, np.float32),
        np.array(std, np.float32),
        tuple(names) if classes in (None, len(names)) else (),
    )


class FolderSplit:
    """Image files under `root` with their labels, read and decoded by number."""

    def __init__(self, root: Path, files: list[str], labels: Labels, shape: Shape) -> None:
        self.root = root
        self.files = files
        self.labels = labels
        self.shape = shape
        self.pool = ThreadPoolExecutor(THREADS, "decode")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, numbers: NDArray[np.int64]) -> tuple[Images, Labels]:
        """Raises RunError naming the file that is missing or no image: the run found it on its way."""
        images = np.empty((len(numbers), *self.shape), np.uint8)

        def fill(place: int) -> None:
            file = self.root / self.files[int(numbers[place])]
            try:
                images[place] = decode(file, self.shape)
            except UserError as error:
                raise RunError(str(error)) from error

        list(self.pool.map(fill, range(len(numbers))))
        return images, self.labels[numbers]


def decode(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """One image file as uint8 (C, H, W): upright, scaled to cover H x W, cut around its centre.

    Raises UserError naming the file when it is missing, truncated, too large or no image.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(file) as image:
            image.draft(
                mode, (max(height, width),) * 2
            )  # JPEG at a half, a quarter, ..: several times faster
            if math.prod(image.size) > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS}")
            upright = ImageOps.exif_transpose(image).convert(mode)
            fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(fitted, np.uint8).reshape(height, width, channels)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise UserError(f"{file}: cannot be decoded; expected an image ({error})") from error
    chw: NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return chw


def open_split(root: Path, there: list[str], names: list[str], shape: Shape) -> FolderSplit:
    number = {name: n for n, name in enumerate(names)}
    files: list[str] = []
    labels: list[int] = []
    for name in there:
        found = [f"{name}/{file}" for file in sorted(image_files(root / name))]
        if not found:
            raise UserError(f"{root / name}: expected images ({', '.join(sorted(SUFFIXES))}), found none")
        files += found
        labels += [number[name]] * len(found)
    if not files:
        raise UserError(f"{root}: expected one folder a class, found none")
    return FolderSplit(root, files, np.array(labels, np.int64), shape)


def folders(path: Path) -> Iterator[str]:
    return (entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():  # noqa: PTH122 (a million names)
                yield entry.name
