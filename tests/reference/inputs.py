"""Weights, images and labels of the reference step, made from names alone, so that nothing large is
stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np


@dataclass(frozen=True)
class Case:
    """One step: so many images of a shape, so many classes, and which draw of images."""

    batch: int
    shape: tuple[int, int, int]
    classes: int
    draw: int
    """Found by choose_draw.py: of 300 to 500 draws the one in which no ReLU and no pool is close to
    a tie. A value that rounding carries across one changes its layer's gradients by 1e-3 to 1e-2,
    and both answers are right."""
    lift: float = 0.0
    """Added to every bias: of a million values that go into ReLUs after normalisations some are
    always close to 0, and few of them where their mean is that many deviations above it."""


CASES = {
    "lenet": Case(8, (1, 28, 28), 10, 430),
    "vgg11": Case(4, (3, 64, 64), 10, 66),
    "resnet18": Case(4, (3, 64, 64), 10, 82),
    "alexnet": Case(4, (3, 96, 96), 10, 4),
    "densenet121": Case(4, (3, 64, 64), 10, 2, lift=2.5),
    "mobilenetv2": Case(4, (3, 64, 64), 10, 1, lift=2.5),
}


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on a name and on nothing else."""
    return np.random.default_rng(crc32(name.encode()))


def images(network: str, draw: int | None = None) -> np.ndarray:
    """(N, C, H, W) float32, normal."""
    case = CASES[network]
    return generator(f"{network}/images/{case.draw if draw is None else draw}").standard_normal(
        (case.batch, *case.shape), dtype=np.float32
    )


def labels(network: str) -> np.ndarray:
    """(N,) int64."""
    case = CASES[network]
    return generator(f"{network}/labels").integers(0, case.classes, case.batch)


def weight(network: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One parameter, float32: He's normal for (out, in, ...), around 1 for a norm's weight, small
    and not 0 for a bias."""
    values = generator(f"{network}/{name}").standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return values * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if name.endswith(".bias"):
        return values * np.float32(0.05) + np.float32(CASES[network].lift)
    return 1 + values * np.float32(0.1)


def weights(network: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every parameter of a network by its name (torchvision's), from the shapes that PyTorch gives
    it."""
    return {name: weight(network, name, tuple(shape)) for name, shape in shapes.items()}
