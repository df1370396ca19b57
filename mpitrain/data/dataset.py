"""A set of labelled images: a training split, perhaps a test split, and how their pixels are
normalised."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.bad import Bad
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError

if TYPE_CHECKING:
    from mpitrain.data.view import View

Shape = tuple[int, int, int]
"""Channels, height and width of one image."""
Images = NDArray[Any]
"""(k, C, H, W), uint8 or float32."""
Labels = NDArray[np.int64]
"""(k,), class numbers from 0."""

EXACT_PIXELS = 1 << 28
"""Up to here every pixel counts for mean and deviation (below half a second); larger sets are
sampled."""
SAMPLED_IMAGES = 4096
MAX_CLASSES = 1 << 20
"""A label beyond this is a mistake (a regression target, a hash), and would ask for a last layer of
gigabytes."""


class Split(Protocol):
    """Numbered images with labels; nothing is read before `read` asks for it, unless the format
    needs it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or float32."""
        ...

    def __len__(self) -> int: ...

    def identity(self) -> str:
        """What tells these images from others at little cost: a run that goes on wants the same."""
        ...

    def read(self, numbers: NDArray[np.int64], view: View | None = None) -> tuple[Images, Labels]:
        """Images (k, C, H, W) and labels int64 (k,) of the sample numbers (k,), new arrays each
        time; view: how training images are looked at."""
        ...


@dataclass(frozen=True)
class ArraySplit:
    """A split whose images (n, C, H, W) and labels int64 (n,) are arrays, or mapped from a file."""

    images: Images
    labels: Labels
    images_file: Path
    labels_file: Path
    """Where the two came from, for the errors."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.images.dtype)

    def __len__(self) -> int:
        return len(self.labels)

    def identity(self) -> str:
        """A SHA-256 of the labels and of all pixels, or of SAMPLED_IMAGES images spread over a
        large set."""
        digest = hashlib.sha256(f"{self.images.shape} {self.dtype}".encode())
        digest.update(self.labels.astype("<i8").tobytes())
        step = 1
        if self.images.size > EXACT_PIXELS:
            step = parts(len(self), SAMPLED_IMAGES)
        for image in self.images[::step]:
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()

    def read(self, numbers: NDArray[np.int64], view: View | None = None) -> tuple[Images, Labels]:
        images = self.images[numbers]
        return view.of_arrays(images, numbers) if view else images, self.labels[numbers]


@dataclass(frozen=True)
class Dataset:
    """mean and std are float32 (C,) of pixel/255 for uint8 images; zeros and ones for float32,
    taken as they are."""

    name: str
    shape: Shape
    classes: int
    train: Split
    test: Split | None
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    class_names: tuple[str, ...] = ()
    """In the order of the class numbers, where the source names them."""
    bad: Bad = field(default_factory=Bad)
    """What was left out."""


def from_arrays(
    name: str,
    train: ArraySplit,
    test: ArraySplit | None,
    *,
    classes: int | None,
    bad: Bad | None = None,
) -> Dataset:
    """The dataset of two array splits, checked; classes is the maximum of all labels + 1 unless
    given.

    Raises UserError for empty splits, unlike counts, test images unlike the training images, and
    labels that are no class, where `bad` does not leave them out.
    """
    bad = bad or Bad()
    splits = [train] if test is None else [train, test]
    for split in splits:
        count, shape = len(split.images), split.images.shape[1:]
        if 0 in split.images.shape:
            raise UserError(
                f"{split.images_file}: {count} images of {form(shape)}; expected at least one pixel"
            )
        if count != len(split):
            raise UserError(
                f"{split.labels_file}: {len(split)} labels; expected {count}, one for each image "
                f"of {split.images_file}"
            )
        if (shape, split.dtype) != (train.images.shape[1:], train.dtype):
            raise UserError(
                f"{split.images_file}: test images are {form(shape)} {split.dtype}; "
                f"expected {form(train.images.shape[1:])} {train.dtype} like the training images"
            )
    limit = classes or min(
        1 + max(int(split.labels.max(initial=0)) for split in splits), MAX_CLASSES
    )
    train, test = (
        without_wrong_labels(train, limit, bad),
        test and without_wrong_labels(test, limit, bad),
    )
    classes = classes or 1 + max(int(split.labels.max()) for split in (train, test or train))
    _, channels, height, width = train.images.shape
    mean, std = statistics(train)
    return Dataset(name, (channels, height, width), classes, train, test, mean, std, bad=bad)


def form(shape: tuple[int, ...]) -> str:
    """(3, 32, 32) as 3x32x32."""
    return "x".join(str(length) for length in shape)


def without_wrong_labels(split: ArraySplit, classes: int, bad: Bad) -> ArraySplit:
    """The split, or a copy of what `bad` leaves of it."""
    wrong = wrong_labels(split.labels_file, split.labels, classes, bad)
    if not wrong:
        return split
    if len(wrong) == len(split):
        raise UserError(f"{split.labels_file}: no label is 0 to {classes - 1} ({classes} classes)")
    images, labels = np.delete(split.images, wrong, axis=0), np.delete(split.labels, wrong)
    return ArraySplit(images, labels, split.images_file, split.labels_file)


def wrong_labels(file: Path, labels: Labels, classes: int, bad: Bad) -> list[int]:
    """Numbers of the images to leave out for a label outside 0 .. classes - 1; UserError if they
    are too many."""
    wrong: list[int] = np.flatnonzero((labels < 0) | (labels >= classes)).tolist()
    for number in wrong:
        error = UserError(
            f"{file}: image {number} has the label {labels[number]}; "
            f"expected 0 to {classes - 1} ({classes} classes)"
        )
        bad.leave_out(f"{file.name}, image {number}", error)
    return wrong


def statistics(split: Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation float32 (C,) of pixel/255 over a split of uint8 images; zeros and ones for
    float32.

    Exact up to EXACT_PIXELS, else over SAMPLED_IMAGES images. The sample has a seed of its own, so
    that a network finds the same normalisation under any --seed. A channel of one value has the
    deviation 1.
    """
    some, _ = split.read(np.zeros(1, np.int64))
    channels = some.shape[1]
    if split.dtype != np.uint8:
        return np.zeros(channels, np.float32), np.ones(channels, np.float32)
    numbers = np.arange(len(split))
    if some.size * len(split) > EXACT_PIXELS:
        numbers = np.sort(
            np.random.default_rng(0).choice(
                len(split), min(len(split), SAMPLED_IMAGES), replace=False
            )
        )
    total, squares = [0] * channels, [0] * channels
    # uint32 sums of at most 2^16 squares of uint8 cannot overflow, and are summed on as Python
    # integers.
    chunk = max(1, (1 << 20) // some.size)
    for start in range(0, len(numbers), chunk):
        images, _ = split.read(numbers[start : start + chunk])
        for channel in range(channels):
            x = np.ascontiguousarray(images[:, channel]).ravel()
            edges = np.arange(0, len(x), 1 << 16)
            total[channel] += int(np.add.reduceat(x, edges, dtype=np.uint32).sum(dtype=np.uint64))
            square = np.multiply(x, x, dtype=np.uint16)
            squares[channel] += int(
                np.add.reduceat(square, edges, dtype=np.uint32).sum(dtype=np.uint64)
            )
    count = len(numbers) * some.size // channels
    variance = [q * count - s * s for s, q in zip(total, squares, strict=True)]
    mean = np.array([s / count / 255 for s in total], np.float32)
    std = np.array([v**0.5 / count / 255 if v else 1.0 for v in variance], np.float32)
    return mean, std
