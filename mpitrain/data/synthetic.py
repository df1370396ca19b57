"""Images made on the fly: sample numbers and a seed in, noise with a weak pattern of its class out.

For timing without a disk, and learnable, so that a falling loss says the training works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.dataset import Dataset, Images, Labels, Shape, statistics
from mpitrain.data.view import View
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError

TRAIN = 65_536
TEST = 1_024
GRID = 4
"""A pattern is GRID x GRID cells a channel, each dark or bright."""
BRIGHT = 24
"""Above dark, in noise of deviation 37: seen over a cell's many pixels, not in one."""
STATISTICS = 64
"""Images that mean and deviation are taken from: all are made alike."""


def open_synthetic(spec: str, *, shape: Shape, classes: int | None, seed: int) -> Dataset:
    """`synthetic`, or `synthetic:COUNT` for COUNT training images; a quarter of COUNT, at most
    1,024, to test.

    Images are uint8 of any shape (C, H, W); sample number modulo classes (1000 unless given) is the
    label.
    """
    count = TRAIN
    if spec != "synthetic":
        word = spec.removeprefix("synthetic:")
        count = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
        if count < 1:
            raise UserError(
                f"data {spec!r}: expected synthetic:COUNT with a count of 1 to 999999999 images"
            )
    classes = 1000 if classes is None else classes
    if min(shape) < 1:
        raise UserError(
            f"synthetic images of shape {shape}; expected at least one channel and pixel"
        )
    train = SyntheticSplit(0, count, shape, classes, seed)
    test = SyntheticSplit(count, min(TEST, parts(count, 4)), shape, classes, seed)
    mean, std = statistics(SyntheticSplit(0, min(count, STATISTICS), shape, classes, seed))
    return Dataset("synthetic", shape, classes, train, test, mean, std)


class SyntheticSplit:
    """Sample numbers start .. start + count - 1 of one endless sequence of images."""

    def __init__(self, start: int, count: int, shape: Shape, classes: int, seed: int) -> None:
        self.start = start
        self.count = count
        self.shape = shape
        self.classes = classes
        self.seed = seed
        generator = np.random.Generator(np.random.PCG64((seed, 0)))
        cells = generator.integers(0, 2, (classes, shape[0], GRID, GRID), np.uint8)
        self.patterns = cells * np.uint8(BRIGHT)
        self.rows = np.arange(shape[1]) * GRID // shape[1]
        self.columns = np.arange(shape[2]) * GRID // shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.count

    def identity(self) -> str:
        return f"synthetic {self.start} {self.count} {self.shape} {self.classes} {self.seed}"

    def read(self, numbers: NDArray[np.int64], view: View | None = None) -> tuple[Images, Labels]:
        """Images uint8 (k, C, H, W) and labels int64 (k,); the same for the same numbers, seed,
        shape and classes."""
        samples = np.asarray(numbers, np.int64) + self.start
        labels = samples % self.classes
        images = np.empty((len(samples), *self.shape), np.uint8)
        size = images[0].size if len(images) else 0
        for image, sample, label in zip(images, samples, labels, strict=True):
            words = np.random.PCG64((self.seed, 1, int(sample))).random_raw(parts(size, 8))
            noise = words.astype("<u8", copy=False).view(np.uint8)[:size].reshape(self.shape)
            pattern = self.patterns[label][:, :, self.columns][:, self.rows]
            np.right_shift(
                noise, 1, out=image
            )  # 0 .. 127, so that noise and pattern stay below 256
            image += pattern
        return view.of_arrays(images, numbers) if view else images, labels
