"""CIFAR-10 and CIFAR-100 binary folders: records of label bytes and 3x32x32 pixels in, a Dataset
out.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009, and the data's
web page ("binary version"). CIFAR-100 has a coarse label before the fine one; the fine one is used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpitrain.data.bad import Bad
from mpitrain.data.dataset import ArraySplit, Dataset, from_arrays, wrong_labels
from mpitrain.job.errors import UserError

PIXELS = 3 * 32 * 32
TEN = [f"data_batch_{number}.bin" for number in range(1, 6)]


def found(path: Path) -> bool:
    """Whether the folder holds a CIFAR training file."""
    return any((path / name).is_file() for name in [*TEN, "train.bin"])


def open_folder(path: Path, *, classes: int | None, bad: Bad | None = None) -> Dataset:
    """data_batch_1.bin to 5 and test_batch.bin (10 classes), or train.bin and test.bin (100
    classes).

    Images are uint8 (3, 32, 32); the test file may be missing, the training files may not
    (UserError).
    """
    bad = bad or Bad()
    ten = any((path / name).is_file() for name in TEN)
    train_names, test_name = (TEN, "test_batch.bin") if ten else (["train.bin"], "test.bin")
    label_bytes, own = (1, 10) if ten else (2, 100)
    for name in train_names:
        if not (path / name).is_file():
            raise UserError(f"{path}: expected {', '.join(train_names)}; {name} is missing")
    train = read([path / name for name in train_names], label_bytes, min(own, classes or own), bad)
    test = None
    if (path / test_name).is_file():
        test = read([path / test_name], label_bytes, min(own, classes or own), bad)
    return from_arrays(path.resolve().name, train, test, classes=classes or own, bad=bad)


def read(files: list[Path], label_bytes: int, classes: int, bad: Bad) -> ArraySplit:
    """All records of the files, in their order. One file stays mapped; several are put together in
    memory."""
    record = label_bytes + PIXELS
    parts = []
    for file in files:
        try:
            size = file.stat().st_size
            if size == 0 or size % record:
                error = UserError(
                    f"{file}: {size} bytes; expected whole records of {record} bytes, at least one"
                )
                if size < record:
                    raise error
                bad.leave_out(f"{file.name}, the end", error)
            part = np.asarray(np.memmap(file, np.uint8, "r", shape=(size // record, record)))
        except OSError as failure:
            raise UserError(f"{file}: cannot be read ({failure.strerror})") from failure
        wrong = wrong_labels(file, part[:, label_bytes - 1].astype(np.int64), classes, bad)
        parts.append(np.delete(part, wrong, axis=0) if wrong else part)
    images = [part[:, label_bytes:].reshape(-1, 3, 32, 32) for part in parts]
    labels = np.concatenate([part[:, label_bytes - 1] for part in parts]).astype(np.int64)
    return ArraySplit(
        images[0] if len(images) == 1 else np.concatenate(images), labels, files[0], files[0]
    )
