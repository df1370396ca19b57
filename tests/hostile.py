"""Bytes that somebody has spoilt, and everything that reads bytes: each either takes them or says in a sentence what is wrong.

    python tests/hostile.py message 1000000        so many spoilt messages; seconds, and how many were refused
    python tests/hostile.py files 100000           so many files, the kinds in turn

A case is its kind and number: the same bytes every time. Whatever is raised but MpitrainError ends with the case's name, and memory is limited.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mpitrain import checkpoint, models
from mpitrain.checkpoint import Entry, Reader
from mpitrain.data.source import open_source
from mpitrain.exchange.message import HEADER, PARTS, Label, check, seal
from mpitrain.models import netfile
from mpitrain.plan import infer_shapes
from mpitrain.report import MpitrainError

NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    256,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    (1 << 63) - 1,
)
LABEL = Label(codec=1, block=512, bucket=3, phase=PARTS, step=7, count=512)
MOST_MEMORY = 4 << 30
"""Bytes of address space: what asks for more than it has bytes for is found."""


class Gentle(random.Random):
    """Chance that spoils nothing: what is made with it must be taken."""


def spoil(good: bytes, chance: random.Random) -> bytes:
    """A few flipped bits, odd numbers, cuts, repetitions and insertions."""
    data = bytearray(good)
    if isinstance(chance, Gentle):
        return good
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(min(len(data), chance.choice((16, 256, 1 << 30)))) if data else 0
        what = chance.randrange(6)
        if what == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1 and data:
            data[at] = chance.choice((0, 9, 10, 32, 34, 44, 45, 46, 48, 57, 127, 128, 255))
        elif what == 2:
            size = chance.choice((2, 4, 8))
            number = chance.choice(NUMBERS) % (1 << 8 * size)
            data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
        elif what == 3:
            del data[at : at + chance.choice((1, 4, 64, 1 << 30))]
        elif what == 4:
            stop = at + chance.randrange(1, 65)
            data[at:at] = data[at:stop] * chance.choice((1, 2, 8, 5000))
        else:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)


@cache
def _message() -> bytes:
    message = np.arange(HEADER + 513).astype(np.uint8)
    seal(message, LABEL, 0.25)
    return message.tobytes()


def message(chance: random.Random, folder: Path) -> None:
    """What comes over the wire has the length that was agreed on, or MPI's status has said so before."""
    good = _message()
    came = spoil(good, chance)[: len(good)].ljust(len(good), b"\0")
    check(np.frombuffer(came, np.uint8).copy(), LABEL, 1)
    assert came == good, "damage went unnoticed"


@cache
def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.safetensors"
        values = np.arange(40, dtype=np.float32)
        settings = dict.fromkeys(checkpoint.NEEDED, 1)
        entries = [Entry(name, (5, 8), lambda: [values]) for name in ("a.weight", "momentum/a.weight")]
        checkpoint.write(path, entries, {"mpitrain": json.dumps(settings)})
        return path.read_bytes()


def saved(chance: random.Random, folder: Path) -> None:
    path, came = folder / "spoilt.safetensors", spoil(_checkpoint(), chance)
    path.write_bytes(came)
    with Reader(path) as reader:
        reader.settings()
        for name in sorted(reader.names):
            reader.read(name)
    assert came == _checkpoint(), "damage went unnoticed"


def read_all(path: Path) -> None:
    """A few images of each split of a data set."""
    data = open_source(str(path), shape_hint=(1, 8, 8))
    for split in (data.train, data.test):
        if split is not None:
            split.read(np.arange(min(len(split), 4)))


def idx(chance: random.Random, folder: Path) -> None:
    images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (6, 8, 8)) + bytes(6 * 64)
    labels = b"\0\0\x08\x01" + (6).to_bytes(4, "big") + bytes(range(6))
    both = {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels}
    for name, content in both.items():
        (folder / name).write_bytes(content)
    name = chance.choice(list(both))
    (folder / name).write_bytes(spoil(both[name], chance))
    read_all(folder)


def cifar(chance: random.Random, folder: Path) -> None:
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(bytes(2 * 3073))
    (folder / "data_batch_2.bin").write_bytes(spoil(bytes(2 * 3073), chance))
    read_all(folder)


@cache
def _npz() -> bytes:
    there = BytesIO()
    images, labels = np.zeros((6, 1, 8, 8), np.uint8), np.arange(6)
    np.savez(there, images=images, labels=labels, test_images=images, test_labels=labels)
    return there.getvalue()


def npz(chance: random.Random, folder: Path) -> None:
    path = folder / "spoilt.npz"
    path.write_bytes(spoil(_npz(), chance))
    read_all(path)


@cache
def _pictures() -> dict[str, bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        there = BytesIO()
        picture.save(there, kind)
        found[kind.lower()] = there.getvalue()
    return found


def images(chance: random.Random, folder: Path) -> None:
    kind = chance.choice(sorted(_pictures()))
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        (folder / "train" / name / f"1.{kind}").write_bytes(_pictures()[kind])
    (folder / "train" / "cat" / f"1.{kind}").write_bytes(spoil(_pictures()[kind], chance))
    read_all(folder)


@cache
def _network() -> bytes:
    return netfile.encode(models.load("lenet")).encode()


def network(chance: random.Random, folder: Path) -> None:
    path = folder / "spoilt.toml"
    path.write_bytes(spoil(_network(), chance))
    infer_shapes(models.load(str(path)))


FILES: dict[str, Callable[[random.Random, Path], None]] = {
    each.__name__: each for each in (saved, idx, cifar, npz, images, network)
}
KINDS = {"message": message, **FILES}


def refuses(kind: str, number: int, folder: Path) -> bool:
    """Whether a case is refused, in a sentence; False: it was taken. Any other exception passes."""
    try:
        KINDS[kind](random.Random(f"{kind} {number}"), folder)
    except MpitrainError as error:
        assert str(error).strip(), "an error without words"
        return True
    return False


def main(what: str, count: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    kinds = list(FILES) if what == "files" else [what]
    begin, refused, crashed = time.perf_counter(), dict.fromkeys(kinds, 0), 0
    for number in range(count):
        kind = kinds[number % len(kinds)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                refused[kind] += refuses(kind, number, Path(folder))
            except Exception as error:
                crashed += 1
                print(f"{kind} {number}: {type(error).__name__}: {error}", flush=True)
    print(f"{count} {what} in {time.perf_counter() - begin:.0f} s: refused {refused}, crashed {crashed}")
    sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
