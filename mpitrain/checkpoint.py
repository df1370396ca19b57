"""Checkpoints: safetensors files that are whole or absent, written a tensor at a time so that they never double the memory."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mpitrain.report import RunError, UserError

KEPT = 3
"""Newest checkpoints that stay."""
KINDS = {"float32": "F32", "int64": "I64"}


@dataclass(frozen=True)
class Entry:
    """One tensor to write: its values come in pieces when their turn is there."""

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[Any]]]
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def write(path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to the disk, and rename it.

    Raises RunError if the disk refuses; what was there under `path` is then untouched.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": KINDS[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.nbytes],
        }
        at += entry.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for entry in entries:
                written = 0
                for piece in entry.pieces():
                    file.write(np.ascontiguousarray(piece).tobytes())
                    written += piece.nbytes
                if written != entry.nbytes:
                    raise RunError(f"{path}: {entry.name} has {written} bytes, its shape says {entry.nbytes}")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # what cannot be removed was never there
            temporary.unlink()


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run directory's checkpoints/."""
    return folder / f"step-{step:08d}.safetensors"


def prune(folder: Path) -> None:
    """Remove all but the newest checkpoints."""
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
        old.unlink(missing_ok=True)


def newest(folder: Path) -> Path:
    """The newest whole checkpoint of a run directory. Raises UserError if there is none."""
    for path in sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True):
        try:
            with Reader(path):
                return path
        except UserError:
            continue
    raise UserError(f"--resume: no checkpoint in {folder / 'checkpoints'}")


class Reader:
    """An open checkpoint (or any safetensors file): tensors by name, settings, and names. Raises UserError if it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")
            self._file = opened
            self.names = set(self._file.keys())
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from None
        self.metadata: dict[str, str] = dict(self._file.metadata() or {})

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        del self._file

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> NDArray[Any]:
        """One tensor; safetensors maps the file, so only its own bytes are read."""
        array: NDArray[Any] = self._file.get_tensor(name)
        return array

    def settings(self) -> dict[str, Any]:
        """What mpitrain wrote about the run: network, step and the rest. Raises UserError for a file of others."""
        if "mpitrain" not in self.metadata:
            raise UserError(
                f"{self.path} holds weights but no settings of mpitrain; --init takes weights alone"
            )
        found: dict[str, Any] = json.loads(self.metadata["mpitrain"])
        return found


def pieces_of(vector: NDArray[Any]) -> Callable[[], Iterator[NDArray[Any]]]:
    """An array as one piece, for entries whose values are at hand."""
    return lambda: iter([vector])
