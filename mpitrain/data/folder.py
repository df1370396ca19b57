"""Folders of images: one folder a class in, a Dataset out, each image decoded when it is asked
for."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import Dataset, Labels, Shape
from mpitrain.data.decoded import DecodedSplit, others
from mpitrain.data.picture import SUFFIXES
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError

# ImageNet's usual values (torchvision), for folders of colour images; their average for grey ones.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LONGEST = 60.0
"""Seconds to look through training images: a million files of a slow disk take longer, and what is
not seen now is found when it is read."""
SIZED = 1000
"""Files whose size is asked for: on a shared disk each may take milliseconds."""


def found(path: Path) -> bool:
    """Whether the folder has folders in it."""
    return any(True for _ in folders(path))


def open_folder(
    path: Path,
    *,
    shape: Shape,
    classes: int | None,
    bad: Bad | None = None,
    side: int | None = None,
) -> Dataset:
    """`train/CLASS/IMAGE` and perhaps `val/CLASS/IMAGE`, or `CLASS/IMAGE` as one split; classes
    sorted by name.

    Images become uint8 of shape (C is 1 or 3); side: as of DecodedSplit. Raises
    UserError for a class without images, one in val that train has not, more folders than classes,
    and other channels; and where `bad` leaves out files, for one too many that a quick look finds
    (see `first_look`).
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
    train = open_split(root, names, names, shape, bad, side)
    test = None
    if root != path and (path / "val").is_dir():
        there = sorted(folders(path / "val"))
        if unknown := sorted(set(there) - set(names)):
            raise UserError(
                f"{path / 'val'}: class folder {unknown[0]} is not in {root}; expected the same "
                "classes"
            )
        test = open_split(path / "val", there, names, shape, bad, side)
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


class FolderSplit(DecodedSplit):
    """Image files under `root` with their labels in rising order."""

    def __init__(
        self,
        root: Path,
        files: list[str],
        labels: Labels,
        shape: Shape,
        bad: Bad | None = None,
        side: int | None = None,
    ) -> None:
        super().__init__(str(root), files, labels, shape, bad, side)
        self.root = root

    def open(self, number: int) -> IO[bytes]:
        return (self.root / self.names[number]).open("rb")

    def kin(self, number: int) -> str:
        return str((self.root / self.names[number]).parent)

    def identity(self) -> str:
        """A SHA-256 of all names, in order, and of the sizes of up to SIZED files spread over
        them."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape"))
        for name in self.names[:: parts(len(self), SIZED)]:
            with contextlib.suppress(OSError):  # a missing file is told when its turn comes
                digest.update(f" {(self.root / name).stat().st_size}".encode())
        return digest.hexdigest()

    def short_name(self, number: int) -> str:
        return f"{self.root.name}/{self.names[number]}"

    def without(self, numbers: list[int]) -> FolderSplit:
        if not numbers:
            return self
        files, labels = others(self.names, self.labels, numbers)
        if not files:
            raise UserError(f"{self.root}: no image in it can be read")
        return FolderSplit(self.root, files, labels, self.shape, self.bad, self.side)


def open_split(
    root: Path, there: list[str], names: list[str], shape: Shape, bad: Bad, side: int | None
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
    return FolderSplit(root, files, np.array(labels, np.int64), shape, bad, side)


def folders(path: Path) -> Iterator[str]:
    return (
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def image_files(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():  # noqa: PTH122 (a million names)
                yield entry.name
