"""What a trained network sees in image files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpitrain.data.folder import image_files
from mpitrain.job.errors import DONE, FAILED, WRONG_USE, UserError
from mpitrain.job.plain import plain
from mpitrain.network.model import Model, load

AT_ONCE = 64
"""Images that are decoded and computed at a time."""


def predict_files(
    checkpoint: Path,
    places: Sequence[Path],
    top: int,
    device: str,
    as_json: bool,
    network: str | None = None,
) -> int:
    """Print the `top` classes and probabilities of each image file, best first; a folder stands for
    the images in it.

    Returns the exit code: a file that is no image is told on stderr, and the others go on; 2 where
    none is one. Raises UserError where there is nothing to look at.
    """
    files = [file for place in places for file in _files(place)]
    model = load(checkpoint, device, capacity=min(AT_ONCE, len(files)), network=network)
    bad = 0
    for first in range(0, len(files), AT_ONCE):
        readable: list[tuple[Path, NDArray[np.uint8]]] = []
        for file in files[first : first + AT_ONCE]:
            try:
                readable.append((file, model.look(file)))
            except UserError as error:
                bad += 1
                print(f"mpitrain: {plain(str(error))}", file=sys.stderr, flush=True)
        if readable:
            found = model.predict(np.stack([image for _, image in readable]))
            for (file, _), probabilities in zip(readable, found, strict=True):
                print(_line(model, file, probabilities, top, as_json), flush=True)
    if bad == len(files):
        return WRONG_USE
    return FAILED if bad else DONE


def _files(place: Path) -> Iterator[Path]:
    """An image file itself, or those in a folder and in the folders of classes below it."""
    if not place.exists():
        raise UserError(f"{place}: there is no such file or folder")
    if not place.is_dir():
        yield place
        return
    folders = [place, *sorted(each for each in place.rglob("*") if each.is_dir())]
    found = [folder / name for folder in folders for name in sorted(image_files(folder))]
    if not found:
        raise UserError(f"{place}: there are no images in this folder")
    yield from found


def _line(
    model: Model, file: Path, probabilities: NDArray[np.float32], top: int, as_json: bool
) -> str:
    found = model.best(probabilities, top)
    if as_json:
        classes = [{"class": name, "probability": p} for name, p in found]
        return json.dumps({"image": str(file), "classes": classes})
    return plain(f"{file}: " + ", ".join(f"{name} {p:.1%}" for name, p in found))
