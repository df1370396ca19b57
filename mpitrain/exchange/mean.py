"""Turn every rank's sums of gradients into the mean over all images: codes, wire, sum in rank
order, codes, wire.

Each rank owns a shard of the blocks: it gets that shard's codes from all others, decodes them and
its own, adds them in rank order, and sends the mean, coded again, to rank 0 or to everyone. All
that a rank ever uses is decoded bytes that others decode as well, so all hold the same bits. Two
quantisations, however many ranks; with two ranks whole buckets are swapped, and it is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from mpitrain.exchange.codec_protocol import BLOCK, Bytes, Codec, V, blocks
from mpitrain.exchange.message import HEADER, MEANS, PARTS, Label, check, seal
from mpitrain.job.cut import shards
from mpitrain.mpi.hops import Hops, Pending


class Ways(Protocol):
    """The ways of bytes that this module needs; mpi's Transfer has them."""

    rank: int
    size: int
    numbers: Sequence[int]
    """What messages call its ranks."""

    def start_all_to_all(
        self, outgoing: list[Bytes | None], incoming: list[Bytes | None], lane: int
    ) -> Pending: ...


@dataclass(frozen=True)
class Place:
    """Which bucket of which step a message belongs to."""

    step: int
    bucket: int


def own_values(size_of_vector: int, rank: int, size: int) -> tuple[int, int]:
    """The range of a coded vector whose mean a rank makes and codes again: none where whole vectors
    are swapped."""
    if size <= 2:
        return 0, 0
    start, stop = shards(blocks(size_of_vector), size)[rank]
    return min(start * BLOCK, size_of_vector), min(stop * BLOCK, size_of_vector)


class Mean(Generic[V]):
    """Works in place on vectors of up to a bucket's size; keeps the memory for codes between
    calls."""

    def __init__(self, wire: Ways, codec: Codec[V], to_all: bool, star: bool = False) -> None:
        """to_all: every rank gets the mean; otherwise rank 0 alone. star: whole vectors go to rank
        0, as in the paper, not shards."""
        self._wire, self._codec, self._to_all = wire, codec, to_all
        self._whole = star or wire.size == 2
        self._memory: dict[str, V] = {}
        self._staging = np.empty(0, np.uint8)
        self.watched = False
        """Whether to count values that are coded as zero and are not."""
        self.flushed = 0

    def hops(
        self, x: V, images: int, place: Place, residual: V | None = None, owned: V | None = None
    ) -> Hops[float]:
        """x becomes the sum over ranks divided by `images` where the mean is wanted; elsewhere x is
        spent.

        residual has x's size, `owned` that of own_values(x). Returns the bound of the error on a
        rank that gets the mean (else 0): the largest over blocks of the senders' bounds over
        `images` plus the owner's. Infinity: a block was not finite.
        """
        wire, codec = self._wire, self._codec
        whole = self._whole
        cuts = [(0, blocks(x.size))] * wire.size if whole else shards(blocks(x.size), wire.size)
        codes = self._bytes("codes", blocks(x.size) * codec.record)
        codec.encode(codes, x, residual)

        first, last = cuts[wire.rank]
        if whole and wire.rank > 0 and not self._to_all:
            first, last = 0, 0  # rank 0 makes the mean for itself
        shard = x.part(min(first * BLOCK, x.size), min(last * BLOCK, x.size))
        receivers = [
            peer != wire.rank and (self._to_all or not whole or peer == 0)
            for peer in range(wire.size)
        ]
        sizes = [self._message(last - first)] * wire.size
        incoming = self._bytes("parts", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True))
            if self.watched and residual is not None:
                with residual.host() as left_out:
                    nothing = codec.zeros(mine[: blocks(x.size) * codec.record])[: x.size]
                    self.flushed = int(np.count_nonzero(left_out[nothing]))
            outgoing = self._parts(mine, x.size, cuts, receivers, place)
            into = _split(theirs, sizes)
            into[wire.rank] = None
            yield wire.start_all_to_all(outgoing, into, PARTS)
            bounds = codec.bounds(mine[first * codec.record : last * codec.record])
            for sender, message in enumerate(into):
                if message is not None:
                    check(message, self._label(PARTS, place, shard.size), wire.numbers[sender])
                    bounds = bounds + codec.bounds(message[HEADER:])
        for sender in range(wire.size if shard.size else 0):
            if sender == wire.rank:
                codec.decode_add(shard, codes, sender == 0, first * codec.record)
            else:
                codec.decode_add(shard, incoming, sender == 0, sender * sizes[0] + HEADER)
        codec.scale(shard, 1 / images)
        bounds = bounds / images
        if whole:
            return float(bounds.max(initial=0.0))
        return (yield from self._share(x, shard, cuts, bounds, place, owned))

    def _share(
        self,
        x: V,
        shard: V,
        cuts: list[tuple[int, int]],
        bounds: NDArray[np.float64],
        place: Place,
        owned: V | None,
    ) -> Hops[float]:
        """Code this rank's shard of the mean again, send it on, and decode everyone's."""
        wire, codec = self._wire, self._codec
        codes = self._bytes("codes", (cuts[wire.rank][1] - cuts[wire.rank][0]) * codec.record)
        if shard.size:
            codec.encode(codes, shard, owned)
        wanted = self._to_all or wire.rank == 0
        sizes = [self._message(stop - start) if wanted else 0 for start, stop in cuts]
        incoming = self._bytes("means", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True))
            bound = float(
                (bounds + codec.bounds(mine[: bounds.size * codec.record])).max(initial=0.0)
            )
            message = self._staged(self._message(bounds.size))
            if message is not None:
                message[HEADER:] = mine[: bounds.size * codec.record]
                seal(message, self._label(MEANS, place, shard.size), bound)
            outgoing = [
                message if peer != wire.rank and (self._to_all or peer == 0) else None
                for peer in range(wire.size)
            ]
            into = _split(theirs, sizes)
            into[wire.rank] = None
            yield wire.start_all_to_all(outgoing, into, MEANS)
            for sender, message in enumerate(into):
                if message is not None:
                    size = _part(x, cuts[sender]).size
                    bound = max(
                        bound, check(message, self._label(MEANS, place, size), wire.numbers[sender])
                    )
        if not wanted:
            return 0.0
        at = 0
        for sender, cut in enumerate(cuts):
            part = _part(x, cut)
            if part.size and sender == wire.rank:
                codec.decode_add(part, codes, True)
            elif part.size:
                codec.decode_add(part, incoming, True, at + HEADER)
            at += sizes[sender]
        return bound

    def _parts(
        self,
        mine: Bytes,
        size: int,
        cuts: list[tuple[int, int]],
        receivers: list[bool],
        place: Place,
    ) -> list[Bytes | None]:
        """A sealed message for each receiver: the header and its shard of my codes."""
        record = self._codec.record
        lengths = [
            self._message(stop - start) if to else 0
            for (start, stop), to in zip(cuts, receivers, strict=True)
        ]
        self._staged(sum(lengths))
        messages = _split(self._staging, lengths)
        for message, (start, stop) in zip(messages, cuts, strict=True):
            if message is not None:
                message[HEADER:] = mine[start * record : stop * record]
                seal(message, self._label(PARTS, place, min(stop * BLOCK, size) - start * BLOCK))
        return messages

    def _message(self, count: int) -> int:
        """Bytes of a message with so many blocks; an empty one is not sent."""
        return HEADER + count * self._codec.record if count else 0

    def _label(self, phase: int, place: Place, count: int) -> Label:
        return Label(self._codec.number, BLOCK, place.bucket, phase, place.step, count)

    def _bytes(self, name: str, size: int) -> V:
        """The device memory of this name, made longer when it must be."""
        known = self._memory.get(name)
        if known is None or known.size < size:
            if known is not None:
                known.release()
            self._memory[name] = known = self._codec.bytes(max(size, 1))
        return known

    def _staged(self, size: int) -> Bytes | None:
        """Host memory in which messages are put together."""
        if self._staging.size < size:
            self._staging = np.empty(size, np.uint8)
        return self._staging[:size] if size else None


def _part(x: V, cut: tuple[int, int]) -> V:
    return x.part(min(cut[0] * BLOCK, x.size), min(cut[1] * BLOCK, x.size))


def _split(memory: Bytes, sizes: list[int]) -> list[Bytes | None]:
    """Consecutive pieces of these sizes; None for an empty one."""
    pieces: list[Bytes | None] = []
    at = 0
    for size in sizes:
        pieces.append(memory[at : at + size] if size else None)
        at += size
    return pieces
