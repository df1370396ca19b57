"""NumPy archives: an .npz with `images` and `labels`, perhaps `test_images` and `test_labels`, in,
a Dataset out."""

from __future__ import annotations

import math
import zipfile
import zlib
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


def open_npz(
    path: Path, *, classes: int | None, bad: Bad | None = None, layout: str | None = None
) -> Dataset:
    """images (n, C, H, W) uint8 or float32 and labels (n,) of any integers, for both splits.

    layout: "nchw", or "nhwc" for images (n, H, W, C); where nothing is said, those that look like
    the latter are refused.
    Raises UserError for missing arrays, other types or dimensions, truncated archives and sizes
    that lie: an array is allocated only after its header, its entry in the archive and the file
    agree. Nothing is ever unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            for name in ("images", "labels"):
                if name not in names:
                    raise UserError(
                        f"{path}: expected arrays images and labels, found "
                        f"{', '.join(sorted(names)) or 'none'}"
                    )
            train = read_split(path, archive, "", layout)
            test = None
            if names & {"test_images", "test_labels"}:
                if not names >= {"test_images", "test_labels"}:
                    raise UserError(
                        f"{path}: expected test_images and test_labels together, found one of them"
                    )
                test = read_split(path, archive, "test_", layout)
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


def read_split(path: Path, archive: zipfile.ZipFile, prefix: str, layout: str | None) -> ArraySplit:
    form = "(n, H, W, C)" if layout == "nhwc" else "(n, C, H, W)"
    images = read_array(path, archive, f"{prefix}images", 4, form, "uint8 or float32")
    if layout is None and _channels_last(images.shape):
        raise UserError(
            f"{path}: {prefix}images has the shape {images.shape}, which looks like (n, H, W, C); "
            "expected (n, C, H, W). --layout nhwc takes it as it looks, --layout nchw as it is"
        )
    if layout == "nhwc":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    labels = read_array(path, archive, f"{prefix}labels", 1, "(n,)", "integers")
    return ArraySplit(images, labels.astype(np.int64), path, path)


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images have their few channels last, as most programs have them in memory."""
    _, height, width, channels = shape
    return channels in (1, 3, 4) and height > 4 and width > channels


def read_array(
    path: Path, archive: zipfile.ZipFile, name: str, dimensions: int, form: str, types: str
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
        if len(shape) != dimensions:
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
