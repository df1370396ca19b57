"""The factors P Q' of the gradients of one bucket, and the kernels that make and use them.

exchange/lowrank.py has the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.job.cut import parts, round_up
from mpitrain.runtime.array import ALIGNED, Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Launch

STRIP = 4
"""Vectors of columns that a work-item of a CPU sums over all rows: 16 sums of rank 4 in
registers."""


def rank_of(m: Matrix, rank: int) -> int:
    """The rank of a matrix's factors."""
    return min(rank, m.rows, m.columns)


def pays(m: Matrix, rank: int) -> bool:
    """Whether a matrix's factors have at most half as many values as it has."""
    return 2 * rank_of(m, rank) * (m.rows + m.columns) <= m.size


def basis_size(matrices: Sequence[Matrix], rank: int, aligned: int = ALIGNED) -> int:
    """Values of the Q of these matrices, one after the other, each from a multiple of `aligned`."""
    return sum(round_up(rank_of(m, rank) * m.columns, aligned) for m in matrices)


def first_basis(
    matrices: Sequence[Matrix], rank: int, aligned: int = ALIGNED
) -> NDArray[np.float32]:
    """The Q of each matrix with which a run starts, drawn at random with its number as seed."""
    basis, at = np.zeros(basis_size(matrices, rank, aligned), np.float32), 0
    for number, m in enumerate(matrices):
        count = rank_of(m, rank) * m.columns
        basis[at : at + count] = np.random.default_rng(number).standard_normal(count, np.float32)
        at += basis_size([m], rank, aligned)
    return basis


@dataclass(frozen=True)
class _Work:
    """The launches of one matrix in a step."""

    right: Launch
    left: Launch
    rebuild: Launch


class Factors:
    """P and Q of the matrices of one bucket. Tensors without factors are sent together with P."""

    aligned: ClassVar[int] = ALIGNED
    """Values to whose multiples each P, each Q and each tensor without factors starts."""
    beside_right: ClassVar[bool] = False
    """Whether tensors without factors are sent together with Q instead."""

    def __init__(
        self,
        device: Device,
        gradient: Array,
        unsent: Array,
        basis: Array,
        bucket: Bucket,
        low: list[Matrix],
        rank: int,
        scale: Callable[[Array, float], None],
    ) -> None:
        """low: the matrices that get factors. scale(x, factor): x = x * factor."""
        self._basis, self._low, self._rank, self._scale = basis, low, rank, scale
        plain = [m for m in bucket.matrices if m not in low]
        more = sum(round_up(m.size, self.aligned) for m in plain)
        left = sum(round_up(rank_of(m, rank) * m.rows, self.aligned) for m in low)
        right = basis.size
        self.left = device.zeros((left if self.beside_right else left + more,))
        """P of each matrix (r, rows), one after the other, then the plain tensors."""
        self.own, self.total = (
            device.zeros((right + more if self.beside_right else right,)) for _ in range(2)
        )
        """Q of each matrix (r, columns): this rank's part of it, and the sum over ranks."""
        self._plain: list[tuple[Array, Array, slice]] = []
        """Of each plain tensor: its gradient, what was left out of it, its place beside P or Q."""
        start = right if self.beside_right else left
        for m in plain:
            x, left_out = (each.part(m.start, m.start + m.size) for each in (gradient, unsent))
            self._plain.append((x, left_out, slice(start, start + m.size)))
            start += round_up(m.size, self.aligned)
        self._works = [
            self._prepare(device, gradient, unsent, m, p, q) for m, p, q in self._places()
        ]

    def _places(self) -> Iterator[tuple[Matrix, int, int]]:
        """Each matrix, and where its P and its Q start."""
        p = q = 0
        for m in self._low:
            yield m, p, q
            p += round_up(rank_of(m, self._rank) * m.rows, self.aligned)
            q += round_up(rank_of(m, self._rank) * m.columns, self.aligned)

    def _prepare(
        self, device: Device, gradient: Array, unsent: Array, m: Matrix, p: int, q: int
    ) -> _Work:
        rank, strip = rank_of(m, self._rank), STRIP if device.long_items else 1
        kernels = device.program("lowrank", RANK=rank, STRIP=strip)
        end = m.start + m.size
        x, left_out = gradient.part(m.start, end), unsent.part(m.start, end)
        left = self.left.part(p, p + rank * m.rows)
        basis, own, total = (
            each.part(q, q + rank * m.columns) for each in (self._basis, self.own, self.total)
        )
        group, shape = device.group, (m.rows, m.columns)
        columns = parts(m.columns, strip * device.wide)
        return _Work(
            kernels.multiply_right.prepare(
                m.rows * group, left, x, left_out, basis, *shape, group=group
            ),
            kernels.multiply_left.prepare(columns, own, x, left, *shape, group=group),
            kernels.rebuild.prepare(
                m.rows * group, x, left_out, left, own, total, *shape, group=group
            ),
        )

    def multiply_right(self) -> None:
        """Add to each gradient what was left out, and multiply it by Q."""
        for work in self._works:
            work.right()
        beside = self.own if self.beside_right else self.left
        for gradient, _, place in self._plain:
            beside.part(place.start, place.stop).copy_from(gradient)

    def make_orthonormal(self, left: NDArray[np.float32]) -> None:
        """Make the columns of each P orthonormal; those of a P that is not finite become NaN."""
        for m, p, _ in self._places():
            rank = rank_of(m, self._rank)
            columns = left[p : p + rank * m.rows].reshape(rank, m.rows)
            if np.isfinite(columns).all():
                columns[:] = np.linalg.qr(columns.T.astype(np.float64))[0].T
            else:
                columns[:] = np.nan

    def multiply_left(self) -> None:
        """Multiply each gradient, transposed, by P."""
        for work in self._works:
            work.left()

    def start_next(self, total: NDArray[np.float32]) -> None:
        """Start the next step with the sums Q, each column scaled by a power of two.

        Where a column is zero, the one from the step before stays.
        """
        with self._basis.host(write=True) as basis:
            for m, _, q in self._places():
                for column in range(rank_of(m, self._rank)):
                    place = slice(q + column * m.columns, q + (column + 1) * m.columns)
                    largest = np.abs(total[place]).max()
                    if largest > 0 and np.isfinite(largest):
                        basis[place] = np.ldexp(total[place], -np.frexp(largest)[1])

    def rebuild(self, factor: float) -> None:
        """Each gradient becomes the mean; what P Q' lacks of it is kept for the next step.

        The sums Q have been multiplied by `factor`; plain tensors are here.
        """
        for work in self._works:
            work.rebuild()
        for gradient, _, place in self._plain:
            gradient.copy_from(self.left.part(place.start, place.stop))
            self._scale(gradient, factor)
