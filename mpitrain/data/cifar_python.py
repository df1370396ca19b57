"""CIFAR-10 and CIFAR-100 folders of the "python version": pickled batches in, a Dataset out.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009, and the data's
web page. A batch is a dict with `data`, uint8 (n, 3072), an image's red, green and blue rows, and
`labels` (CIFAR-100: `fine_labels`). `pickles` reads them without executing anything.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain.data import pickles
from mpitrain.data.bad import Bad
from mpitrain.data.dataset import ArraySplit, Dataset, from_arrays
from mpitrain.job.errors import UserError
from mpitrain.job.pickled import Unreadable

PIXELS = 3 * 32 * 32
TEN = [f"data_batch_{number}" for number in range(1, 6)]
MOST_BYTES = 1 << 30
"""Of a batch; the largest real one has 155 MB."""


def found(path: Path) -> bool:
    """Whether the folder holds a pickled training batch."""
    return any((path / name).is_file() for name in TEN) or (
        (path / "train").is_file() and (path / "meta").is_file()
    )


def open_folder(path: Path, *, classes: int | None, bad: Bad | None = None) -> Dataset:
    """data_batch_1 to 5 and test_batch (10 classes), or train and test (100 classes); class names
    from batches.meta or meta.

    Images are uint8 (3, 32, 32); the test batch and the names may be missing, the training batches
    may not (UserError).
    """
    ten = any((path / name).is_file() for name in TEN)
    train_names, test_name = (TEN, "test_batch") if ten else (["train"], "test")
    key, own = ("labels", 10) if ten else ("fine_labels", 100)
    for name in train_names:
        if not (path / name).is_file():
            raise UserError(f"{path}: expected {', '.join(train_names)}; {name} is missing")
    train = read([path / name for name in train_names], key)
    test = read([path / test_name], key) if (path / test_name).is_file() else None
    data = from_arrays(path.resolve().name, train, test, classes=classes or own, bad=bad)
    names = class_names(path / "batches.meta" if ten else path / "meta", ten)
    return replace(data, class_names=names) if len(names) == data.classes else data


def read(files: list[Path], key: str) -> ArraySplit:
    """All images of the batches, in their order."""
    images, labels = [], []
    for file in files:
        batch = unpickled(file)
        pixels, numbers = batch.get("data"), batch.get(key)
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
            shape = getattr(pixels, "shape", "missing")
            raise UserError(f"{file}: data is {shape}; expected an uint8 array (n, {PIXELS})")
        if type(numbers) is not list or any(type(each) is not int for each in numbers):
            raise UserError(f"{file}: {key} is missing or no list of whole numbers")
        if len(numbers) != len(pixels):
            raise UserError(f"{file}: {len(numbers)} {key} for {len(pixels)} images")
        images.append(pixels.reshape(-1, 3, 32, 32))
        if any(abs(each) >> 62 for each in numbers):
            raise UserError(f"{file}: {key} has a number that is no class")
        labels.append(np.array(numbers, np.int64))
    return ArraySplit(np.concatenate(images), np.concatenate(labels), files[0], files[0])


def class_names(file: Path, ten: bool) -> tuple[str, ...]:
    """The names in the file beside the batches; none where there is no such file, or no names in
    it."""
    if not file.is_file():
        return ()
    names = unpickled(file).get("label_names" if ten else "fine_label_names")
    if type(names) is not list or not all(type(name) in (str, bytes) for name in names):
        return ()
    return tuple(name if type(name) is str else name.decode("latin-1") for name in names)


def unpickled(file: Path) -> dict[str, Any]:
    """A pickled dict with strings as keys. Raises UserError naming the file."""
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{file}: {size} bytes; expected a batch of CIFAR's")
        batch = pickles.read(file.read_bytes())
    except OSError as failure:
        raise UserError(f"{file}: cannot be read ({failure.strerror})") from failure
    except Unreadable as error:
        raise UserError(f"{file}: expected a pickled batch of CIFAR's ({error})") from None
    if type(batch) is not dict:
        raise UserError(f"{file}: expected a pickled batch of CIFAR's, got no dict")
    return {
        key.decode("latin-1") if type(key) is bytes else str(key): each
        for key, each in batch.items()
    }
