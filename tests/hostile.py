"""Everything that reads bytes of others, each as one function of bytes: it takes them, or says in a
sentence (MpitrainError) what is wrong.

`test_hostile.py` gives them what hypothesis makes of good bytes, `fuzz.py` what a fuzzer makes that
sees which lines they reach. Some begin with a byte that chooses which file of several the rest is.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mpitrain.data.bad import Bad
from mpitrain.data.source import Dataset, open_source
from mpitrain.exchange.codec_numpy import MARKED, PlainDynamic8, PlainFloat16
from mpitrain.exchange.codec_protocol import BLOCK, Bytes, Plain
from mpitrain.exchange.message import HEADER, PARTS, Label, check, seal
from mpitrain.exchange.rows import CodedRows
from mpitrain.job import checkpoint
from mpitrain.job.checkpoint import Entry, Reader
from mpitrain.job.errors import MpitrainError
from mpitrain.job.pth import PthReader
from mpitrain.network import models
from mpitrain.network.memory import infer_shapes
from mpitrain.network.models import netfile

LABEL = Label(codec=1, block=BLOCK, bucket=3, phase=PARTS, step=7, count=BLOCK)
MOST_MEMORY = 4 << 30
"""Bytes of address space for a fuzzer: what asks for more than it has bytes for is found."""
DIGEST = 32
PTH = Path(__file__).parent / "job" / "pth"


@cache
def good_message() -> bytes:
    codec, values = PlainDynamic8(), np.linspace(-3, 2, BLOCK, dtype=np.float32)
    message = np.zeros(HEADER + codec.record, np.uint8)
    codec.encode(Plain(message[HEADER:]), Plain(values))
    seal(message, LABEL, 0.25)
    return message.tobytes()


def message(data: bytes, folder: Path) -> None:
    """What comes over the wire has the length that was agreed on, or MPI's status has said so
    before. A fuzzer that sees comparisons makes checksums as well as we do: what passes must be
    decoded, whatever it is."""
    came = np.frombuffer(as_long(data), np.uint8).copy()
    decode(came[HEADER:].tobytes())
    check(came, LABEL, 1)


class Sender:
    """Rank 1 of two, which sends these bytes, filled up or cut to the length that was agreed on."""

    rank, size, numbers = 0, 2, range(2)

    def __init__(self, data: bytes = b"") -> None:
        self._data, self.got = data, b""

    def swap(self, outgoing: Sequence[Bytes], incoming: Sequence[Bytes]) -> None:
        self.got, into = outgoing[1].tobytes(), incoming[1]
        into[:] = np.frombuffer(self._data[: into.size].ljust(into.size, b"\0"), np.uint8)
        incoming[0][:] = outgoing[0]


@cache
def good_rows() -> bytes:
    """A block, and a part of one."""
    sender, values = Sender(), np.linspace(-3, 2, BLOCK + 9, dtype=np.float32)
    with contextlib.suppress(MpitrainError):  # nothing good comes back
        CodedRows(sender, PlainDynamic8()).swap([values] * 2, [values.copy(), values.copy()])
    return sender.got


def rows(data: bytes, folder: Path) -> None:
    """Activations of a split layer: what is taken is finite, but where a block is marked."""
    values = np.zeros(BLOCK + 9, np.float32)
    found = values.copy()
    CodedRows(Sender(data), PlainDynamic8()).swap([values] * 2, [values.copy(), found])
    scales = data[HEADER], data[HEADER + BLOCK + 1]  # a message as short as this is refused
    finite = [bool(np.isfinite(part).all()) for part in (found[:BLOCK], found[BLOCK:])]
    assert finite == [scale != MARKED for scale in scales]


def as_long(data: bytes) -> bytes:
    """Bytes as long as the good message."""
    size = len(good_message())
    return data[:size].ljust(size, b"\0")


def decode(data: bytes) -> None:
    """Any bytes are records of both codecs, of finite values unless the block's bound says so; what
    is decoded can be encoded."""
    for codec in (PlainDynamic8(), PlainFloat16()):
        whole = len(data) // codec.record * codec.record
        records = np.frombuffer(data[:whole], np.uint8).copy()
        found = codec.floats(whole // codec.record * BLOCK)
        codec.decode_add(found, Plain(records), True)
        finite = np.isfinite(found.values).reshape(-1, BLOCK).all(axis=1)
        assert np.array_equal(finite, np.isfinite(codec.bounds(records)))
        assert not found.values[codec.zeros(records) & np.repeat(finite, BLOCK)].any()
        codec.encode(codec.bytes(whole), found)


@cache
def good_checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.safetensors"
        values = np.arange(40, dtype=np.float32)
        entries = [
            Entry(name, (5, 8), lambda: [values]) for name in ("a.weight", "momentum/a.weight")
        ]
        checkpoint.write(path, entries, {"mpitrain": json.dumps(settings())})
        return path.read_bytes()


def settings() -> dict[str, object]:
    """Of a checkpoint of LeNet."""
    of_kind = {str: "x", int: 1, list: [0.5], bool: False}
    run = {name: of_kind[kind] for name, kind in checkpoint.NEEDED_OF_RUN.items()}
    found = {
        name: run if kind is dict else of_kind[kind] for name, kind in checkpoint.NEEDED.items()
    }
    return {**found, "network": good_network().decode(), "classes": []}


def saved(data: bytes, folder: Path) -> None:
    """A file as it came (0), with a checksum of what came (1), or with what came as its settings
    (2): somebody may wish to do harm."""
    good, come, path = good_checkpoint(), data[1:], folder / "spoilt.safetensors"
    which = data[0] % 3 if data else 0
    if which == 2:
        checkpoint.write(path, [], {"mpitrain": come.decode(errors="replace")})
    else:
        path.write_bytes(
            come[:-DIGEST] + hashlib.sha256(come[:-DIGEST]).digest() if which else come
        )
    with Reader(path) as reader:
        found = reader.settings()
        for name in sorted(reader.names):
            assert reader.read(name).shape == reader.shape(name)
    infer_shapes(netfile.decode(found["network"], str(path)))
    assert come == good or which, "damage went unnoticed"


def read_all(path: Path, most: int = 0) -> Dataset:
    """A few images of each split of a data set."""
    data = open_source(str(path), shape_hint=(1, 8, 8), bad=Bad(most))
    for split in (data.train, data.test):
        if split is not None:
            images, labels = split.read(np.arange(min(len(split), 4)))
            assert images.shape == (len(labels), *data.shape) and images.dtype == split.dtype
            assert len(labels) and labels.min() >= 0 and labels.max() < data.classes
    assert np.isfinite(data.mean).all() and (data.std > 0).all()
    return data


IDX_IMAGES = (
    b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (6, 8, 8)) + bytes(range(64)) * 6
)
IDX_LABELS = b"\0\0\x08\x01" + (6).to_bytes(4, "big") + bytes(range(6))
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz")


def idx(data: bytes, folder: Path) -> None:
    """The spoilt file beside a good one; from 4 on the .gz is whole, and its content is not."""
    which = data[0] % 8 if data else 0
    for old in folder.iterdir():
        old.unlink()
    name, come = IDX_FILES[which % 4], data[1:]
    for file, content in ((TRAIN_IMAGES, IDX_IMAGES), (TRAIN_LABELS, IDX_LABELS)):
        if not name.startswith(file):
            (folder / file).write_bytes(content)
    (folder / name).write_bytes(gzip.compress(come, 1) if which >= 6 else come)
    found = read_all(folder)
    if which == 0:
        images, _ = found.train.read(np.arange(len(found.train)))
        assert images.tobytes() == come[16:]


def cifar(data: bytes, folder: Path) -> None:
    """One of the files of CIFAR-10, or CIFAR-100's, with 0 to 3 records to leave out."""
    ten, most = data[:1] < b"\x80", (data[0] if data else 0) % 4
    place = folder / ("ten" if ten else "hundred")
    if not place.exists():
        place.mkdir()
        for number in range(1, 6) if ten else ():
            (place / f"data_batch_{number}.bin").write_bytes(bytes(3073))
    (place / ("data_batch_2.bin" if ten else "train.bin")).write_bytes(data[1:])
    found = read_all(place, most)
    record = 3073 if ten else 3074
    assert len(found.train) + len(found.bad.names) == 4 * ten + -(-len(data[1:]) // record)


@cache
def good_pickle() -> bytes:
    return pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 9]}, 2)


def cifar_python(data: bytes, folder: Path) -> None:
    """One of CIFAR-10's pickled batches among good ones."""
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(data if number == 3 else good_pickle())
    read_all(folder)


@cache
def good_npz() -> bytes:
    there = BytesIO()
    images, labels = np.zeros((6, 1, 8, 8), np.uint8), np.arange(6)
    np.savez(there, images=images, labels=labels, test_images=images, test_labels=labels)
    return there.getvalue()


def npz(data: bytes, folder: Path) -> None:
    path = folder / "spoilt.npz"
    path.write_bytes(data)
    read_all(path)


@cache
def pictures() -> dict[str, bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        there = BytesIO()
        picture.save(there, kind)
        found[kind.lower()] = there.getvalue()
    return found


def images(data: bytes, folder: Path) -> None:
    """A file among good ones, with none or one to leave out; Pillow looks at what it is, not at its
    name."""
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        (folder / "train" / name / "2.png").write_bytes(pictures()["png"])
    (folder / "train" / "cat" / "1.png").write_bytes(data[1:])
    read_all(folder, (data[0] if data else 0) % 2)


@cache
def good_tar() -> bytes:
    """Two samples, the second with a name that needs a header of its own."""
    there = BytesIO()
    with tarfile.open(fileobj=there, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, label in (("a/1", b"0"), ("x" * 120, b"1\n")):
            for suffix, content in (("png", pictures()["png"]), ("cls", label)):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    return there.getvalue()


def tar(data: bytes, folder: Path) -> None:
    """A shard, with none or one sample to leave out; from 2 on every header's sum is made right."""
    which, come = data[0] % 4 if data else 0, bytearray(data[1:])
    for at in range(0, len(come) - 511 if which >= 2 else 0, 512):
        if come[at + 257 : at + 262] == b"ustar":
            total = sum(come[at : at + 148]) + sum(come[at + 156 : at + 512]) + 256
            come[at + 148 : at + 156] = b"%06o\0 " % total
    (folder / "train-0.tar").write_bytes(come)
    read_all(folder, which % 2)


@cache
def good_network() -> bytes:
    return netfile.encode(models.load("lenet")).encode()


def network(data: bytes, folder: Path) -> None:
    path = folder / "spoilt.toml"
    path.write_bytes(data)
    infer_shapes(models.load(str(path)))


def pth(data: bytes, folder: Path) -> None:
    """A file of PyTorch's, of either format."""
    path = folder / "spoilt.pth"
    path.write_bytes(data)
    with PthReader(path) as reader:
        for name in sorted(reader.names):
            assert reader.read(name).shape == reader.shape(name)


@dataclass(frozen=True)
class Target:
    """A reader, and bytes that it takes."""

    take: Callable[[bytes, Path], None]
    good: Callable[[], list[bytes]]


TARGETS = {
    "message": Target(message, lambda: [good_message()]),
    "rows": Target(rows, lambda: [good_rows()]),
    "saved": Target(
        saved,
        lambda: [
            b"\0" + good_checkpoint(),
            b"\1" + good_checkpoint(),
            b"\2" + json.dumps(settings()).encode(),
        ],
    ),
    "idx": Target(
        idx,
        lambda: [
            *(
                bytes([n]) + file
                for n, file in ((0, IDX_IMAGES), (1, IDX_LABELS), (6, IDX_IMAGES), (7, IDX_LABELS))
            ),
            *(
                bytes([n]) + gzip.compress(file, mtime=0)
                for n, file in ((2, IDX_IMAGES), (3, IDX_LABELS))
            ),
        ],
    ),
    "cifar": Target(
        cifar, lambda: [bytes([first]) + bytes(2 * 3073 + first // 64) for first in (0, 1, 130)]
    ),
    "cifar_python": Target(cifar_python, lambda: [good_pickle()]),
    "npz": Target(npz, lambda: [good_npz()]),
    "images": Target(
        images, lambda: [bytes([first]) + data for data in pictures().values() for first in (0, 1)]
    ),
    "tar": Target(tar, lambda: [bytes([first]) + good_tar() for first in range(4)]),
    "network": Target(network, lambda: [good_network()]),
    "pth": Target(pth, lambda: [(PTH / name).read_bytes() for name in ("now.pth", "old.pth")]),
}


def refuses(kind: str, data: bytes, folder: Path) -> bool:
    """Whether bytes are refused, in a sentence; False: they were taken. Any other exception
    passes."""
    try:
        TARGETS[kind].take(data, folder)
    except MpitrainError as error:
        assert str(error).strip(), "an error without words"
        return True
    return False
