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

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.factors import Factors, basis_size, first_basis, pays
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.strategy import Parts, Strategy, Turn
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array

DEFAULT_RANK = 4
"""The rank of the factors if --exchange lowrank names none."""
SUM_LEFT, COPY_LEFT, SUM_RIGHT, COPY_RIGHT = range(4)
"""Lanes of Transfer. Each is used in one hop only, the same one for all buckets, so that all ranks
use it in the same order."""


class LowRank(Strategy):
    """The strategy `lowrank`: every rank gets the mean, and weights are not spread."""

    lossy = True
    left_out = "unsent"
    replicated_only = True
    whole_tensors = True
    lanes: ClassVar[Mapping[int, str]] = {
        SUM_LEFT: "left factors or gradients",
        COPY_LEFT: "sums of left factors or gradients",
        SUM_RIGHT: "right factors",
        COPY_RIGHT: "sums of right factors",
    }
    factors: ClassVar[type[Factors]] = Factors
    """What makes and uses the factors of a bucket."""
    as_it_is: ClassVar[tuple[int, int]] = SUM_LEFT, COPY_LEFT
    """Lanes of the first two hops, for buckets without factors."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._rank = int(parts.argument or DEFAULT_RANK)
        self._factors: dict[int, Factors] = {}
        low = {
            bucket.number: [m for m in bucket.matrices if pays(m, self._rank)]
            for bucket in parts.buckets
            if bucket.coded
        }
        coded = [bucket for bucket in parts.buckets if low.get(bucket.number)]
        device, matrices = parts.device, [m for bucket in coded for m in low[bucket.number]]
        self._unsent = device.zeros((max((bucket.stop for bucket in coded), default=0),))
        aligned = self.factors.aligned
        self._basis = device.upload(first_basis(matrices, self._rank, aligned))
        at = 0
        for bucket in coded:
            stop = at + basis_size(low[bucket.number], self._rank, aligned)
            self._factors[bucket.number] = self.factors(
                device,
                parts.gradients[bucket.number],
                self._unsent.part(bucket.start, bucket.stop),
                self._basis.part(at, stop),
                bucket,
                low[bucket.number],
                self._rank,
                parts.scale,
            )
            at = stop

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        factors = self._factors.get(bucket.number)
        if factors is None:
            return (yield from self._as_it_is(bucket, images))
        factors.multiply_right()
        finite = yield from self._sum_left(factors, bucket, turn)
        factors.multiply_left()
        finite_right = yield from self._average_right(factors, bucket, images, turn)
        factors.rebuild(1 / images)
        return 0.0 if finite and finite_right else float("inf")

    def _sum_left(self, factors: Factors, bucket: Bucket, turn: Turn) -> Hops[bool]:
        """P becomes the same orthonormal columns on all ranks. Returns whether it is finite."""
        transfer = self.parts.wire.transfer
        with factors.left.host(write=True) as left:
            yield transfer.start_reduce(left, SUM_LEFT)
            if transfer.rank == 0:
                factors.make_orthonormal(left)
            yield transfer.start_broadcast(left, COPY_LEFT)
            return bool(np.isfinite(left).all())

    def _average_right(
        self, factors: Factors, bucket: Bucket, images: int, turn: Turn
    ) -> Hops[bool]:
        """factors.total becomes the sum of Q over ranks, divided by `images`; factors.own is what
        of this rank is in that sum. Returns whether it is finite."""
        transfer = self.parts.wire.transfer
        with factors.total.host(write=True, read=False) as total:
            with factors.own.host() as own:
                total[:] = own
            yield transfer.start_reduce(total, SUM_RIGHT)
            yield transfer.start_broadcast(total, COPY_RIGHT)
            finite = bool(np.isfinite(total).all())
            factors.start_next(total)
            total *= np.float32(1 / images)
        return finite

    def __str__(self) -> str:
        whole = sum(bucket.size for bucket in self.parts.buckets)
        factors = self._factors
        sent = sum(each.left.size + each.total.size for each in factors.values()) + sum(
            bucket.size for bucket in self.parts.buckets if bucket.number not in factors
        )
        return f"rank {self._rank}, {whole / sent:,.0f} times fewer values"

    def _as_it_is(self, bucket: Bucket, images: int) -> Hops[float]:
        transfer, x = self.parts.wire.transfer, self.parts.gradients[bucket.number]
        with x.host(write=True) as values:
            yield transfer.start_reduce(values, self.as_it_is[0])
            yield transfer.start_broadcast(values, self.as_it_is[1])
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
