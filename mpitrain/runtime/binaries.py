"""Compiled programs, kept between runs: a checksum before each, so that no driver is given a
damaged one."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from mpitrain.runtime.platforms import cache_folder, write_atomically

CHECKSUM_BYTES = 32


def place(name: str, *facts: str) -> Path:
    """The file of a program that is made of these facts: device, driver, options and source."""
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
    return cache_folder() / "programs" / f"{name}-{key}.bin"


def load(path: Path) -> bytes | None:
    """The binary, if there is one and it is whole."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    checksum, binary = kept[:CHECKSUM_BYTES], kept[CHECKSUM_BYTES:]
    return binary if hashlib.sha256(binary).digest() == checksum else None


def keep(path: Path, binary: bytes) -> None:
    """Write it, for `load`. A cache that cannot be written costs only time."""
    with contextlib.suppress(OSError):
        write_atomically(path, hashlib.sha256(binary).digest() + binary)
