"""Checkpoints: safetensors files that are whole or absent, written a tensor at a time so that they
never double the memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mpitrain.job.errors import RunError, UserError

KEPT = 3
"""Newest checkpoints that stay, unless --keep says otherwise."""
BEST = "best.safetensors"
"""Leads to the checkpoint with the best score, beside it."""
KINDS = {"float32": "F32", "int64": "I64", "uint8": "U8"}
SHA256 = "state/sha256"
"""The last tensor of a checkpoint: the SHA-256 of every byte of the file before it."""
READABLE = ("F32", "F16", "F64", "U8", "I64")
"""Types of tensors that NumPy has and that are of use here."""
AVERAGE = "ema/"
"""Before the names of weights and statistics: their moving averages."""
OURS = ("momentum/", "state/", AVERAGE)
"""What checkpoints hold beside the network's own tensors."""
COUNTERS = ".num_batches_tracked"
"""PyTorch's batch normalisations count their batches, which nothing here needs."""
WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DistributedDataParallel put before names."""
OLDER = re.compile(r"(\bdenselayer\d+\.(?:norm|conv))\.([12]\.)")
"""Names in torchvision's files of DenseNet, which are older than its own: norm.1 for norm1."""
NEEDED: dict[str, type] = {
    "network": str,
    "name": str,
    "step": int,
    "run": dict,
    "mean": list,
    "std": list,
    "classes": list,
    "ranks": int,
    "exchange": str,
    "images": int,
}
"""Settings without which a run cannot go on."""
NEEDED_OF_RUN: dict[str, type] = {
    "data": str,
    "batch_size": int,
    "seed": int,
    "augment": str,
    "no_dropout": bool,
}
"""Those of them in the table `run` that are read again; the others are there for people."""
OPTIONAL: dict[str, type] = {
    "coders": int,
    "coded_from": int,
    "longest_bucket": int,
    "sub_batch": int,
    "speeds": list,
    "identity": str,
    "best": dict,
    "waited": int,
    "split": list,
}
"""Settings that may be missing, or null."""
OF_BEST: dict[str, type] = {"step": int, "top1": float, "loss": float}
"""What `best` holds."""
OF_EACH: dict[str, type] = {
    "mean": float,
    "std": float,
    "classes": str,
    "speeds": float,
    "split": str,
}
"""What the lists among them hold."""
MIB = 1 << 20
LOOK = 1 << 24
"""Bytes that are read at once to verify a file."""


@dataclass(frozen=True)
class Entry:
    """One tensor to write: its values come in pieces when their turn is there."""

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[Any]]]
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write(
    path: Path, entries: Sequence[Entry], metadata: Mapping[str, str], sealed: bool = True
) -> None:
    """Write a safetensors file under a temporary name, its checksum last, flush it to the disk, and
    rename it.

    sealed: with the checksum, by which it is known as a checkpoint. Raises RunError if the disk
    refuses; what was there under `path` is then untouched.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    digest = hashlib.sha256()
    checksum = Entry(
        SHA256, (digest.digest_size,), lambda: [np.frombuffer(digest.digest(), np.uint8)], "uint8"
    )
    entries = [*entries, *([checksum] if sealed else [])]
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
        path.parent.mkdir(exist_ok=True)  # not its parents: the disk they are on may have gone
        with temporary.open("wb") as file:

            def put(some: bytes) -> int:
                file.write(some)
                digest.update(some)
                return len(some)

            put(struct.pack("<Q", len(text)) + text)
            for entry in entries:
                written = sum(
                    put(np.ascontiguousarray(piece).tobytes()) for piece in entry.pieces()
                )
                if written != entry.nbytes:
                    raise RunError(
                        f"{path}: {entry.name} has {written} bytes, its shape says {entry.nbytes}"
                    )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{'checkpoint ' * sealed}{path} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # what cannot be removed was never there
            temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is, where the file system can say so."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run directory's checkpoints/."""
    return folder / f"step-{step:08d}.safetensors"


def prune(folder: Path, count: int = KEPT, best: Path | None = None) -> None:
    """Remove all but the `count` newest checkpoints and the best one, and what a killed process has
    left half-written."""
    old = [path for path in _checkpoints(folder)[count:] if path != best]
    for each in (*old, *folder.glob(".step-*.safetensors.*"), *folder.glob(f".{BEST}.*")):
        each.unlink(missing_ok=True)


def point_to(best: Path) -> None:
    """Make BEST, beside it, lead to a checkpoint: a link, or a copy where the disk has no links.

    Raises RunError if the disk refuses both.
    """
    temporary = best.with_name(f".{BEST}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            temporary.symlink_to(best.name)
        except OSError:
            shutil.copyfile(best, temporary)
        temporary.replace(best.with_name(BEST))
    except OSError as error:
        place = best.with_name(BEST)
        raise RunError(f"{place} cannot be written: {error.strerror or error}") from error


def check_space(folder: Path, nbytes: int, count: int, kept: int = KEPT) -> None:
    """Raise UserError unless the disk of a run directory holds so many further checkpoints, as many
    as are kept at most, and one more that is being written."""
    folder = folder / "checkpoints"
    there = [path.stat().st_size for path in _checkpoints(folder)]
    wanted = max(nbytes, nbytes * min(count, kept + 1) - sum(there)) if count else 0
    home = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(home).free
    if wanted > free:
        raise UserError(
            f"{folder}: {wanted / MIB:.1f} MiB are needed for checkpoints of {nbytes / MIB:.1f} "
            f"MiB each, the disk has {free / MIB:.1f} MiB"
        )


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


@dataclass(frozen=True)
class Newest:
    """A whole checkpoint, its settings, and why newer ones were passed over, a sentence each."""

    path: Path
    settings: Mapping[str, Any]
    refused: Sequence[str] = ()


def newest(
    folder: Path, beyond: str = "", alive: Callable[[], None] = lambda: None
) -> Newest | None:
    """The newest whole checkpoint of a run directory, among those whose names come after `beyond`;
    None if none was ever saved.

    Reads every byte of it, and calls alive() meanwhile. Raises UserError if there are some and none
    is whole, or if the log tells of one and it is gone: to begin anew would lose a run.
    """
    place = folder / "checkpoints"
    refused: list[str] = []
    for path in _checkpoints(place):
        if path.name <= beyond:
            return None
        try:
            with Reader(path, alive) as reader:
                return Newest(path, reader.settings(), refused)
        except UserError as error:
            refused.append(str(error))
    if beyond:
        return None
    if refused:
        raise UserError(f"--resume: no checkpoint in {place} is whole: {'; '.join(refused)}")
    log = folder / "log.jsonl"
    if log.exists() and '{"event": "checkpoint"' in log.read_text(errors="replace"):
        raise UserError(
            f"--resume: {log} tells of checkpoints, and there is no checkpoint in {place}; another "
            "--out starts anew"
        )
    return None


def file_of(path: Path) -> Path:
    """A checkpoint's file: `path`, or the newest whole one where that is a run directory. Raises
    UserError where that has none."""
    if not path.is_dir():
        return path
    found = newest(path)
    if found is None:
        raise UserError(f"{path}: there is no checkpoint in {path / 'checkpoints'}")
    return found.path


class Reader:
    """An open checkpoint (or any safetensors file): tensors by name, settings, and names. Raises
    UserError if it is not whole."""

    def __init__(
        self, path: Path, alive: Callable[[], None] = lambda: None, verified: bool = False
    ) -> None:
        """verified: its checksum has just been compared, so that not every rank has to read all of
        it."""
        self.path = path
        try:
            opened: Any = safe_open(path, framework="numpy")
            self._file = opened
            self.names = set(self._file.keys())
            self.metadata: dict[str, str] = dict(self._file.metadata() or {})
            if SHA256 in self.names and not verified:
                self._verify(alive)
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from None
        self._sealed = SHA256 in self.names
        self.names.discard(SHA256)

    def _verify(self, alive: Callable[[], None]) -> None:
        """Compare the file's last bytes with the hash of all before them."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - digest.digest_size
            while left > 0 and (some := file.read(min(LOOK, left))):
                digest.update(some)
                left -= len(some)
                alive()
            if file.read() != digest.digest():
                raise UserError(f"{self.path} is damaged: its content is not that of its checksum")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        del self._file

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(
        self, name: str, start: int | None = None, stop: int | None = None, axis: int = 0
    ) -> NDArray[Any]:
        """One tensor, or an axis of it from start to stop; safetensors maps the file, so only its
        own bytes are read."""
        kind = str(self._file.get_slice(name).get_dtype())
        if kind == "BF16" and start is None:
            return self._read_bfloat16(name)
        if kind not in READABLE:
            raise UserError(
                f"{self.path}: {name} is {kind}; expected one of {', '.join(READABLE)}, BF16"
            )
        array: NDArray[Any] = (
            self._file.get_slice(name)[(slice(None),) * axis + (slice(start, stop),)]
            if start is not None
            else self._file.get_tensor(name)
        )
        return array

    def _read_bfloat16(self, name: str) -> NDArray[Any]:
        """NumPy has no bfloat16: it is the upper half of a float32."""
        with self.path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            start, stop = json.loads(file.read(length))[name]["data_offsets"]
            file.seek(8 + length + start)
            halves = np.frombuffer(file.read(stop - start), "<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32).reshape(self.shape(name))

    @property
    def averaged(self) -> bool:
        """Whether it also holds the moving average of the weights."""
        return any(name.startswith(AVERAGE) for name in self.names)

    def weights(self, averaged: bool = False) -> dict[str, str]:
        """The network's own name of each tensor of numbers -> the file's: PyTorch's wrappers put
        `module.` or `_orig_mod.` before all of them, and DenseNet's had dots.

        averaged: of the moving averages, where the file has them.
        """
        if averaged and self.averaged:
            names = sorted(name for name in self.names if name.startswith(AVERAGE))
            return {name.removeprefix(AVERAGE): name for name in names}
        return names_of_weights(self.names)

    def settings(self) -> dict[str, Any]:
        """What mpitrain wrote about the run: network, step and the rest. Raises UserError for a
        file of others, or without its checksum."""
        if "mpitrain" not in self.metadata:
            raise UserError(
                f"{self.path} holds weights but no settings of mpitrain; --init and predict "
                "--network take weights alone"
            )
        if not self._sealed:
            raise UserError(
                f"{self.path} has no checksum: it is damaged, or older than checksums are; --init "
                "takes weights alone"
            )
        try:
            found: Any = json.loads(self.metadata["mpitrain"])
        except (ValueError, RecursionError):  # brackets as deep as the reader
            found = {}
        if wrong := _wrong(found):
            raise UserError(
                f"{self.path}: its settings lack {', '.join(wrong)}; it is of another mpitrain"
            )
        settings: dict[str, Any] = found
        return settings


def names_of_weights(names: Iterable[str]) -> dict[str, str]:
    """The network's own name of each tensor of numbers -> that in a file."""
    own = [
        name for name in sorted(names) if not name.startswith(OURS) and not name.endswith(COUNTERS)
    ]
    return {_unwrapped(name): name for name in own}


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return OLDER.sub(r"\1\2", name)


def _wrong(found: Any) -> list[str]:
    """What settings lack: names of what is missing, and of what is of another kind, with the kinds.
    A right checksum proves neither."""
    table = found if isinstance(found, dict) else {}
    run = table.get("run")
    wanted = [(name, table.get(name), kind) for name, kind in NEEDED.items()]
    if type(run) is dict:
        wanted += [(f"run.{name}", run.get(name), kind) for name, kind in NEEDED_OF_RUN.items()]
    wanted += [
        (name, table[name], kind) for name, kind in OPTIONAL.items() if table.get(name) is not None
    ]
    wrong = [
        name if value is None else f"{name} (expected {kind.__name__}, got {type(value).__name__})"
        for name, value, kind in wanted
        if type(value) is not kind
    ]
    for name, kind in OF_EACH.items():
        values = table.get(name)
        odd = [each for each in values if type(each) is not kind] if type(values) is list else []
        if odd:
            wrong.append(f"{name} of {kind.__name__} (got {type(odd[0]).__name__})")
    return wrong or _wrong_numbers(table)


def _wrong_numbers(table: Mapping[str, Any]) -> list[str]:
    """What of the right kind cannot be: images are divided by std."""
    mean, std = table["mean"], table["std"]
    wrong = []
    if not mean or not all(math.isfinite(value) for value in mean):
        wrong.append(f"finite means (got {mean})")
    if len(std) != len(mean) or not all(0 < value < math.inf for value in std):
        wrong.append(f"deviations above 0, one for each mean (got {std})")
    wrong += [f"{name} of at least 1" for name in ("ranks", "images") if table[name] < 1]
    longest = table.get("longest_bucket")
    if longest is not None and (longest < 1 or longest % 512):
        wrong.append(f"a longest_bucket that is a multiple of 512 (got {longest})")
    best = table.get("best")
    if best is not None and {name: type(value) for name, value in best.items()} != OF_BEST:
        wrong.append(f"a best score of step, top1 and loss (got {best!r})")
    layout = table["run"].get("layout")
    if layout not in (None, "nchw", "nhwc"):
        wrong.append(f"run.layout nchw or nhwc (got {layout!r})")
    return wrong + (["a step of at least 0"] if table["step"] < 0 else [])


def to_resume(folder: Path, what: str, alive: Callable[[], None]) -> Newest | None:
    """The checkpoint with which a run in `folder` goes on: its "newest", or the path `what`; None
    if it is yet to save its first one.

    Raises UserError rather than lose later steps, or believe a file that is not as it was written.
    """
    folder = folder.resolve()
    path = None if what == "newest" else Path(what).resolve()
    at_home = path is not None and path.parent == folder / "checkpoints"
    last = newest(folder, path.name if path and at_home else "", alive)
    if path and last and at_home:
        raise UserError(
            f"--resume {path}: its run has gone on to {last.path.name}, which would be lost; "
            "--resume alone goes on from there, with --out DIR this one begins a run of its own"
        )
    if last or path is None:  # also of a run that began from PATH, and is started again
        return last
    with Reader(path, alive) as reader:
        return Newest(path, reader.settings())
