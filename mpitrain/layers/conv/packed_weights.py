"""Weights as tensor cores read them: those of a whole network are written by one launch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpitrain.engine.engine import Engine
from mpitrain.job.cut import parts, round_up
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.tensor_rows import ROW_FLOATS, Format, pack_program, row_channels
from mpitrain.runtime.array import Array

GROUP = 64
"""Work-items of a group, which all write rows of one correlation."""
ALIGNED = 64
"""Rows are a multiple of this: a block of the widest format."""
SPARE = 192
"""Rows that the widest tile may read behind the last one; what comes of them is not stored."""
NO_BIAS = -1


class Packing:
    """The weights of one correlation as rows of 128 bytes, and its bias filled up with zeros."""

    rows: Array | None = None
    bias: Array | None = None

    def __init__(self, fmt: Format, sums: Correlation) -> None:
        self.format, self.sums = fmt, sums
        self.count = round_up(sums.k, ALIGNED)
        """Rows of a tap and chunk of channels: one for each output channel."""
        self.chunks = parts(sums.c, row_channels(fmt))

    @property
    def groups(self) -> int:
        """Of the kernel that writes it, a work-item for eight channels of every tap."""
        return parts(self.count * self.chunks * row_channels(self.format) // 8, GROUP)

    @property
    def sizes(self) -> tuple[int, int]:
        """Float32 values of the bias and of the rows."""
        rows = self.count * self.chunks * self.sums.r * self.sums.s + SPARE
        return round_up(self.count, 128), round_up(rows * ROW_FLOATS, 128)


class PackedWeights:
    """Memory for packings, and the launch that fills all of it."""

    def __init__(self, device: Engine, places: Sequence[tuple[Packing, int, int]]) -> None:
        """places: each with where its weights and its bias (or NO_BIAS) start in the vectors that
        `write` takes."""
        memory = device.zeros((sum(sum(each.sizes) for each, *_ in places),))
        facts: list[tuple[int, ...]] = []
        owners: list[int] = []
        start = 0
        for number, (each, weight, bias) in enumerate(places):
            c, (bias_size, rows_size) = each.sums, each.sizes
            middle, stop = start + bias_size, start + bias_size + rows_size
            each.bias, each.rows = memory.part(start, middle), memory.part(middle, stop)
            facts.append((
                len(owners), weight, bias, start, middle, c.k, c.c, each.count, c.r, c.s,
                c.out_step, c.in_step, *c.first_tap, *c.tap_step, c.tap_row, c.out_step < c.in_step,
            ))  # fmt: skip
            owners += [number] * each.groups
            start = stop
        self._memory, self.nbytes = memory, memory.nbytes
        self._facts = device.upload(np.array(facts, np.int32))
        self._owners = device.upload(np.array(owners, np.int32))
        self._kernels = pack_program(device, places[0][0].format)

    def write(self, weights: Array, biases: Array) -> None:
        """Fill all packings from vectors of weights and of biases, which may be the same."""
        self._kernels.pack_weights(
            self._owners.size * GROUP, self._memory, weights, biases, self._facts, self._owners,
            group=GROUP,
        )  # fmt: skip
