"""CIFAR-10 and CIFAR-100 binary folders: records of label bytes and 3x32x32 pixels in, a Dataset out.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009, and the data's web page ("binary
version"). CIFAR-100 has a coarse label before the fine one; the fine one is used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpitrain.data.dataset import ArraySplit, Dataset, check_labels, from_arrays
from mpitrain.report import UserError

PIXELS = 3 * 32 * 32
TEN = [f"data_batch_{number}.bin" for number in range(1, 6)]


def found(path: Path) -> bool:
    """Whether the folder holds a CIFAR training file."""
    return any((path / name).is_file() for name in [*TEN, "train.bin"])


def open_folder(path: Path, *, classes: int | None) -> Dataset:
    """data_batch_1.bin to 5 and test_batch.bin (10 classes), or train.bin and test.bin (100 classes).

    Images are uint8 (3, 32, 32); the test file may be missing, the training files may not (UserError).
    """
    ten = any((path / name).is_file() for name in TEN)
    train_names, test_name = (TEN, "test_batch.bin") if ten else (["train.bin"], "test.bin")
    label_bytes, own = (1, 10) if ten else (2, 100)
    for name in train_names:
        if not (path / name).is_file():
            raise UserError(f"{path}: expected {', '.join(train_names)}; {name} is missing")
    train = read([path / name for name in train_names], label_bytes, min(own, classes or own))
    test = None
    if (path / test_name).is_file():
        test = read([path / test_name], label_bytes, min(own, classes or own))
    return from_arrays(path.resolve().name, train, test, classes=classes or own)


def read(files: list[Path], label_bytes: int, classes: int) -> ArraySplit:
    """All records of the files, in their order. One file stays mapped; several are put together in memory."""
    record = label_bytes + PIXELS
    parts = []
    for file in files:
        try:
            size = file.stat().st_size
            if size == 0 or size % record:
                raise UserError(
                    f"{file}: {size} bytes; expected whole records of {record} bytes, at least one"
                )
            part = np.asarray(np.memmap(file, np.uint8, "r", shape=(size // record, record)))
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        check_labels(file, part[:, label_bytes - 1].astype(np.int64), classes)
        parts.append(part)
    images = [part[:, label_bytes:].reshape(-1, 3, 32, 32) for part in parts]
    labels = np.concatenate([part[:, label_bytes - 1] for part in parts]).astype(np.int64)
    return ArraySplit(images[0] if len(images) == 1 else np.concatenate(images), labels, files[0], files[0])
