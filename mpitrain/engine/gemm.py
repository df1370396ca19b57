"""Matrix products C = A B on a device, where B may be a matrix or the images under a convolution's
filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from mpitrain.job.cut import parts, round_up
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Program

MATRIX, IMAGES, FILTER, DATA = range(4)
"""Where B's values lie; kernels/operand.h has the formulas."""

DEPTH = 1024
"""Rows of B that a CPU packs at a time: with 32 columns a panel of 128 KiB."""

ABREAST = 4
"""Panels that a work-item of a CPU has packed at a time, well inside a second-level cache: each
tile of A is fetched once for all of them."""


@dataclass(frozen=True)
class Left:
    """A (M, K): A[m][k] = a[start + (k // span) * block + m * row + (k % span) * column]."""

    a: Array
    row: int
    column: int
    span: int
    block: int = 0
    start: int = 0


@dataclass(frozen=True)
class Right:
    """B (K, N): an array, which of the four operands it is, and that operand's integers in the
    order of kernels/operand.h."""

    b: Array
    operand: int
    integers: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True)
class Result:
    """C (M, N): C[m][j] = c[start + (j // span) * image + m * row + j % span]."""

    c: Array
    row: int
    span: int
    image: int = 0
    start: int = 0


@dataclass(frozen=True)
class Bias:
    """Values that C starts from: one a row (a convolution's channels) or one a column (a dense
    layer's features)."""

    b: Array
    by: Literal["row", "column"]
    start: int = 0


class Gemm(ABC):
    """Products on one device."""

    def __init__(self, device: Device) -> None:
        self._device = device

    @abstractmethod
    def scratch(self, m: int, k: int) -> int:
        """Float32 values that a product with M = m and K = k needs in `scratch`."""

    def __call__(
        self,
        result: Result,
        left: Left,
        right: Right,
        m: int,
        n: int,
        k: int,
        scratch: Array,
        accumulate: bool = False,
        bias: Bias | None = None,
    ) -> None:
        """Queue C = A B, plus C when `accumulate`, else plus the bias if there is one."""
        by = 0 if bias is None else 1 if bias.by == "row" else 2
        integers = (
            m, n, k, result.start, right.start, result.span, result.image, result.row,
            int(accumulate), by, bias.start if bias else 0,
        )  # fmt: skip
        program = self._device.program("gemm", OPERAND=right.operand, KB=DEPTH, MOST=ABREAST)
        self._queue(program, result.c, left, right, bias.b if bias else result.c, integers, scratch)

    @abstractmethod
    def _queue(
        self,
        program: Program,
        c: Array,
        left: Left,
        right: Right,
        bias: Array,
        integers: tuple[int, ...],
        scratch: Array,
    ) -> None:
        """Queue the kernels. integers: m, n, k, and what both forms of the kernel take after."""


class PackedGemm(Gemm):
    """Products on a CPU, which packs both operands into `scratch`."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._rows = 12 if device.wide == 16 else 6
        self._columns = 2 * device.wide
        # A few panels a core in turn, so that cores that are disturbed do not hold up the others.
        self._items = 4 * device.units

    def scratch(self, m: int, k: int) -> int:
        return (
            round_up(parts(m, self._rows) * self._rows * k, 128)
            + self._items * ABREAST * DEPTH * self._columns
        )

    def _queue(
        self,
        program: Program,
        c: Array,
        left: Left,
        right: Right,
        bias: Array,
        integers: tuple[int, ...],
        scratch: Array,
    ) -> None:
        (m, n, k), units = integers[:3], self._device.units
        tiles_a = parts(m, self._rows)
        split = round_up(tiles_a * self._rows * k, 128)
        packed = scratch.part(0, split)
        panels = scratch.part(split, split + self._items * ABREAST * DEPTH * self._columns)
        program.pack_a(
            tiles_a, packed, left.a, left.start, m, k,
            left.span, left.block, left.row, left.column, group=1,
        )  # fmt: skip
        columns = parts(n, self._columns)
        # Few panels: several work-items share one, each packing it again for its own rows of A.
        chunks = min(tiles_a, max(1, 2 * units // columns)) if units > 1 else 1
        # As many panels abreast as leave every core its share.
        groups = min(columns, round_up(parts(columns, ABREAST), units))
        items = min(self._items, groups * chunks)
        program.gemm(
            items, c, packed, right.b, bias, panels, *integers, groups, chunks, *right.integers,
            group=1,
        )  # fmt: skip


class TiledGemm(Gemm):
    """Products on a GPU, in tiles of its local memory."""

    def scratch(self, m: int, k: int) -> int:
        return 0

    def _queue(
        self,
        program: Program,
        c: Array,
        left: Left,
        right: Right,
        bias: Array,
        integers: tuple[int, ...],
        scratch: Array,
    ) -> None:
        m, n, _ = integers[:3]
        program.gemm(
            (parts(n, 64) * 16, parts(m, 64) * 16), c, left.a, right.b, bias,
            left.start, left.span, left.block, left.row, left.column, *integers, *right.integers,
            group=(16, 16),
        )  # fmt: skip


def matrix(b: Array, stride_k: int, stride_j: int) -> Right:
    """An ordinary matrix as B: B[k][j] = b[k * stride_k + j * stride_j]."""
    return Right(b, MATRIX, (stride_k, stride_j))
