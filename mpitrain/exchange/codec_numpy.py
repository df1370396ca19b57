"""Gradients as bytes, with NumPy alone: the codes themselves, and what an exchange without a device
uses.

dynamic8 is Dettmers' dynamic tree code with an even split (arXiv 1511.04561). A block of 512 values
is a record of 513 bytes: the scale, then a byte a value, sign << 7 | index of the magnitude.
Magnitudes are 0, then for each decade 10^-e, e = 0 .. 5, the midpoints of 2^(6-e) equal bins of
[0.1, 1] times 10^-e, and 1: the code is symmetric, and a zero has one code only. The scale is the
smallest power of two that no magnitude of the block exceeds, kept as the exponent byte of a
float32; multiplying with it is exact, so every device makes the same bytes without a division, and
x + residual == decoded + new residual holds to the bit.

Scales run from 2^-80 (blocks below it keep 2^-80) to 2^126. So every value with a code but zero,
every decoded value and every residual of such a value is a normal float32. What is left, inputs and
sums below 2^-126, counts as zero: a device that flushes denormals and one that does not agree. A
block with a NaN, an infinity or a magnitude over 2^126 has the scale byte 255 and decodes to NaN,
and its residual stays as it was.

float16 is IEEE half precision, 1024 bytes a block; what overflows travels as an infinity, and its
residual stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.job.cut import parts

BLOCK = 512
LEAST, MOST, MARKED = 47, 253, 255
"""Exponent bytes of the smallest and largest scale, 2^-80 and 2^126, and of a block that is not
finite."""
FLOOR = 0x3580
"""Top 16 bits of the smallest float32 with a row in THRESHOLDS (9.5e-7); below it every magnitude
is nearest to zero."""
SIGN, MAGNITUDE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
NORMAL, INFINITE = np.uint32(0x00800000), np.uint32(0x7F800000)
NAN16 = 0x7E00

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def _magnitudes() -> Floats:
    found = [0.0, 1.0]
    for e in range(6):
        edges = np.linspace(0.1, 1.0, 2 ** (6 - e) + 1)
        found += list((edges[:-1] + edges[1:]) / 2 * 10.0**-e)
    return np.sort(np.array(found, np.float64)).astype(np.float32)


MAGNITUDES = _magnitudes()
LEVELS = np.concatenate([MAGNITUDES, -MAGNITUDES])
"""float32[256]: what each byte stands for, in units of the scale."""
HALF_STEP = float(np.diff(MAGNITUDES.astype(np.float64)).max() / 2)
"""Largest rounding error, in units of the scale: 0.00703."""


def _thresholds() -> NDArray[np.uint32]:
    """For the top 16 bits of a float32 in [FLOOR << 16, 1]: code << 16 plus a number that carries
    into it above the midpoint.

    Between two floats that differ in their low 16 bits lies at most one midpoint of neighbouring
    magnitudes. With `low` the nearest code of the lower float and m the low bits of the largest
    float not above the midpoint, (low << 16) + (0xffff - m) + (bits of x) carries exactly if x is
    above the midpoint. So the nearest code costs one look-up, one addition and a shift, and ties go
    to zero.
    """
    exact = (MAGNITUDES[1:].astype(np.float64) + MAGNITUDES[:-1]) / 2
    below = exact.astype(np.float32)
    below = np.where(below > exact, np.nextafter(below, np.float32(0)), below).view(np.uint32)
    tops = np.arange(FLOOR, 0x3F81, dtype=np.uint32)
    low = np.searchsorted(below, tops << np.uint32(16), side="left").astype(np.uint32)
    inside = np.append(below, np.uint32(0xFFFFFFFF))[low]
    carry = np.where(inside >> 16 == tops, 0xFFFF - (inside & 0xFFFF), 0).astype(np.uint32)
    rows: NDArray[np.uint32] = (low << np.uint32(16)) + carry
    return rows


THRESHOLDS = _thresholds()


class Vector(Protocol):
    """A flat vector, wherever it lies: runtime's Array, or Plain."""

    @property
    def size(self) -> int: ...

    def part(self: V, start: int, stop: int) -> V: ...

    def host(self, write: bool = False) -> Any: ...

    def release(self) -> None: ...


V = TypeVar("V", bound=Vector)


class Plain:
    """A NumPy vector with the manners of a device's array."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.size = values.size

    def part(self, start: int, stop: int) -> Plain:
        """Elements [start, stop), as a view."""
        return Plain(self.values[start:stop])

    @contextmanager
    def host(self, write: bool = False) -> Iterator[NDArray[Any]]:
        """The vector itself."""
        yield self.values

    def release(self) -> None:
        """Nothing to give back."""


class Codec(Protocol[V]):
    """Float vectors to bytes and back. A vector of n values is blocks(n) records of `record` bytes,
    in order."""

    name: str
    number: int
    """What stands for it in a message's header."""
    record: int

    def bytes(self, size: int) -> V:
        """A new vector of so many bytes."""

    def floats(self, size: int) -> V:
        """A new vector of zeros."""

    def encode(self, codes: V, x: V, residual: V | None = None, minus: V | None = None) -> None:
        """codes = Q(x + residual), residual = x + residual - decoded; or codes = Q(x - minus).
        codes hold blocks(x.size) records."""

    def decode_add(self, acc: V, codes: V, first: bool, offset: int = 0) -> None:
        """acc = decoded if `first`, else acc + decoded, rounded to float32. The records start at
        byte `offset` of codes."""

    def scale(self, x: V, factor: float) -> None:
        """x = x * factor, in float32."""

    def bounds(self, records: Bytes) -> NDArray[np.float64]:
        """For each block of records in host memory the largest rounding error it may have; infinity
        for one that is not finite."""

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        """For each value of records in host memory, filled up to whole blocks, whether its code is
        that of zero."""


def blocks(size: int) -> int:
    """Blocks in a vector of so many values; the last one may be short."""
    return parts(size, BLOCK)


class _Host:
    """What both codecs on plain vectors have in common."""

    def bytes(self, size: int) -> Plain:
        return Plain(np.zeros(size, np.uint8))

    def floats(self, size: int) -> Plain:
        return Plain(np.zeros(size, np.float32))

    def scale(self, x: Plain, factor: float) -> None:
        with np.errstate(all="ignore"):
            x.values *= np.float32(factor)


class Facts8:
    """dynamic8's name and sizes, and what can be read from its bytes on the host."""

    name = "dynamic8"
    number = 1
    record = BLOCK + 1

    def bounds(self, records: Bytes) -> NDArray[np.float64]:
        exponents = records[:: self.record].astype(np.int32)
        return np.where(exponents == MARKED, np.inf, HALF_STEP * np.ldexp(1.0, exponents - 127))

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        return np.equal(records.reshape(-1, self.record)[:, 1:].reshape(-1), 0)


class Facts16:
    """float16's name and sizes, and what can be read from its bytes on the host."""

    name = "float16"
    number = 2
    record = 2 * BLOCK

    def bounds(self, records: Bytes) -> NDArray[np.float64]:
        largest = (records.view("<u2") & 0x7FFF).reshape(-1, BLOCK).max(axis=1).astype(np.uint16)
        magnitude = largest.view(np.float16).astype(np.float64)
        return np.where(largest >= 0x7C00, np.inf, magnitude * 2.0**-11 + 2.0**-25)

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        zeros: NDArray[np.bool_] = (records.view("<u2") & 0x7FFF) == 0
        return zeros


class PlainDynamic8(_Host, Facts8):
    """dynamic8 on plain vectors."""

    def encode(
        self, codes: Plain, x: Plain, residual: Plain | None = None, minus: Plain | None = None
    ) -> None:
        records = codes.values[: blocks(x.size) * self.record].reshape(-1, self.record)
        records[:, 0], records[:, 1:], error = encode8(_sum(x, residual, minus))
        if residual is not None:
            fine = np.repeat(records[:, 0] != MARKED, BLOCK)[: x.size]
            np.copyto(residual.values, error[: x.size], where=fine)

    def decode_add(self, acc: Plain, codes: Plain, first: bool, offset: int = 0) -> None:
        stop = offset + blocks(acc.size) * self.record
        records = codes.values[offset:stop].reshape(-1, self.record)
        _add(acc, decode8(records[:, 0], records[:, 1:]).reshape(-1)[: acc.size], first)


class PlainFloat16(_Host, Facts16):
    """float16 on plain vectors."""

    def encode(
        self, codes: Plain, x: Plain, residual: Plain | None = None, minus: Plain | None = None
    ) -> None:
        v = _sum(x, residual, minus)
        halves = codes.values[: v.size * 2].view("<f2")
        with np.errstate(over="ignore"):
            halves[:] = v
        halves.view("<u2")[np.isnan(halves)] = NAN16
        if residual is not None:
            error = v - np.where(np.isfinite(halves), halves, 0).astype(np.float32)
            np.copyto(residual.values, error[: x.size], where=np.isfinite(halves[: x.size]))

    def decode_add(self, acc: Plain, codes: Plain, first: bool, offset: int = 0) -> None:
        _add(
            acc, codes.values[offset : offset + 2 * acc.size].view("<f2").astype(np.float32), first
        )


HOST_CODECS: dict[str, type[PlainDynamic8 | PlainFloat16]] = {
    each.name: each for each in (PlainDynamic8, PlainFloat16)
}


def encode8(v: Floats) -> tuple[Bytes, Bytes, Floats]:
    """Scale bytes (b,), codes (b, 512) and rounding errors (b * 512,) of b whole blocks without
    denormals."""
    bits = v.view(np.uint32).reshape(-1, BLOCK)
    size = bits & MAGNITUDE
    largest = size.max(axis=1, initial=0)
    exponent = (largest + np.uint32(0x007FFFFF)) >> 23
    marked = exponent > MOST
    exponent = np.where(marked, MARKED, np.maximum(exponent, LEAST))
    shift = (exponent.astype(np.int64) - 127) << 23
    unit = np.clip(size.astype(np.int64) - shift[:, None], FLOOR << 16, 0x3F800000)
    code = (THRESHOLDS[(unit >> 16) - FLOOR] + (unit & 0xFFFF).astype(np.uint32)) >> 16
    codes = np.where(code == 0, 0, code | (bits >> 31 << 7)).astype(np.uint8)
    codes[marked] = 0
    scales = exponent.astype(np.uint8)
    with np.errstate(invalid="ignore"):
        error = flush(v - decode8(scales, codes).reshape(-1))
    return scales, codes, error


def decode8(scales: Bytes, codes: Bytes) -> Floats:
    """float32 (b, 512) from scale bytes (b,) and codes (b, 512); NaN where the scale is marked."""
    unit = (scales.astype(np.uint32) << 23).view(np.float32)
    unit[scales == MARKED] = np.nan
    return LEVELS[codes] * unit[:, None]


def flush(v: Floats) -> Floats:
    """Denormals as +0; an array of its own."""
    bits = v.view(np.uint32)
    return np.where(bits & INFINITE == 0, np.uint32(0), bits).view(np.float32)


def _sum(x: Plain, residual: Plain | None, minus: Plain | None) -> Floats:
    """x + residual or x - minus without denormals, with zeros up to a whole block."""
    v = np.zeros(blocks(x.size) * BLOCK, np.float32)
    with np.errstate(all="ignore"):
        v[: x.size] = flush(x.values)
        if residual is not None:
            v[: x.size] += flush(residual.values)
        if minus is not None:
            v[: x.size] -= flush(minus.values)
    return flush(v)


def _add(acc: Plain, decoded: Floats, first: bool) -> None:
    with np.errstate(all="ignore"):
        acc.values[:] = decoded if first else flush(flush(acc.values) + decoded)
