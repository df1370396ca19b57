"""How training images of an epoch are looked at: a random part of each, and random colours.

The random numbers of an image depend only on (seed, epoch, image number). So they are the same for
any number of ranks, whoever reads the image.
Sources: C. Szegedy et al., Going deeper with convolutions, CVPR 2015 (a part of any size); A.
Krizhevsky et al., ImageNet classification with deep convolutional networks, NIPS 2012 (colours).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpitrain.data.dataset import Images, Shape
from mpitrain.data.picture import Box, Cut

STREAM = 0x76696577
"""Makes these random numbers independent of others from the same seed."""
AREA = (0.08, 1.0)
"""Of a random part, as a share of the image's."""
RATIO = (3 / 4, 4 / 3)
"""Of a random part's width to its height, beside that of the network's images."""
TRIES = 10
STRENGTH = 0.4
"""By how much brightness, contrast and saturation change at most, up and down."""
GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in a pixel's brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class View:
    """The looks of all images in an epoch."""

    seed: int
    epoch: int
    shape: Shape
    """(C, H, W) of the network's images."""
    resized: bool = False
    """Whether each image is a random part of it, scaled."""
    jitter: bool = False
    """Whether brightness, contrast and, of colour images, saturation change."""

    def cut(self, number: int) -> Cut | None:
        """Chooses the part of the image with this number; None: as it is without a view."""
        if not self.resized:
            return None

        def cut(width: int, height: int) -> Box:
            return self._box(self._random(number, 0), width, height)

        return cut

    def _random(self, number: int, use: int) -> np.random.Generator:
        return np.random.Generator(
            np.random.PCG64((STREAM, self.seed, self.epoch, int(number), use))
        )

    def _box(self, random: np.random.Generator, width: int, height: int) -> Box:
        own = self.shape[2] / self.shape[1]
        for _ in range(TRIES):
            area = width * height * random.uniform(*AREA)
            ratio = own * math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(random.integers(0, width - across + 1))
                upper = int(random.integers(0, height - down + 1))
                return left, upper, left + across, upper + down
        # An image so long that no part fitted: as much around its centre as has a ratio of these.
        across = min(width, round(height * own * RATIO[1])) or 1
        down = min(height, round(width / (own * RATIO[0]))) or 1
        left, upper = (width - across) // 2, (height - down) // 2
        return left, upper, left + across, upper + down

    def colour(self, number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image uint8 (C, H, W) in other colours, or as it is without jitter."""
        if not self.jitter:
            return image
        random = self._random(number, 1)
        factors = random.uniform(1 - STRENGTH, 1 + STRENGTH, 3).astype(np.float32)
        x = image.astype(np.float32)
        weights = GREY if len(x) == 3 else np.full(len(x), 1 / len(x), np.float32)
        for what in random.permutation(3 if len(x) == 3 else 2):
            if what == 0:
                x *= factors[0]
            else:
                # Pixel by pixel: a product of matrices would take threads of its own, and its last
                # bits differ from machine to machine.
                grey = sum(w * channel for w, channel in zip(weights, x, strict=True))
                if what == 1:  # one grey for all, rounded, so that no machine has another mean
                    grey = np.float32(round(float(grey.mean(dtype=np.float64))))
                x = grey + factors[what] * (x - grey)
            np.clip(x, 0, 255, out=x)
        return np.rint(x).astype(np.uint8)

    def of_arrays(self, images: Images, numbers: NDArray[np.int64]) -> Images:
        """Images (k, C, H, W) that are no files, as they look in this epoch."""
        if not (self.resized or self.jitter):
            return images
        out = np.empty((len(images), *self.shape), images.dtype)
        for place, (image, number) in enumerate(zip(images, numbers.tolist(), strict=True)):
            cut = self.cut(number)
            seen = image if cut is None else scaled(image, cut, self.shape)
            out[place] = self.colour(number, seen)
        return out


def scaled(image: Images, cut: Cut, shape: Shape) -> Images:
    """The part of an image (C, H, W), uint8 or float32, that `cut` names, as (C, *shape[1:])."""
    height, width = image.shape[1:]
    box = cut(width, height)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(channel)).resize(
                    (shape[2], shape[1]), Image.Resampling.BILINEAR, box=box
                )
            )
            for channel in image
        ]
    )
