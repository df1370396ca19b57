"""The codes dynamic8 and float16 with NumPy alone: what each byte means, encoding and decoding.

dynamic8 is Dettmers' dynamic tree code with an even split (arXiv 1511.04561). A block of 512 values
is a record of 513 bytes: one byte for the scale, then one for each value, sign << 7 | index of the
magnitude. The magnitudes are 0, 1, and for each decade 10^-e, e = 0 .. 5, the midpoints of 2^(6-e)
equal bins of [0.1, 1], times 10^-e. The code is symmetric, and zero has one code only. The scale is
the smallest power of two that no magnitude of the block exceeds; its byte is the exponent byte of a
float32. Multiplying by a power of two is exact. So every device makes the same bytes without a
division, and x + residual == decoded + new residual holds to the bit.

Scales run from 2^-80 (also for smaller blocks) to 2^126. So every value that is not coded as zero,
every decoded value and every residual of such a value is a normal float32. Inputs and sums below
2^-126 count as zero, so that devices that flush denormals agree with those that do not. A block
with a NaN, an infinity or a magnitude over 2^126 has the scale byte 255 and decodes to NaN; its
residual stays as it was.

float16 is IEEE half precision, 1024 bytes a block. What overflows is sent as an infinity; its
residual stays as it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_protocol import BLOCK, Bounds, Bytes, Floats, Plain, blocks

LEAST, MOST, MARKED = 47, 253, 255
"""Scale bytes: of the smallest and the largest scale (2^-80, 2^126), and of a block that is not
finite. kernels/codec.h has the same numbers under the same names."""
FLOOR = 0x3580
"""Top 16 bits of the smallest float32 with a row in THRESHOLDS (9.5e-7). Below it the nearest
magnitude is zero."""
MAGNITUDE, INFINITE = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
"""Bits of a float32: all but the sign, and the exponent of infinities and NaNs."""
NAN16 = 0x7E00
"""The one NaN that float16 sends."""


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
    """A table that finds the nearest code of a float32 in [FLOOR << 16, 1] by its top 16 bits.

    Among the floats that share their top 16 bits lies at most one midpoint of two neighbouring
    magnitudes. With `low` the nearest code of the smallest of these floats, and m the low bits of
    the largest float not above the midpoint, the row is (low << 16) + (0xffff - m). Adding the low
    bits of x carries into the code exactly if x is above the midpoint. So the nearest code costs
    one look-up, one addition and one shift. Ties go to the smaller magnitude.
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


class _OnHost:
    """What both of NumPy's codecs have in common."""

    def bytes(self, size: int) -> Plain:
        return Plain(np.zeros(size, np.uint8))

    def floats(self, size: int) -> Plain:
        return Plain(np.zeros(size, np.float32))

    def scale(self, x: Plain, factor: float) -> None:
        with np.errstate(all="ignore"):
            x.values *= np.float32(factor)


class Dynamic8Format:
    """dynamic8's name and sizes, and what the host reads from bytes that any device made."""

    name = "dynamic8"
    number = 1
    record = BLOCK + 1

    def bounds(self, records: Bytes) -> Bounds:
        return self.bounds_of(records[:: self.record])

    def bounds_of(self, heads: Bytes) -> Bounds:
        """As `bounds`, of the first bytes of records."""
        scales = (heads.astype(np.uint32) << 23).view(np.float32)  # infinity where they are MARKED
        return HALF_STEP * scales.astype(np.float64)

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        return np.equal(records.reshape(-1, self.record)[:, 1:].reshape(-1), 0)


class Float16Format:
    """float16's name and sizes, and what the host reads from bytes that any device made."""

    name = "float16"
    number = 2
    record = 2 * BLOCK

    def bounds(self, records: Bytes) -> Bounds:
        largest = (records.view("<u2") & 0x7FFF).reshape(-1, BLOCK).max(axis=1).astype(np.uint16)
        magnitude = np.minimum(largest, np.uint16(0x7C00)).view(np.float16).astype(np.float64)
        return np.where(largest >= 0x7C00, np.inf, magnitude * 2.0**-11 + 2.0**-25)

    def zeros(self, records: Bytes) -> NDArray[np.bool_]:
        zeros: NDArray[np.bool_] = (records.view("<u2") & 0x7FFF) == 0
        return zeros


class PlainDynamic8(_OnHost, Dynamic8Format):
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


class PlainFloat16(_OnHost, Float16Format):
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
    """Scale bytes (b,), codes (b, 512) and rounding errors (b * 512,) of v (b * 512,).

    v has no denormals.
    """
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
    """A new array with +0 for denormals."""
    bits = v.view(np.uint32)
    return np.where(bits & INFINITE == 0, np.uint32(0), bits).view(np.float32)


def _sum(x: Plain, residual: Plain | None, minus: Plain | None) -> Floats:
    """x + residual or x - minus without denormals, filled up to whole blocks with zeros."""
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
