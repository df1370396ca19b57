"""Weights in PyTorch's own files (.pth, .pt), read without running anything in them.

Today's format is a zip file: a pickle of the state_dict, and the values of each tensor's storage in
an entry of its own. Before 1.6 it was four pickles and then the storages, one after the other; many
files of torchvision are of that kind. `torch.save` in PyTorch's source writes both.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.checkpoint import names_of_weights
from mpitrain.job.errors import UserError
from mpitrain.job.pickled import Maker, Unreadable, load

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of a file before 1.6."""
VERSION = 1001
MOST_AXES = 8
LARGEST_PICKLE = 1 << 26
"""Bytes; the pickle of a state_dict has some 100 a tensor."""
WRAPPED = ("state_dict", "model_state_dict", "model")
"""Under which checkpoints of others keep their state_dict."""


@dataclass(frozen=True)
class Kind:
    """A type of values in a storage."""

    dtype: np.dtype[Any]
    bfloat16: bool = False
    """NumPy has none: it is the upper half of a float32."""


KINDS = {
    "Float": Kind(np.dtype("<f4")),
    "Double": Kind(np.dtype("<f8")),
    "Half": Kind(np.dtype("<f2")),
    "BFloat16": Kind(np.dtype("<u2"), bfloat16=True),
    "Long": Kind(np.dtype("<i8")),
    "Int": Kind(np.dtype("<i4")),
    "Short": Kind(np.dtype("<i2")),
    "Char": Kind(np.dtype("i1")),
    "Byte": Kind(np.dtype("u1")),
    "Bool": Kind(np.dtype("?")),
}


@dataclass(frozen=True)
class Storage:
    """Values in a row, somewhere in the file."""

    kind: Kind
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A storage seen under a shape; strides in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_pth(path: Path) -> bool:
    """Whether a file begins as PyTorch's do. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith(ZIP) or start[2:].startswith(b"\x8a\x0a" + MAGIC.to_bytes(10, "little"))


class PthReader:
    """An open .pth file: tensors by name, as checkpoint's Reader has them. Raises UserError for a
    file that is broken, or holds anything but a state_dict."""

    averaged = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._places: dict[str, Callable[[Storage], bytes]] = {}
        self._storages: dict[str, Storage] = {}
        try:
            self._file = path.open("rb")
            self._size = path.stat().st_size
            found = self._open_zip() if self._file.read(4) == ZIP else self._open_old()
            self._tensors = _state_dict(found)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (*FAILURES, OSError) as error:
            self._refuse(error)
        self.names = set(self._tensors)

    def __enter__(self) -> PthReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> NDArray[Any]:
        """One tensor, or its first axis from start to stop."""
        tensor = self._tensors[name]
        storage = tensor.storage
        try:
            content = self._read(storage)
        except (*FAILURES, OSError) as error:
            self._refuse(error)
        values = np.frombuffer(content, storage.kind.dtype, storage.count)
        strides = [values.itemsize * stride for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            values[tensor.offset :], tensor.shape, strides, writeable=False
        )
        view = view if start is None else view[start:stop]
        if storage.kind.bfloat16:
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.array(view)

    def weights(self, averaged: bool = False) -> dict[str, str]:
        """The network's own name of each tensor of numbers -> the file's."""
        return names_of_weights(self.names)

    def settings(self) -> NoReturn:
        raise UserError(
            f"{self.path} holds weights but no settings of mpitrain; --init, and --network of "
            "predict and export, take weights alone"
        )

    def _refuse(self, error: Exception) -> NoReturn:
        self._file.close() if hasattr(self, "_file") else None
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{self.path} is no state_dict of PyTorch's: {words}") from None

    # -- since 1.6
    # ----------------------------------------------------------------------------------------------

    def _open_zip(self) -> Any:
        self._zip = archive = zipfile.ZipFile(self._file)
        pickles = [each for each in archive.namelist() if each.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Unreadable(f"{len(pickles)} entries end in /data.pkl, expected one")
        self._root = pickles[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in archive.namelist() and self._entry(order, 16) != b"little":
            raise Unreadable("its byte order is not little")
        self._read = self._read_zip
        return load(self._entry(pickles[0], LARGEST_PICKLE), NAMES, self._stored)

    def _entry(self, name: str, most: int) -> bytes:
        """The bytes of an entry. They are stored as they are, so none is larger than the file."""
        info = self._zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(most, self._size):
            raise Unreadable(f"{name} is compressed or of {info.file_size:,} bytes")
        return self._zip.read(info)

    def _read_zip(self, storage: Storage) -> bytes:
        wanted = storage.count * storage.kind.dtype.itemsize
        content = self._entry(f"{self._root}data/{storage.key}", self._size)
        if len(content) < wanted:
            raise Unreadable(f"storage {storage.key} has {len(content):,} bytes, not {wanted:,}")
        return content

    # -- before 1.6
    # ----------------------------------------------------------------------------------------------

    def _open_old(self) -> Any:
        self._file.seek(0)
        if not self._size:
            raise Unreadable("it is empty")
        # Its reads end where the file ends, whatever a length says.
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view: BinaryIO = mapped  # type: ignore[assignment]  # it reads, and that is asked of it
            if load(view, {}) != MAGIC or load(view, {}) != VERSION:
                raise Unreadable("it does not begin as its files do")
            system = load(view, {})
            if type(system) is not dict or system.get("little_endian") is not True:
                raise Unreadable("its byte order is not little")
            found, keys = load(view, NAMES, self._stored), load(view, {})
            self._old_places: dict[str, int] = {}
            for key in keys if type(keys) is list else []:
                storage = self._storages.get(key) if type(key) is str else None
                count = mapped.read(8)
                if storage is None or len(count) < 8 or storage.count != _whole(count):
                    raise Unreadable("its storages are not those of its tensors")
                self._old_places[storage.key] = mapped.tell()
                nbytes = storage.count * storage.kind.dtype.itemsize
                if nbytes > self._size - mapped.tell():
                    raise Unreadable(f"it ends within storage {storage.key}")
                mapped.seek(nbytes, 1)
        self._read = self._read_old
        return found

    def _read_old(self, storage: Storage) -> bytes:
        if storage.key not in self._old_places:
            raise Unreadable(f"storage {storage.key} is not in it")
        self._file.seek(self._old_places[storage.key])
        return self._file.read(storage.count * storage.kind.dtype.itemsize)

    def _stored(self, reference: Any) -> Storage:
        """('storage', type, key, device, count), and before 1.6 a view, which is None."""
        if type(reference) is not tuple or not 5 <= len(reference) <= 6:
            raise Unreadable("it refers to something that is no storage")
        what, kind, key, _, count, *view = reference
        if what != "storage" or type(kind) is not Kind or type(key) is not str or any(view):
            raise Unreadable("it refers to something that is no storage")
        if type(count) is not int or not 0 <= count * kind.dtype.itemsize <= self._size:
            raise Unreadable(f"storage {key[:20]} is larger than the file")
        return self._storages.setdefault(key, Storage(kind, key, count))


FAILURES = (
    Unreadable,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    NotImplementedError,  # a way of compressing that Python does not have
    RuntimeError,  # an entry with a password
    EOFError,
    struct.error,
    zlib.error,
)
"""What reading a broken file may raise."""


def _whole(eight: bytes) -> int:
    return int.from_bytes(eight, "little", signed=True)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """A tensor whose values all lie in its storage."""
    sizes = (offset, *shape, *strides) if type(shape) is type(strides) is tuple else ()
    if type(storage) is not Storage or not sizes or any(type(each) is not int for each in sizes):
        raise Unreadable("it has a tensor without a storage, a shape or strides")
    if len(shape) != len(strides) or len(shape) > MOST_AXES or min(sizes) < 0:
        raise Unreadable("it has a tensor of an impossible shape")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and (last >= storage.count or math.prod(shape) > storage.count):
        raise Unreadable("it has a tensor that is larger than its storage")
    if 0 in shape and offset > storage.count:
        raise Unreadable("it has a tensor outside its storage")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise Unreadable("it has a parameter that is no tensor")
    return tensor


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if pairs:
        raise Unreadable("it has an OrderedDict made of a list")
    return {}


NAMES: dict[str, Any] = {
    "collections.OrderedDict": Maker(_ordered),
    "torch._utils._rebuild_tensor_v2": Maker(_tensor),
    "torch._utils._rebuild_parameter": Maker(_parameter),
    "torch.Size": Maker(lambda sizes=(): sizes),
    **{f"torch.{name}Storage": kind for name, kind in KINDS.items()},
}
"""All that a pickle of a state_dict may name."""


def _state_dict(found: Any) -> dict[str, Tensor]:
    """The tensors of a state_dict, or of one in a checkpoint."""
    for name in WRAPPED:
        inner = found.get(name) if type(found) is dict else None
        if type(inner) is dict:
            found = inner
            break
    tensors = (
        {name: each for name, each in found.items() if type(each) is Tensor and type(name) is str}
        if type(found) is dict
        else {}
    )
    if not tensors:
        raise Unreadable("there is no tensor in it")
    return tensors
