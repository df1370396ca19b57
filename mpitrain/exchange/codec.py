"""The codecs on a device: float32 (n,) to records of 512 values and back.

They make the same bytes as codec_numpy.py, which says what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mpitrain.exchange.codec_numpy import LEVELS, THRESHOLDS, Dynamic8Format, Float16Format
from mpitrain.exchange.codec_protocol import Codec, blocks
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Kernel, Launches

CHUNK = 16
"""Blocks that one work-item codes on a CPU: 32 KiB of floats, so that its start costs little."""
SHARED = 2
"""Blocks that work-items share elsewhere, one after the other, so that a group copies its tables
for some of them."""
GROUPS = 4
"""Groups that each compute unit should have before their work-items share more than one block."""
LANES = 32
"""Work-items that share a block, at most."""
PLUS, MINUS, ALONE = 0, 1, 2
"""What encoding does with a second vector: add it, subtract it, or there is none. kernels/codec.h
has the same numbers."""

DeviceCodec: TypeAlias = Codec[Array]


def make_codec(name: str, device: Device) -> DeviceCodec:
    """The codec called dynamic8 or float16 on a device."""
    if name == "dynamic8":
        return Dynamic8(device)
    if name == "float16":
        return Float16(device)
    raise UserError(f"exchange {name}: expected dynamic8 or float16")


def make_scale(device: Device) -> Callable[[Array, float], None]:
    """x = x * factor on a device, for exchanges without a codec."""
    return _OnDevice(device).scale


class _OnDevice:
    """What both codecs have in common on a device: memory, launches, multiplication by a number."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lanes = min(device.group, LANES)
        self._kernels = device.program("codec", LANES=self._lanes)
        self._group = device.group
        self._launches = Launches(device)  # the same arrays come again each step

    def bytes(self, size: int) -> Array:
        return self._device.empty((size,), np.uint8)

    def floats(self, size: int) -> Array:
        return self._device.zeros((size,), np.float32)

    def scale(self, x: Array, factor: float) -> None:
        self._queue(self._kernels.scale, x.size, (x,), float(factor))

    def _queue(self, kernel: Kernel, n: int, arrays: tuple[Array, ...], *rest: float) -> None:
        """Queue a kernel for n values: a work-item for each chunk of blocks on a CPU, elsewhere
        several."""
        if n:
            chunk = self._chunk(n)
            items = parts(blocks(n), chunk) * self._lanes
            self._launches.queue(kernel, items, *arrays, n, chunk, *rest, group=self._group)

    def _chunk(self, n: int) -> int:
        """Blocks that a work-item has a part in; they change no bits."""
        device = self._device
        if device.long_items:
            return CHUNK
        groups = blocks(n) * self._lanes // self._group
        return max(1, min(SHARED, groups // (GROUPS * device.units)))


class Dynamic8(_OnDevice, Dynamic8Format):
    """The dynamic tree code, blocks of 512 values with a power of two as their scale."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._thresholds, self._levels = device.upload(THRESHOLDS), device.upload(LEVELS)
        self._first_bytes = device.program("heads")

    def encode(
        self, codes: Array, x: Array, residual: Array | None = None, minus: Array | None = None
    ) -> None:
        other, mode = _second_vector(x, residual, minus)
        arrays = codes, other, x, self._thresholds, self._levels
        self._queue(self._kernels.encode8, x.size, arrays, mode)

    def decode_add(self, acc: Array, codes: Array, first: bool, offset: int = 0) -> None:
        arrays = acc, codes, self._levels
        self._queue(self._kernels.decode_add8, acc.size, arrays, offset, int(first))

    def heads(self, heads: Array, codes: Array, count: int) -> None:
        """heads = the first bytes of `count` records."""
        if count:
            arguments = heads, codes, count, self.record
            self._launches.queue(self._first_bytes.heads, count, *arguments, group=self._group)


class Float16(_OnDevice, Float16Format):
    """IEEE half precision."""

    def encode(
        self, codes: Array, x: Array, residual: Array | None = None, minus: Array | None = None
    ) -> None:
        other, mode = _second_vector(x, residual, minus)
        self._queue(self._kernels.encode16, x.size, (codes, other, x), mode)

    def decode_add(self, acc: Array, codes: Array, first: bool, offset: int = 0) -> None:
        self._queue(self._kernels.decode_add16, acc.size, (acc, codes), offset, int(first))


def _second_vector(x: Array, residual: Array | None, minus: Array | None) -> tuple[Array, int]:
    if residual is not None and minus is not None:
        raise ValueError("encode adds a residual or subtracts a vector, not both")
    if residual is not None:
        return residual, PLUS
    return (minus, MINUS) if minus is not None else (x, ALONE)
