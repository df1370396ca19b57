"""Low-rank factors instead of gradients: PowerSGD with error feedback and a warm start.

A tensor's gradient is a matrix M (rows, columns). Its sum over ranks is replaced by P Q', with P
(rows, r) and Q (columns, r), and only P and Q are sent:

    M = gradient + what was left out before     on each rank
    P = sum over ranks of M Q,  its columns made orthonormal
    Q = sum over ranks of M' P
    what is left out = M - P (M' P)'            on each rank: no part of any gradient is lost

Source: Vogels, Karimireddy and Jaggi, 2019 (arXiv 1905.13727). Both sums and the orthonormal
columns are made on rank 0 and copied, and P Q' is built with fused multiplications in one order, so
all ranks get the same mean, bit for bit, whatever their devices are. Q starts the next step.
Tensors whose factors have more than half as many values are exchanged as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket, Matrix
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.job.cut import parts as parts_of
from mpitrain.job.cut import round_up
from mpitrain.job.errors import UserError
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.program import Launch

DEFAULT_RANK = 4
"""The rank of the factors if --exchange lowrank names none."""
RANK_MAX = 32
STRIP = 4
"""Vectors of columns that a work-item of a CPU sums over all rows: 16 sums of rank 4 in
registers."""
ALIGNED = 128
"""Float32 values to whose multiples parts of arrays start: sub-buffers need that on some GPUs."""
SUM_LEFT, COPY_LEFT, SUM_RIGHT, COPY_RIGHT = range(4)
"""Lanes of Transfer. Each is used in one hop only, the same one for all buckets, so that all ranks
use it in the same order."""


class LowRank(Strategy):
    """The strategy `lowrank`: every rank gets the mean, and weights are not spread."""

    lossy = True
    replicated_only = True
    whole_tensors = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        rank = _rank(parts.argument)
        self._factors: dict[int, _Factors] = {}
        self._unsent = parts.device.zeros((0,))
        self._basis = parts.device.zeros((0,))
        low = {
            bucket.number: [each for each in bucket.matrices if _pays(each, rank)]
            for bucket in parts.buckets
            if bucket.coded
        }
        if any(low.values()):
            end = max(bucket.stop for bucket in parts.buckets if low.get(bucket.number))
            self._unsent = parts.device.zeros((end,))
            sizes = [round_up(_rank_of(m, rank) * m.columns, ALIGNED) for m in _all(low)]
            self._basis = parts.device.upload(_first_basis(_all(low), rank, sum(sizes)))
        at = 0
        for bucket in parts.buckets:
            if not low.get(bucket.number):
                continue
            used = sum(round_up(_rank_of(m, rank) * m.columns, ALIGNED) for m in low[bucket.number])
            self._factors[bucket.number] = _Factors(
                parts.device,
                parts.gradients[bucket.number],
                self._unsent.part(bucket.start, bucket.stop),
                self._basis.part(at, at + used),
                bucket,
                low[bucket.number],
                rank,
            )
            at += used

    @classmethod
    def check(cls, name: str, argument: str) -> None:
        _rank(argument)

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        factors = self._factors.get(bucket.number)
        if factors is None:
            return (yield from self._as_it_is(bucket, images))
        transfer = self.parts.wire.transfer
        factors.multiply_right()
        with factors.left.host(write=True) as left:
            yield transfer.start_reduce(left, SUM_LEFT)
            if transfer.rank == 0:
                factors.make_orthonormal(left)
            yield transfer.start_broadcast(left, COPY_LEFT)
            finite = bool(np.isfinite(left).all())
        factors.multiply_left()
        with factors.total.host(write=True) as total:
            with factors.own.host() as own:
                total[:] = own
            yield transfer.start_reduce(total, SUM_RIGHT)
            yield transfer.start_broadcast(total, COPY_RIGHT)
            finite = finite and bool(np.isfinite(total).all())
            factors.start_next(total)
            total *= np.float32(1 / images)
        factors.rebuild(np.float32(1 / images))
        return 0.0 if finite else float("inf")

    def __str__(self) -> str:
        whole = sum(bucket.size for bucket in self.parts.buckets)
        sent = whole
        for bucket in self.parts.buckets:
            factors = self._factors.get(bucket.number)
            if factors is not None:
                sent += factors.left.size + factors.total.size - (bucket.size)
        return f"rank {_rank(self.parts.argument)}, {whole / sent:,.0f} times fewer values"

    def _as_it_is(self, bucket: Bucket, images: int) -> Hops[float]:
        transfer, x = self.parts.wire.transfer, self.parts.gradients[bucket.number]
        with x.host(write=True) as values:
            yield transfer.start_reduce(values, SUM_LEFT)
            yield transfer.start_broadcast(values, COPY_LEFT)
        self.parts.scale(x, 1 / images)
        return 0.0

    def residuals(self) -> dict[str, Array]:
        """Two vectors, of which "basis" is the same on all ranks.

        "unsent": what this rank has left out, a place for each value of the flat vector. "basis":
        the Q of each matrix with which the next step starts.
        """
        return {"unsent": self._unsent, "basis": self._basis}

    def restore(self, old: Residuals) -> None:
        if not old.before or not self._basis.size:
            return
        rank, size = self.parts.wire.ranks.rank, self.parts.wire.ranks.size
        total = np.zeros(self._unsent.size, np.float32)
        for each in range(rank, old.before, size):
            total += old.read("unsent", each, 0, total.size)
        self._unsent.write(total)
        basis = old.read("basis", 0, 0, self._basis.size)
        if basis.size == self._basis.size:  # else the rank was another one
            self._basis.write(basis)


@dataclass(frozen=True)
class _Work:
    """The launches of one matrix in a step."""

    right: Launch
    left: Launch
    rebuild: Launch


class _Factors:
    """P and Q of the matrices of one bucket. Tensors without factors are sent together with P."""

    def __init__(
        self,
        device: Device,
        gradient: Array,
        unsent: Array,
        basis: Array,
        bucket: Bucket,
        low: list[Matrix],
        rank: int,
    ) -> None:
        self._gradient, self._basis, self._low, self._rank = gradient, basis, low, rank
        ends = [(m.start, m.start + m.rows * m.columns) for m in bucket.matrices if m not in low]
        self._plain, at = [], sum(round_up(_rank_of(m, rank) * m.rows, ALIGNED) for m in low)
        for start, stop in ends:
            self._plain.append((start, stop, at))
            at += round_up(stop - start, ALIGNED)
        self.left = device.zeros((at,))
        """P of each matrix (r, rows), one after the other, then the plain tensors."""
        self.own, self.total = device.zeros(basis.shape), device.zeros(basis.shape)
        """Q of each matrix (r, columns): this rank's part of it, and the sum over ranks."""
        self._works = [
            self._prepare(device, gradient, unsent, m, p, q) for m, p, q in self._places()
        ]

    def _places(self) -> Iterator[tuple[Matrix, int, int]]:
        """Each matrix, and where its P and its Q start."""
        p = q = 0
        for m in self._low:
            yield m, p, q
            p += round_up(_rank_of(m, self._rank) * m.rows, ALIGNED)
            q += round_up(_rank_of(m, self._rank) * m.columns, ALIGNED)

    def _prepare(
        self, device: Device, gradient: Array, unsent: Array, m: Matrix, p: int, q: int
    ) -> _Work:
        rank, strip = _rank_of(m, self._rank), STRIP if device.long_items else 1
        kernels = device.program("lowrank", RANK=rank, STRIP=strip)
        end = m.start + m.rows * m.columns
        x, left_out = gradient.part(m.start, end), unsent.part(m.start, end)
        left = self.left.part(p, p + rank * m.rows)
        basis, own, total = (
            each.part(q, q + rank * m.columns) for each in (self._basis, self.own, self.total)
        )
        group, shape = device.group, (m.rows, m.columns)
        columns = parts_of(m.columns, strip * device.wide)
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
        for start, stop, at in self._plain:
            self.left.part(at, at + stop - start).copy_from(self._gradient.part(start, stop))

    def make_orthonormal(self, left: NDArray[np.float32]) -> None:
        """Make the columns of each P orthonormal; those of a P that is not finite become NaN."""
        for m, p, _ in self._places():
            rank = _rank_of(m, self._rank)
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
                for column in range(_rank_of(m, self._rank)):
                    place = slice(q + column * m.columns, q + (column + 1) * m.columns)
                    largest = np.abs(total[place]).max()
                    if largest > 0 and np.isfinite(largest):
                        basis[place] = np.ldexp(total[place], -np.frexp(largest)[1])

    def rebuild(self, factor: np.float32) -> None:
        """Each gradient becomes the mean; what P Q' lacks of it is kept for the next step."""
        for work in self._works:
            work.rebuild()
        for start, stop, at in self._plain:
            with (
                self.left.part(at, at + stop - start).host() as total,
                self._gradient.part(start, stop).host(write=True) as mean,
            ):
                np.multiply(total, factor, out=mean)


def _rank(argument: str) -> int:
    """The rank that --exchange lowrank:RANK asks for."""
    rank = int(argument) if argument.isdecimal() else 0
    if argument == "":
        return DEFAULT_RANK
    if not 1 <= rank <= RANK_MAX:
        raise UserError(
            f"--exchange lowrank:{argument}: expected a rank from 1 to {RANK_MAX} after the colon"
        )
    return rank


def _rank_of(m: Matrix, rank: int) -> int:
    """The rank of a matrix's factors."""
    return min(rank, m.rows, m.columns)


def _pays(m: Matrix, rank: int) -> bool:
    return 2 * _rank_of(m, rank) * (m.rows + m.columns) <= m.rows * m.columns


def _all(low: dict[int, list[Matrix]]) -> list[Matrix]:
    return [m for matrices in low.values() for m in matrices]


def _first_basis(matrices: list[Matrix], rank: int, size: int) -> NDArray[np.float32]:
    """The Q of each matrix with which a run starts, drawn at random with its number as seed."""
    basis, at = np.zeros(size, np.float32), 0
    for number, m in enumerate(matrices):
        count = _rank_of(m, rank) * m.columns
        basis[at : at + count] = np.random.default_rng(number).standard_normal(count, np.float32)
        at += round_up(count, ALIGNED)
    return basis
