"""Folders of images: one folder a class in, a Dataset out, each image decoded when it is asked
for."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import Dataset, Images, Labels, Shape
from mpitrain.job.cut import parts
from mpitrain.job.errors import MpitrainError, RunError, UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
THREADS = 4
"""Pillow decodes without Python's lock, so a few threads a rank decode at once."""
# ImageNet's usual values (torchvision), for folders of colour images; their average for grey ones.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MOST_PIXELS = 1 << 26
"""Of an image, after the JPEG decoder's own scaling: a file of a few KiB may promise gigabytes.
8,192 x 8,192: 770 MiB while it is scaled."""


ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PN": b"IEND"}
"""First three bytes and end mark of JPEG and PNG: a file with both is rarely damaged, and seldom
decoded for nothing."""
TAIL = 64
"""Bytes in which the end mark is looked for; some cameras and editors write a little behind it."""
LONGEST = 60.0
"""Seconds to look through training images: a million files of a slow disk take longer, and what is
not seen now is found when it is read."""
CHUNK = 1024
SIZED = 1000
"""Files whose size is asked for: on a shared disk each may take milliseconds."""
QUIET, OFTEN = 2.0, 10.0
"""Seconds before the first word about how far that is, and between two."""


def found(path: Path) -> bool:
    """Whether the folder has folders in it."""
    return any(True for _ in folders(path))


def open_folder(
    path: Path, *, shape: Shape, classes: int | None, bad: Bad | None = None
) -> Dataset:
    """`train/CLASS/IMAGE` and perhaps `val/CLASS/IMAGE`, or `CLASS/IMAGE` as one split; classes
    sorted by name.

    Images become uint8 of shape (C is 1 or 3). Raises UserError for a class without images, one in
    val that train has not, more folders than classes, and other channels; and where `bad` leaves
    out files, for one too many that a quick look finds (see `first_look`).
    """
    bad = bad or Bad()
    if shape[0] not in (1, 3):
        raise UserError(f"{path}: images have 1 or 3 channels; the network expects {shape[0]}")
    root = path / "train" if (path / "train").is_dir() else path
    names = sorted(folders(root))
    if not names:
        raise UserError(f"{root}: expected one folder a class, found none")
    if classes is not None and len(names) > classes:
        raise UserError(
            f"{root}: {len(names)} class folders; expected at most {classes} (--classes)"
        )
    train = open_split(root, names, names, shape, bad)
    test = None
    if root != path and (path / "val").is_dir():
        there = sorted(folders(path / "val"))
        if unknown := sorted(set(there) - set(names)):
            raise UserError(
                f"{path / 'val'}: class folder {unknown[0]} is not in {root}; expected the same "
                "classes"
            )
        test = open_split(path / "val", there, names, shape, bad)
    if bad.most:
        train.first_look(LONGEST)
        test = test and test.without(test.first_look())
    return Dataset(
        path.resolve().name,
        shape,
        classes or len(names),
        train,
        test,
        np.array(usual_mean(shape[0]), np.float32),
        np.array(usual_std(shape[0]), np.float32),
        tuple(names) if classes in (None, len(names)) else (),
        bad,
    )


def usual_mean(channels: int) -> tuple[float, ...]:
    """ImageNet's, whose networks are everywhere: of its colours, or of their average."""
    return IMAGENET_MEAN if channels == 3 else (0.449,) * channels


def usual_std(channels: int) -> tuple[float, ...]:
    """The deviations that belong to `usual_mean`."""
    return IMAGENET_STD if channels == 3 else (0.226,) * channels


class FolderSplit:
    """Image files under `root` with their labels in rising order, read and decoded by number.

    In the place of a file that cannot be read, and that `bad` leaves out, stands the next one of
    its class that can be.
    """

    def __init__(
        self, root: Path, files: list[str], labels: Labels, shape: Shape, bad: Bad | None = None
    ) -> None:
        self.root = root
        self.files = files
        self.labels = labels
        self.shape = shape
        self.bad = bad or Bad()
        self.unreadable: set[int] = set()
        """Numbers that are counted already."""
        self.instead: dict[int, int] = {}
        self.pool = ThreadPoolExecutor(THREADS, "decode")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> str:
        """A SHA-256 of all names, in order, and of the sizes of up to SIZED files spread over
        them."""
        digest = hashlib.sha256("\0".join(self.files).encode("utf-8", "surrogateescape"))
        for name in self.files[:: parts(len(self), SIZED)]:
            with contextlib.suppress(OSError):  # a missing file is told when its turn comes
                digest.update(f" {(self.root / name).stat().st_size}".encode())
        return digest.hexdigest()

    def read(self, numbers: NDArray[np.int64]) -> tuple[Images, Labels]:
        """Raises RunError naming the file that is missing or no image: the run found it on its
        way."""
        images = np.empty((len(numbers), *self.shape), np.uint8)

        def fill(place: int) -> str | None:
            number = int(numbers[place])
            try:
                images[place] = self._decode(self.instead.get(number, number))
            except UserError as error:
                # Not the error, which would keep this split and its threads until a collection.
                return str(error)
            return None

        for place, words in enumerate(list(self.pool.map(fill, range(len(numbers))))):
            if words:
                images[place] = self._another(int(numbers[place]), words)
        return images, self.labels[numbers]

    def _decode(self, number: int) -> NDArray[np.uint8]:
        return decode(self.root / self.files[number], self.shape)

    def _another(self, number: int, words: str) -> NDArray[np.uint8]:
        """The image that stands for one that cannot be read: a function of the files alone, so that
        a resumed run finds the same."""
        label = self.labels[number]
        start, stop = np.searchsorted(self.labels, [label, label + 1]).tolist()
        self._leave_out(number, RunError(words))
        for other in (*range(number + 1, stop), *range(start, number)):
            try:
                image = self._decode(other)
            except UserError as worse:
                self._leave_out(other, RunError(str(worse)))
            else:
                self.instead[number] = other
                return image
        raise RunError(f"{(self.root / self.files[number]).parent}: no image in it can be read")

    def _leave_out(self, number: int, error: MpitrainError) -> None:
        if number not in self.unreadable:
            self.bad.leave_out(f"{self.root.name}/{self.files[number]}", error)
            self.unreadable.add(number)

    def first_look(self, longest: float = math.inf) -> list[int]:
        """Numbers of files that cannot be read, counted, as far as a quick look tells, and as far
        as it comes in so many seconds.

        Raises UserError for one too many.
        """
        begin = spoke = time.monotonic()
        wrong: list[int] = []
        for first in range(0, len(self), CHUNK):
            now = time.monotonic()
            if now - begin > longest:
                self.bad.say(
                    f"looked at {first:,} of {len(self):,} images in {self.root}; the others are "
                    "looked at as they are read"
                )
                break
            if now - spoke > (QUIET if spoke == begin else OFTEN):
                self.bad.say(
                    f"looked at {first:,} of {len(self):,} images in {self.root} (--skip-bad)"
                )
                spoke = now
            self.bad.alive()
            numbers = range(first, min(first + CHUNK, len(self)))
            files = [self.root / self.files[number] for number in numbers]
            for number, words in zip(
                numbers, self.pool.map(lambda file: trouble(file, self.shape), files), strict=True
            ):
                if words:
                    self._leave_out(number, UserError(words))
                    wrong.append(number)
        return wrong

    def without(self, numbers: list[int]) -> FolderSplit:
        """The split of the other files. Raises UserError if there is none."""
        if not numbers:
            return self
        files = np.delete(np.array(self.files, object), numbers).tolist()
        if not files:
            raise UserError(f"{self.root}: no image in it can be read")
        return FolderSplit(self.root, files, np.delete(self.labels, numbers), self.shape, self.bad)


def trouble(file: Path, shape: Shape) -> str | None:
    """What is wrong with a file: it is decoded unless it begins and ends as a JPEG or a PNG
    does."""
    try:
        with file.open("rb") as opened:
            mark = ENDS.get(opened.read(3))
            opened.seek(-TAIL, os.SEEK_END)  # refused where there are fewer
            if mark and mark in opened.read():
                return None
    except OSError:
        pass  # decode() has the words
    try:
        decode(file, shape)
    except UserError as error:
        return str(error)
    return None


def decode(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """One image file as uint8 (C, H, W): upright, scaled to cover H x W, cut around its centre.

    Raises UserError naming the file when it is missing, truncated, too large or no image.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(file) as image:
            # A JPEG is decoded at a half, a quarter, ...: several times faster.
            image.draft(mode, (max(height, width),) * 2)
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


def open_split(
    root: Path, there: list[str], names: list[str], shape: Shape, bad: Bad
) -> FolderSplit:
    number = {name: n for n, name in enumerate(names)}
    files: list[str] = []
    labels: list[int] = []
    for name in there:
        bad.alive()
        found = [f"{name}/{file}" for file in sorted(image_files(root / name))]
        if not found:
            raise UserError(
                f"{root / name}: expected images ({', '.join(sorted(SUFFIXES))}), found none"
            )
        files += found
        labels += [number[name]] * len(found)
    if not files:
        raise UserError(f"{root}: expected one folder a class, found none")
    return FolderSplit(root, files, np.array(labels, np.int64), shape, bad)


def folders(path: Path) -> Iterator[str]:
    return (
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def image_files(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():  # noqa: PTH122 (a million names)
                yield entry.name
