"""A message of codes: a header that says what it is, then records of 512 values. A wrong one is refused by name."""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.report import RunError

MAGIC = b"MPIT"
VERSION = 1
HEADER = struct.Struct("<4sBBHIIII")
"""magic, version, codec, block, count of values, step, bucket, CRC-32 (zlib's) of the rest of the message."""


@dataclass(frozen=True)
class Kind:
    """What sender and receiver must agree about."""

    codec: int
    block: int
    count: int
    step: int
    bucket: int


def pack(kind: Kind, records: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Header and records as one array of bytes."""
    message = np.empty(HEADER.size + records.size, np.uint8)
    message[HEADER.size :] = records
    header = HEADER.pack(MAGIC, VERSION, *astuple(kind), zlib.crc32(message[HEADER.size :].data))
    message[: HEADER.size] = np.frombuffer(header, np.uint8)
    return message


def unpack(message: NDArray[np.uint8], kind: Kind, sender: int) -> NDArray[np.uint8]:
    """The records of a message. Raises RunError naming the sender, what was expected and what came."""
    magic, version, *rest, crc = HEADER.unpack(message[: HEADER.size].tobytes())
    if (magic, version) != (MAGIC, VERSION):
        raise RunError(
            f"message from rank {sender}: expected {MAGIC!r} version {VERSION}, got {magic!r} version {version}"
        )
    if Kind(*rest) != kind:
        raise RunError(f"message from rank {sender}: expected {kind}, got {Kind(*rest)}")
    if zlib.crc32(message[HEADER.size :].data) != crc:
        raise RunError(
            f"message from rank {sender} ({kind}): its checksum is wrong, so bytes changed on the way"
        )
    return message[HEADER.size :]
