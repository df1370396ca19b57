"""What it would cost to look at every image of a folder before a run: the ends of the files, as
`--skip-bad` does, and all of their pixels.

    python benchmarks/first_look.py [COUNT]

Writes COUNT (5,000) JPEGs of 500 x 375 pixels, of the size of ImageNet's, to a temporary folder,
and prints a table: wall and CPU seconds of this process, three times each.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mpitrain.data.bad import Bad
from mpitrain.data.folder import FolderSplit, open_folder

SHAPE = (3, 224, 224)
TIMES = 3
DISTINCT = 50
BLOCK = 256
"""Images that are decoded at once, as a batch is."""


def write(root: Path, count: int) -> float:
    """So many JPEGs in two class folders; the mean of their sizes in KiB."""
    random = np.random.default_rng(0)
    blobs = []
    for _ in range(DISTINCT):
        noise = random.integers(0, 256, (375, 500, 3), np.uint8)
        picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.2))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        blobs.append(file.getvalue())
    for number in range(count):
        folder = root / "train" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.jpg").write_bytes(blobs[number % DISTINCT])
    return sum(map(len, blobs)) / DISTINCT / 1024


def ends(split: FolderSplit) -> None:
    assert not split.first_look()


def pixels(split: FolderSplit) -> None:
    for first in range(0, len(split), BLOCK):
        split.read(np.arange(first, min(first + BLOCK, len(split))))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as place:
        size = write(Path(place), count)
        print(f"{count:,} JPEGs of 500 x 375, {size:.0f} KiB each")
        looks: dict[str, Callable[[FolderSplit], None]] = {"ends": ends, "pixels": pixels}
        for name, look in looks.items():
            split = open_folder(Path(place), shape=SHAPE, classes=None, bad=Bad(0)).train
            assert isinstance(split, FolderSplit)
            walls, cpus = [], []
            for _ in range(TIMES):
                wall, cpu = time.perf_counter(), time.process_time()
                look(split)
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
            print(
                f"{name}: wall {statistics.median(walls):.2f} s ({min(walls):.2f} to "
                f"{max(walls):.2f}), CPU {statistics.median(cpus):.2f} s, "
                f"{1000 * statistics.median(cpus) / count:.2f} ms an image"
            )


if __name__ == "__main__":
    main()
