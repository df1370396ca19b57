"""What stands before the bytes of every coded message, so that ranks that are out of step notice
it: written, and checked.

The checksum is zlib's CRC-32: CRC-32C would need a package of its own, and this one guards against
the same flipped bits.
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
PARTS, MEANS, DELTAS = 0, 1, 2
"""Phases: a rank's sums for an owner, an owner's means, rank 0's changes of the weights."""


@dataclass(frozen=True)
class Label:
    """What both ends know of a message before it is sent."""

    codec: int
    block: int
    bucket: int
    phase: int
    step: int
    count: int
    """Values in it."""

    def fields(self) -> tuple[int, ...]:
        return (self.codec, self.block, self.bucket, self.phase, self.step, self.count)


NAMES = ("codec", "block", "bucket", "phase", "step", "values")
"""Of a label's fields, in messages."""


def seal(message: NDArray[np.uint8], label: Label, bound: float = 0.0) -> None:
    """Write the header into the first HEADER bytes of a message that is otherwise complete. `bound`
    travels as float32."""
    LAYOUT.pack_into(message.data, 0, MAGIC, VERSION, *label.fields(), bound, 0)
    message[HEADER - 4 : HEADER] = np.frombuffer(_checksum(message), np.uint8)


def check(message: NDArray[np.uint8], label: Label, sender: int) -> float:
    """The bound in a message's header. Raises RunError naming the sender, what was expected and
    what came."""
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
