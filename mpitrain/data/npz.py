"""NumPy archives: an .npz with images and labels, under our names, Keras's or MedMNIST's, in, a
Dataset out."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import ArraySplit, Dataset, from_arrays
from mpitrain.job.errors import UserError

DEFLATE = 1032
"""Deflate makes nothing smaller than by this factor, so an archive that promises more lies."""


@dataclass(frozen=True)
class Names:
    """What an archive of one kind calls its arrays."""

    train: tuple[str, str]
    """Images and labels to train with."""
    tests: tuple[tuple[str, str], ...]
    """Those to test with: the first pair that is there counts."""
    channels_last: bool = False
    """Whether images of this kind are (n, H, W, C) by convention."""


PLAIN = Names(("images", "labels"), (("test_images", "test_labels"),))
KERAS = Names(("x_train", "y_train"), (("x_test", "y_test"),), channels_last=True)
MEDMNIST = Names(
    ("train_images", "train_labels"),
    (("test_images", "test_labels"), ("val_images", "val_labels")),
    channels_last=True,
)
KINDS = (PLAIN, KERAS, MEDMNIST)


def open_npz(
    path: Path, *, classes: int | None, bad: Bad | None = None, layout: str | None = None
) -> Dataset:
    """images uint8 or float32 and labels (n,) or (n, 1) of any integers, for both splits.

    Images are (n, H, W) of one channel, (n, C, H, W), or (n, H, W, C) with layout "nhwc". Where no
    layout is said, arrays with Keras's and MedMNIST's names may have either order, as it looks;
    under our own names what looks like (n, H, W, C) is refused.
    Raises UserError for missing arrays, other types or dimensions, truncated archives and sizes
    that lie: an array is allocated only after its header, its entry in the archive and the file
    agree. Nothing is ever unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            kind = kind_of(path, names)
            train = read_split(path, archive, kind.train, kind, layout)
            test = None
            for pair in kind.tests:
                if test is None and names & set(pair):
                    if not names >= set(pair):
                        raise UserError(
                            f"{path}: expected {' and '.join(pair)} together, found one of them"
                        )
                    test = read_split(path, archive, pair, kind, layout)
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"{path}: truncated or damaged; expected an .npz archive ({error})"
        ) from error
    return from_arrays(path.stem, train, test, classes=classes, bad=bad)


def kind_of(path: Path, names: set[str]) -> Names:
    """The kind whose training arrays are among the names. Raises UserError if there is not exactly
    one."""
    kinds = [kind for kind in KINDS if names & set(kind.train)]
    if len(kinds) > 1:
        pairs = " and ".join(kind.train[0] for kind in kinds)
        raise UserError(f"{path}: it has {pairs}; expected one set of training images")
    for kind in kinds:
        if names >= set(kind.train):
            return kind
    raise UserError(
        f"{path}: expected arrays {' and '.join((kinds or [PLAIN])[0].train)}"
        + ("" if kinds else " (or x_train and y_train, or train_images and train_labels)")
        + f", found {', '.join(sorted(names)) or 'none'}"
    )


def read_split(
    path: Path, archive: zipfile.ZipFile, pair: tuple[str, str], kind: Names, layout: str | None
) -> ArraySplit:
    """The images and labels of these two names."""
    form = "(n, H, W, C)" if layout == "nhwc" else "(n, C, H, W)"
    images = read_array(path, archive, pair[0], (3, 4), f"(n, H, W) or {form}", "uint8 or float32")
    if images.ndim == 3:
        images = images[:, np.newaxis]
    elif is_channels_last(path, pair[0], images.shape, kind, layout):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    labels = read_array(path, archive, pair[1], (1, 2), "(n,) or (n, 1)", "integers")
    if labels.ndim == 2 and labels.shape[1] != 1:
        raise UserError(
            f"{path}: {pair[1]} has the shape {labels.shape}; expected (n,) or (n, 1), one class "
            "an image"
        )
    return ArraySplit(images, labels.reshape(len(labels)).astype(np.int64), path, path)


def is_channels_last(
    path: Path, name: str, shape: tuple[int, ...], kind: Names, layout: str | None
) -> bool:
    """Whether images of this shape are (n, H, W, C). Raises UserError where that must be said."""
    if layout is not None:
        return layout == "nhwc"
    last = _channels_last(shape)
    if kind.channels_last:
        if last or shape[1] in (1, 3, 4):
            return last
        looks = "could be (n, H, W, C) or (n, C, H, W)"
    elif last:
        looks = "looks like (n, H, W, C); expected (n, C, H, W)"
    else:
        return False
    raise UserError(
        f"{path}: {name} has the shape {shape}, which {looks}. --layout nhwc takes it as (n, H, W, "
        "C), --layout nchw as (n, C, H, W)"
    )


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images have their few channels last, as most programs have them in memory."""
    _, height, width, channels = shape
    return channels in (1, 3, 4) and height > 4 and width > channels


def read_array(
    path: Path,
    archive: zipfile.ZipFile,
    name: str,
    dimensions: tuple[int, ...],
    form: str,
    types: str,
) -> NDArray[Any]:
    """One array of the archive, native byte order, checked before it is allocated."""
    entry = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{path}: {name} is packed by method {entry.compress_type}; expected numpy's savez or "
            "savez_compressed"
        )
    with archive.open(entry) as file:
        shape, dtype = read_header(file)
        fits = (
            dtype.kind in "iu"
            if types == "integers"
            else dtype.newbyteorder("=") in (np.uint8, np.float32)
        )
        if not fits:
            raise UserError(f"{path}: {name} is {dtype}; expected {types}")
        if len(shape) not in dimensions:
            raise UserError(f"{path}: {name} has the shape {shape}; expected {form}")
        # Only file.tell() bytes of the entry are read so far: the rest must be exactly the array.
        size = math.prod(shape) * dtype.itemsize
        if file.tell() + size != entry.file_size:
            raise UserError(
                f"{path}: {name} says {shape} {dtype}, {size} bytes; the archive has "
                f"{entry.file_size - file.tell()}"
            )
        if entry.file_size > DEFLATE * path.stat().st_size:
            raise UserError(
                f"{path}: {name} says {size} bytes; a file of {path.stat().st_size} cannot hold "
                "that"
            )
    with archive.open(entry) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return np.ascontiguousarray(array, dtype.newbyteorder("="))


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type in the .npy header; ValueError if it is none."""
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"npy format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except (
        Exception
    ) as error:  # the header is Python text: a damaged one makes its parser raise nearly anything
        raise ValueError(f"no npy header: {error}") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"npy shape {shape}")
    return shape, dtype
