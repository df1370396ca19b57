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
from mpitrain.runtime.program import Launch

CHUNK = 16
"""Blocks that one work-item codes on a CPU: 32 KiB of floats, so that its start costs little."""
SHARED = 4
"""Blocks that work-items share elsewhere, so that a group copies its tables for some of them."""
LANES = 32
"""Work-items that share them, at most."""
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
    """x = x * factor on a device, for exchanges without a codec.

    A launch is kept for each array and factor, of which there are few.
    """
    return _OnDevice(device).scale_again


class _OnDevice:
    """What both codecs have in common on a device: memory, launches, multiplication by a number."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lanes = min(device.group, LANES)
        self._kernels = device.program("codec", LANES=self._lanes)
        self._chunk = CHUNK if device.long_items else SHARED
        self._group = device.group
        self._scales: dict[tuple[Array, float], Launch] = {}

    def bytes(self, size: int) -> Array:
        return self._device.empty((size,), np.uint8)

    def floats(self, size: int) -> Array:
        return self._device.zeros((size,), np.float32)

    def scale(self, x: Array, factor: float) -> None:
        if x.size:
            self._kernels.scale(
                self._items(x), x, x.size, self._chunk, float(factor), group=self._group
            )

    def scale_again(self, x: Array, factor: float) -> None:
        """`scale`, prepared at the first call with the same array and factor."""
        launch = self._scales.get((x, factor))
        if launch is None:
            items = self._items(x)
            launch = self._kernels.scale.prepare(
                items, x, x.size, self._chunk, float(factor), group=self._group
            )
            self._scales[x, factor] = launch
        launch()

    def _items(self, x: Array) -> int:
        """Work-items: one for each chunk of blocks on a CPU, elsewhere several."""
        return parts(blocks(x.size), self._chunk) * self._lanes


class Dynamic8(_OnDevice, Dynamic8Format):
    """The dynamic tree code, blocks of 512 values with a power of two as their scale."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._thresholds, self._levels = device.upload(THRESHOLDS), device.upload(LEVELS)

    def encode(
        self, codes: Array, x: Array, residual: Array | None = None, minus: Array | None = None
    ) -> None:
        other, mode = _second_vector(x, residual, minus)
        self._kernels.encode8(
            self._items(x), codes, other, x, self._thresholds, self._levels, x.size, self._chunk,
            mode, group=self._group
        )  # fmt: skip

    def decode_add(self, acc: Array, codes: Array, first: bool, offset: int = 0) -> None:
        self._kernels.decode_add8(
            self._items(acc), acc, codes, self._levels, acc.size, self._chunk, offset, int(first),
            group=self._group
        )  # fmt: skip


class Float16(_OnDevice, Float16Format):
    """IEEE half precision."""

    def encode(
        self, codes: Array, x: Array, residual: Array | None = None, minus: Array | None = None
    ) -> None:
        other, mode = _second_vector(x, residual, minus)
        self._kernels.encode16(
            self._items(x), codes, other, x, x.size, self._chunk, mode, group=self._group
        )

    def decode_add(self, acc: Array, codes: Array, first: bool, offset: int = 0) -> None:
        self._kernels.decode_add16(
            self._items(acc),
            acc,
            codes,
            acc.size,
            self._chunk,
            offset,
            int(first),
            group=self._group,
        )


def _second_vector(x: Array, residual: Array | None, minus: Array | None) -> tuple[Array, int]:
    if residual is not None and minus is not None:
        raise ValueError("encode adds a residual or subtracts a vector, not both")
    if residual is not None:
        return residual, PLUS
    return (minus, MINUS) if minus is not None else (x, ALONE)
