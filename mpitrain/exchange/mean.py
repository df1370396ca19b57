"""Average coded gradients: every rank's sums in, the mean over all images out.

Each rank owns a shard of the blocks. It receives the codes of that shard from all other ranks,
decodes them and its own, adds them up in rank order, codes the mean, and sends it to rank 0 or to
all ranks. Every rank, the owner too, uses only decoded bytes, so that all have the same bits.
Values are quantised twice, however many ranks there are. Two ranks swap whole buckets, and quantise
once.
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


class AllToAll(Protocol):
    """What this module needs of the ranks; mpi's Transfer has it."""

    rank: int
    size: int
    numbers: Sequence[int]
    """How error messages call the ranks."""

    def start_all_to_all(
        self, outgoing: list[Bytes | None], incoming: list[Bytes | None], lane: int
    ) -> Pending: ...


@dataclass(frozen=True)
class Place:
    """Which bucket of which step a message belongs to."""

    step: int
    bucket: int


def own_values(size_of_vector: int, rank: int, size: int) -> tuple[int, int]:
    """The range of a coded vector whose mean this rank makes and codes; none with two ranks."""
    if size <= 2:
        return 0, 0
    start, stop = shards(blocks(size_of_vector), size)[rank]
    return min(start * BLOCK, size_of_vector), min(stop * BLOCK, size_of_vector)


class Mean(Generic[V]):
    """Averages one vector at a time, in place; keeps the memory for codes between vectors."""

    def __init__(
        self, transfer: AllToAll, codec: Codec[V], to_all: bool, star: bool = False
    ) -> None:
        """to_all: every rank gets the mean; otherwise rank 0 alone.

        star: rank 0 receives whole vectors, as in the paper, instead of each rank a shard.
        """
        self._transfer, self._codec, self._to_all = transfer, codec, to_all
        self._whole = star or transfer.size == 2
        self._memory: dict[str, V] = {}
        self._host_bytes = np.empty(0, np.uint8)
        self.watched = False
        """Whether to count into `flushed` the values that are not zero and are coded as zero."""
        self.flushed = 0

    def hops(
        self, x: V, images: int, place: Place, residual: V | None = None, owned: V | None = None
    ) -> Hops[float]:
        """x becomes the sum over ranks divided by `images` on the ranks that get the mean.

        On the other ranks x is overwritten. residual: of the sender, as long as x. owned: of the
        owner, as long as own_values(x). Returns a bound of the error of the mean's values: the
        largest over blocks of (the senders' bounds / `images` + the owner's bound). It is infinity
        if a block was not finite, and 0 on ranks that do not get the mean.
        """
        transfer, codec, whole = self._transfer, self._codec, self._whole
        cuts = (
            [(0, blocks(x.size))] * transfer.size
            if whole
            else shards(blocks(x.size), transfer.size)
        )
        codes = self._bytes("codes", blocks(x.size) * codec.record)
        codec.encode(codes, x, residual)

        first, last = cuts[transfer.rank]
        if whole and transfer.rank > 0 and not self._to_all:
            first, last = 0, 0  # only rank 0 makes the mean
        shard = x.part(min(first * BLOCK, x.size), min(last * BLOCK, x.size))
        receivers = [
            peer != transfer.rank and (self._to_all or not whole or peer == 0)
            for peer in range(transfer.size)
        ]
        sizes = [self._message_bytes(last - first)] * transfer.size
        incoming = self._bytes("parts", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True, read=False))
            if self.watched and residual is not None:
                with residual.host() as left_out:
                    nothing = codec.zeros(mine[: blocks(x.size) * codec.record])[: x.size]
                    self.flushed = int(np.count_nonzero(left_out[nothing]))
            outgoing = self._parts(mine, x.size, cuts, receivers, place)
            into = _split(theirs, sizes)
            into[transfer.rank] = None
            yield transfer.start_all_to_all(outgoing, into, PARTS)
            bounds = codec.bounds(mine[first * codec.record : last * codec.record])
            for sender, message in enumerate(into):
                if message is not None:
                    check(message, self._label(PARTS, place, shard.size), transfer.numbers[sender])
                    bounds = bounds + codec.bounds(message[HEADER:])
        for sender in range(transfer.size if shard.size else 0):
            if sender == transfer.rank:
                codec.decode_add(shard, codes, sender == 0, first * codec.record)
            else:
                codec.decode_add(shard, incoming, sender == 0, sender * sizes[0] + HEADER)
        codec.scale(shard, 1 / images)
        bounds = bounds / images
        if whole:
            return float(bounds.max(initial=0.0))
        return (yield from self._share_mean(x, shard, cuts, bounds, place, owned))

    def _share_mean(
        self,
        x: V,
        shard: V,
        cuts: list[tuple[int, int]],
        bounds: NDArray[np.float64],
        place: Place,
        owned: V | None,
    ) -> Hops[float]:
        """Code this rank's shard of the mean, send it, and decode the shards of all ranks."""
        transfer, codec = self._transfer, self._codec
        codes = self._bytes(
            "codes", (cuts[transfer.rank][1] - cuts[transfer.rank][0]) * codec.record
        )
        if shard.size:
            codec.encode(codes, shard, owned)
        wanted = self._to_all or transfer.rank == 0
        sizes = [self._message_bytes(stop - start) if wanted else 0 for start, stop in cuts]
        incoming = self._bytes("means", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True, read=False))
            bound = float(
                (bounds + codec.bounds(mine[: bounds.size * codec.record])).max(initial=0.0)
            )
            message = self._host_memory(self._message_bytes(bounds.size))
            if message is not None:
                message[HEADER:] = mine[: bounds.size * codec.record]
                seal(message, self._label(MEANS, place, shard.size), bound)
            outgoing = [
                message if peer != transfer.rank and (self._to_all or peer == 0) else None
                for peer in range(transfer.size)
            ]
            into = _split(theirs, sizes)
            into[transfer.rank] = None
            yield transfer.start_all_to_all(outgoing, into, MEANS)
            for sender, message in enumerate(into):
                if message is not None:
                    size = _part(x, cuts[sender]).size
                    bound = max(
                        bound,
                        check(message, self._label(MEANS, place, size), transfer.numbers[sender]),
                    )
        if not wanted:
            return 0.0
        at = 0
        for sender, cut in enumerate(cuts):
            part = _part(x, cut)
            if part.size and sender == transfer.rank:
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
        """A complete message for each receiver: the header, and its shard of this rank's codes."""
        record = self._codec.record
        lengths = [
            self._message_bytes(stop - start) if to else 0
            for (start, stop), to in zip(cuts, receivers, strict=True)
        ]
        self._host_memory(sum(lengths))
        messages = _split(self._host_bytes, lengths)
        for message, (start, stop) in zip(messages, cuts, strict=True):
            if message is not None:
                message[HEADER:] = mine[start * record : stop * record]
                seal(message, self._label(PARTS, place, min(stop * BLOCK, size) - start * BLOCK))
        return messages

    def _message_bytes(self, count: int) -> int:
        """Bytes of a message with so many blocks; 0 if there are none, for then none is sent."""
        return HEADER + count * self._codec.record if count else 0

    def _label(self, phase: int, place: Place, count: int) -> Label:
        return Label(self._codec.number, BLOCK, place.bucket, phase, place.step, count)

    def _bytes(self, name: str, size: int) -> V:
        """The memory of this name, on the device, replaced by a longer one if it is too short."""
        known = self._memory.get(name)
        if known is None or known.size < size:
            if known is not None:
                known.release()
            self._memory[name] = known = self._codec.bytes(max(size, 1))
        return known

    def _host_memory(self, size: int) -> Bytes | None:
        """Host memory in which messages are made; None for no bytes."""
        if self._host_bytes.size < size:
            self._host_bytes = np.empty(size, np.uint8)
        return self._host_bytes[:size] if size else None


def _part(x: V, cut: tuple[int, int]) -> V:
    """The values of x in a range of blocks."""
    return x.part(min(cut[0] * BLOCK, x.size), min(cut[1] * BLOCK, x.size))


def _split(memory: Bytes, sizes: list[int]) -> list[Bytes | None]:
    """Consecutive pieces of these sizes; None for an empty one."""
    pieces: list[Bytes | None] = []
    at = 0
    for size in sizes:
        pieces.append(memory[at : at + size] if size else None)
        at += size
    return pieces
