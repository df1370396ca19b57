"""A message of codes: a header that says what it is, then scales, then codes. A wrong one is refused by name."""

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


def pack(kind: Kind, scales: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Header, scales and codes as one array of bytes."""
    message = np.empty(HEADER.size + scales.size + codes.size, np.uint8)
    message[HEADER.size : HEADER.size + scales.size] = scales
    message[HEADER.size + scales.size :] = codes
    header = HEADER.pack(MAGIC, VERSION, *astuple(kind), zlib.crc32(message[HEADER.size :].data))
    message[: HEADER.size] = np.frombuffer(header, np.uint8)
    return message


def unpack(
    message: NDArray[np.uint8], kind: Kind, scales: int, sender: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scales (so many bytes) and codes. Raises RunError naming the sender, what was expected and what came."""
    magic, version, *rest, crc = HEADER.unpack(message[: HEADER.size].tobytes())
    if (magic, version) != (MAGIC, VERSION):
        raise RunError(
            f"message from rank {sender}: expected {MAGIC!r} version {VERSION}, got {magic!r} version {version}"
        )
    if Kind(*rest) != kind:
        raise RunError(f"message from rank {sender}: expected {kind}, got {Kind(*rest)}")
    body = message[HEADER.size :]
    if zlib.crc32(body.data) != crc:
        raise RunError(
            f"message from rank {sender} ({kind}): its checksum does not match, so bytes changed on the way"
        )
    return body[:scales], body[scales:]
