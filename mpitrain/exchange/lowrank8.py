"""The strategy `lowrank8`: low-rank factors (lowrank.py) in 8 bits a value.

Every rank but rank 0 codes its P and sends it; rank 0 adds all up, makes the columns orthonormal,
codes these, and sends them to all. Q is averaged as `dynamic8` averages gradients (mean.py): each
rank owns a shard of it. All ranks, those that code too, go on with what the bytes decode to.

What coding leaves out needs no memory of its own. P only says in which columns gradients are seen:
what they miss is in M - P (M' P)' as ever. What is rounded off Q, by its sender or by the owner of
a shard, is taken off that rank's own Q before it computes M - P Q', and so is part of that. What
all ranks have left out and what they have sent still add up to all gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Place
from mpitrain.exchange.codec import make_codec
from mpitrain.exchange.codec_protocol import BLOCK, Bytes, blocks
from mpitrain.exchange.factors import Factors, rank_of
from mpitrain.exchange.lowrank import LowRank
from mpitrain.exchange.mean import Mean, own_values
from mpitrain.exchange.message import (
    COLUMNS,
    HEADER,
    LEFTS,
    MEANS,
    PARTS,
    Label,
    check,
    seal,
)
from mpitrain.exchange.strategy import Parts, Turn
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.mpi.hops import Hops
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

SEND_LEFT, COPY_LEFT = 2, 3
"""Lanes of Transfer for P. Q is on Mean's, the first two."""
SMALLEST_LENGTH = 2.0**-12
"""Of a column of Q, beside the longest: shorter ones are noise, which is not to be enlarged."""


class CodedFactors(Factors):
    """Factors that a codec can take. Tensors without factors are sent together with Q."""

    aligned = BLOCK
    beside_right = True

    def __init__(self, device: Device, *parts: Any) -> None:
        super().__init__(device, *parts)
        self.missing = device.zeros(self.own.shape)
        """What is rounded off Q and the tensors beside it. Before: what is to be added to them."""

    def begin_right(self) -> None:
        """`total` becomes this rank's Q, and the tensors beside it what was left out of them."""
        self.total.copy_from(self.own)
        self.missing.fill(0)
        for _, left_out, place in self._plain:
            self.missing.part(place.start, place.stop).copy_from(left_out)

    def end_right(self, owned: Array, start: int, images: int) -> None:
        """Take off this rank's Q what was rounded off it, and, from value `start` on, what was
        rounded off the mean by this rank."""
        with self.missing.host(write=True) as missing:
            if owned.size:
                with owned.host() as of_mean:
                    missing[start : start + owned.size] += of_mean * np.float32(images)
            with self.own.host(write=True) as own:
                own -= missing

    def start_next(self, total: NDArray[np.float32]) -> None:
        """Start the next step with orthonormal columns of the mean Q, scaled so that those of P
        will be about as long as each other.

        So all of P's columns keep their digits when they are coded together, and when rank 0 takes
        from each what the others have. Where nothing is in Q, the one from the step before stays.
        The last bits may differ between ranks whose linear algebra does: weights do not depend on
        them, for what is used of P comes from rank 0.
        """
        with self._basis.host(write=True) as basis:
            for m, _, q in self._places():
                rank = rank_of(m, self._rank)
                place = slice(q, q + rank * m.columns)
                columns = total[place].reshape(rank, m.columns).astype(np.float64)
                if not np.isfinite(columns).all() or not columns.any():
                    continue
                orthonormal, r = np.linalg.qr(columns.T)
                lengths = np.abs(np.diag(r))
                lengths = np.maximum(lengths, SMALLEST_LENGTH * lengths.max())
                basis[place] = np.ldexp(orthonormal, -np.frexp(lengths)[1]).T.reshape(-1)

    def rebuild(self, factor: float) -> None:
        for work in self._works:
            work.rebuild()
        for gradient, left_out, place in self._plain:
            gradient.copy_from(self.total.part(place.start, place.stop))
            left_out.copy_from(self.missing.part(place.start, place.stop))


class LowRank8(LowRank):
    """PowerSGD's factors through the code of `dynamic8`."""

    factors = CodedFactors
    as_it_is = SEND_LEFT, COPY_LEFT
    lanes: ClassVar[Mapping[int, str]] = {
        PARTS: "codes of right factors",
        MEANS: "codes of means of right factors",
        SEND_LEFT: "codes of left factors, or gradients",
        COPY_LEFT: "codes of columns, or sums of gradients",
    }

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        transfer = parts.wire.transfer
        self._codec = codec = make_codec("dynamic8", parts.device)
        count = min(BUCKETS_AT_ONCE, len(self._factors))
        means = [Mean(ByMessage(transfer, codec), codec, to_all=True) for _ in range(count)]
        self._coded: dict[int, _Coded] = {}
        for nth, (number, factors) in enumerate(self._factors.items()):
            assert isinstance(factors, CodedFactors)
            start, stop = own_values(factors.own.size, transfer.rank, transfer.size)
            length = HEADER + blocks(factors.left.size) * codec.record
            senders = transfer.size - 1 if transfer.rank == 0 else 1
            self._coded[number] = _Coded(
                factors,
                means[nth % count],
                parts.device.zeros((stop - start,)),
                start,
                codec.bytes(length),
                codec.bytes(length * senders),
            )

    def _sum_left(self, factors: Factors, bucket: Bucket, turn: Turn) -> Hops[bool]:
        transfer, codec, left = self.parts.wire.transfer, self._codec, factors.left
        coded, nobody = self._coded[bucket.number], [None] * transfer.size
        length, first = coded.codes.size, transfer.rank == 0
        sent, copied = (
            Label(codec.number, BLOCK, bucket.number, phase, turn.step, left.size)
            for phase in (LEFTS, COLUMNS)
        )
        if first:
            with coded.incoming.host(write=True, read=False) as theirs:
                into = [None, *theirs.reshape(-1, length)]
                yield transfer.start_all_to_all(nobody, into, SEND_LEFT)
                for sender, message in enumerate(into):
                    if message is not None:
                        check(message, sent, transfer.numbers[sender])
            for at in range(0, coded.incoming.size, length):  # in rank order
                codec.decode_add(left, coded.incoming, False, at + HEADER)
            with left.host(write=True) as columns:
                factors.make_orthonormal(columns)
            mine = self._message(coded, left, copied)
            yield transfer.start_broadcast(mine, COPY_LEFT)
            codec.decode_add(left, coded.codes, True)
            return bool(np.isfinite(codec.bounds(mine[HEADER:])).all())
        mine = self._message(coded, left, sent)
        yield transfer.start_all_to_all([mine, *nobody[1:]], nobody, SEND_LEFT)
        with coded.incoming.host(write=True, read=False) as message:
            yield transfer.start_broadcast(message, COPY_LEFT)
            check(message, copied, transfer.numbers[0])
            finite = bool(np.isfinite(codec.bounds(message[HEADER:])).all())
        codec.decode_add(left, coded.incoming, True, HEADER)
        return finite

    def _message(self, coded: _Coded, left: Array, label: Label) -> Bytes:
        """The code of P, with its header."""
        message = np.empty(coded.codes.size, np.uint8)
        self._codec.encode(coded.codes, left)
        with coded.codes.host() as codes:
            message[HEADER:] = codes[: message.size - HEADER]
        seal(message, label)
        return message

    def _average_right(
        self, factors: Factors, bucket: Bucket, images: int, turn: Turn
    ) -> Hops[bool]:
        coded, place = self._coded[bucket.number], Place(turn.step, bucket.number)
        coded.factors.begin_right()
        coded.owned.fill(0)
        bound = yield from coded.mean.hops(
            factors.total, images, place, coded.factors.missing, coded.owned
        )
        coded.factors.end_right(coded.owned, coded.start, images)
        with factors.total.host() as total:
            factors.start_next(total)
        return bool(np.isfinite(bound))

    def __str__(self) -> str:
        values = [
            each.size for factors in self._factors.values() for each in (factors.left, factors.own)
        ]
        coded = sum(blocks(each) * self._codec.record for each in values)
        plain = sum(b.size for b in self.parts.buckets if b.number not in self._factors)
        whole = sum(bucket.size for bucket in self.parts.buckets)
        return f"rank {self._rank} in 8 bits, {4 * whole / (coded + 4 * plain):,.0f} times less"


@dataclass(frozen=True)
class _Coded:
    """What one bucket's factors travel with."""

    factors: CodedFactors
    mean: Mean[Array]
    owned: Array
    """What is rounded off the values of Q's mean that this rank makes."""
    start: int
    """Where these begin."""
    codes: Array
    """As long as a message of P."""
    incoming: Array
    """Messages of P: on rank 0 one of each other rank."""
