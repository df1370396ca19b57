"""Write and check the header of a coded message, so that ranks notice when they are out of step.

The checksum is zlib's CRC-32: it finds flipped bits as CRC-32C does, which would need a package.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.errors import RunError

MAGIC = b"mpiT"
VERSION = 1
LAYOUT = struct.Struct("<4sBBHIIQQfI")
"""Magic, version, codec, block, bucket, phase, step, count, bound, checksum."""
HEADER = LAYOUT.size
"""Bytes of the header."""
PARTS, MEANS, DELTAS, ROWS = 0, 1, 2, 3
"""Phases: sums sent to the owner of a shard, means sent by it, changes of the weights by rank 0;
and activations of split layers."""
LEFTS, COLUMNS = 4, 5
"""Phases of low-rank factors: each rank's P, sent to rank 0; orthonormal columns, sent by it."""


@dataclass(frozen=True)
class Label:
    """What sender and receiver know of a message before it is sent."""

    codec: int
    block: int
    bucket: int
    phase: int
    step: int
    count: int
    """How many values are coded in it."""

    def fields(self) -> tuple[int, ...]:
        return (self.codec, self.block, self.bucket, self.phase, self.step, self.count)


NAMES = ("codec", "block", "bucket", "phase", "step", "values")
"""How error messages call a label's fields."""


def seal(message: NDArray[np.uint8], label: Label, bound: float = 0.0) -> None:
    """Write the header into the first HEADER bytes of a message whose content is complete.

    bound: is sent as float32.
    """
    LAYOUT.pack_into(message.data, 0, MAGIC, VERSION, *label.fields(), bound, 0)
    message[HEADER - 4 : HEADER] = np.frombuffer(_checksum(message), np.uint8)


def check(message: NDArray[np.uint8], label: Label, sender: int) -> float:
    """Check a message and return the bound in its header.

    Raises RunError that names the sender, what was expected and what came.
    """
    magic, version, *fields, bound, _ = LAYOUT.unpack_from(message.data, 0)
    if magic != MAGIC or version != VERSION:
        raise RunError(
            f"message from rank {sender}: expected {MAGIC!r} version {VERSION}, got {magic!r} "
            f"version {version}"
        )
    wrong = [
        f"{name} {want}, got {came}"
        for name, want, came in zip(NAMES, label.fields(), fields, strict=True)
        if want != came
    ]
    if wrong:
        raise RunError(f"message from rank {sender}: expected {'; expected '.join(wrong)}")
    came, sum_of_content = message[HEADER - 4 : HEADER].tobytes(), _checksum(message)
    if came != sum_of_content:
        raise RunError(
            f"message from rank {sender}, bucket {label.bucket}, step {label.step}: expected "
            f"checksum {came[::-1].hex()} as its "
            f"header says, got {sum_of_content[::-1].hex()}: the bytes changed on the way"
        )
    return float(bound)


def _checksum(message: NDArray[np.uint8]) -> bytes:
    return struct.pack(
        "<I", zlib.crc32(message[HEADER:].data, zlib.crc32(message[: HEADER - 4].data))
    )
