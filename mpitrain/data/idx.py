"""MNIST's IDX files, plain or .gz: a folder of four files in, a Dataset out.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, section "File formats": big-endian magic
number 00 00 08 (unsigned bytes) and the number of dimensions, a uint32 for each dimension, then the
bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import ArraySplit, Dataset, from_arrays
from mpitrain.job.errors import UserError

DEFLATE = 1032
"""Deflate makes nothing smaller than by this factor, so a .gz that promises more lies."""
CHUNK = 1 << 20


def found(path: Path) -> bool:
    """Whether the folder holds IDX training images or labels."""
    return any(find(path, f"train-{part}") for part in ("images-idx3", "labels-idx1"))


def open_folder(path: Path, *, classes: int | None, bad: Bad | None = None) -> Dataset:
    """train-images-idx3-ubyte and train-labels-idx1-ubyte, and t10k-* for the test split where they
    are there.

    Images are uint8 (1, H, W). Raises UserError naming the file that is missing, truncated or not
    what it says.
    """
    tested = any(find(path, f"t10k-{part}") for part in ("images-idx3", "labels-idx1"))
    train, test = split(path, "train"), split(path, "t10k") if tested else None
    return from_arrays(path.resolve().name, train, test, classes=classes, bad=bad)


def split(path: Path, prefix: str) -> ArraySplit:
    """The split of one prefix, `train` or `t10k`."""
    images_file, labels_file = (
        find(path, f"{prefix}-images-idx3"),
        find(path, f"{prefix}-labels-idx1"),
    )
    if images_file is None or labels_file is None:
        missing = (
            f"{prefix}-images-idx3-ubyte" if images_file is None else f"{prefix}-labels-idx1-ubyte"
        )
        raise UserError(f"{path}: expected {missing} or {missing}.gz, found neither")
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    return ArraySplit(images[:, np.newaxis], labels.astype(np.int64), images_file, labels_file)


def find(path: Path, stem: str) -> Path | None:
    """The file of that stem: plain before .gz, `-ubyte` before the `.idx3-ubyte` some archives
    unpack to."""
    dotted = "".join(stem.rsplit("-idx", 1)[:1]) + ".idx" + stem[-1]
    names = [f"{stem}-ubyte", f"{dotted}-ubyte", f"{stem}-ubyte.gz", f"{dotted}-ubyte.gz"]
    return next((path / name for name in names if (path / name).is_file()), None)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The bytes of one IDX file in its shape. A plain file is mapped, so that ranks of one host
    share its pages."""
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape = read_shape(path, file, dimensions)
            start, size, length = 4 + 4 * dimensions, math.prod(shape), path.stat().st_size
            if 0 in shape:
                raise UserError(f"{path}: its header says {describe(shape)}; expected at least one")
            if not zipped:
                if length != start + size:
                    raise UserError(
                        f"{path}: its header says {describe(shape)} in {start + size} bytes; the "
                        f"file has {length}"
                    )
                return np.asarray(np.memmap(path, np.uint8, "r", start, shape))
            if size > DEFLATE * length:
                raise UserError(
                    f"{path}: its header says {describe(shape)}; {length} compressed bytes cannot "
                    "hold that"
                )
            content = np.empty(size, np.uint8)
            filled = 0
            while chunk := file.read(min(CHUNK, size - filled)):
                content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
                filled += len(chunk)
            if filled < size or file.read(1):
                came = f"only {filled}" if filled < size else "more"
                raise UserError(
                    f"{path}: its header says {describe(shape)} in {size} bytes; there are {came}"
                )
            return content.reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        what = "truncated or damaged gzip file" if zipped else "cannot be read"
        raise UserError(f"{path}: {what}; expected an IDX file ({error})") from error


def read_shape(path: Path, file: Any, dimensions: int) -> tuple[int, ...]:
    """The sizes in the header, first dimension first."""
    header = file.read(4 + 4 * dimensions)
    magic = 0x0800 + dimensions
    if len(header) >= 4 and (came := struct.unpack(">I", header[:4])[0]) != magic:
        raise UserError(
            f"{path}: magic number 0x{came:08x}; expected 0x{magic:08x} (unsigned bytes, "
            f"{dimensions} dimensions)"
        )
    if len(header) < 4 + 4 * dimensions:
        raise UserError(
            f"{path}: {len(header)} bytes; expected an IDX header of {4 + 4 * dimensions}"
        )
    return struct.unpack(f">{dimensions}I", header[4:])


def describe(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} labels"
    return f"{shape[0]} images of {shape[1]}x{shape[2]}"
