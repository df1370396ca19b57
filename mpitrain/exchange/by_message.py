"""Records that travel as messages of MPI, each with a header and a checksum (message.py)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Generic, Protocol

import numpy as np

from mpitrain.exchange.carrier import Cut, Place, Records
from mpitrain.exchange.codec_protocol import BLOCK, Bounds, Bytes, Codec, V, blocks
from mpitrain.exchange.message import DELTAS, HEADER, MEANS, PARTS, Label, check, seal
from mpitrain.mpi.hops import Hops, Pending


class Ranks(Protocol):
    """What this module needs of the ranks; mpi's Transfer has it."""

    rank: int
    size: int
    numbers: Sequence[int]
    """How error messages call the ranks."""

    def start_all_to_all(
        self, outgoing: list[Bytes | None], incoming: list[Bytes | None], lane: int
    ) -> Pending: ...

    def start_broadcast(self, array: Bytes, lane: int) -> Pending: ...

    def start_star(self, array: Bytes, lane: int) -> Pending: ...


class ByMessage(Generic[V]):
    """Keeps the memory for codes and messages between vectors."""

    def __init__(self, transfer: Ranks, codec: Codec[V], star: bool = False) -> None:
        """star: rank 0 sends changes to each of the other ranks, as in the paper, instead of a
        broadcast."""
        self.rank, self.size = transfer.rank, transfer.size
        self._transfer, self._codec = transfer, codec
        self._broadcast = transfer.start_star if star else transfer.start_broadcast
        self._memory: dict[str, V] = {}
        self._host_bytes = np.empty(0, np.uint8)

    def room(self, count: int) -> V:
        return self._bytes("codes", count * self._codec.record)

    def parts(
        self, codes: V, gives: Sequence[Cut], wants: Cut, length: int, place: Place
    ) -> Hops[tuple[Sequence[Records[V]], Bounds]]:
        transfer, codec, (first, last) = self._transfer, self._codec, wants
        sizes = [self._message_bytes(last - first)] * self.size
        incoming = self._bytes("parts", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True, read=False))
            outgoing = self._parts(mine, length, gives, place)
            into = _split(theirs, sizes)
            into[self.rank] = None
            yield transfer.start_all_to_all(outgoing, into, PARTS)
            bounds = codec.bounds(mine[first * codec.record : last * codec.record])
            label = self._label(PARTS, place, _values(wants, length))
            for sender, message in enumerate(into):
                if message is not None:
                    check(message, label, transfer.numbers[sender])
                    bounds = bounds + codec.bounds(message[HEADER:])
        came = [(incoming, sender * sizes[0] + HEADER) for sender in range(self.size)]
        came[self.rank] = codes, first * codec.record
        return came, bounds

    def means(
        self,
        codes: V,
        cuts: Sequence[Cut],
        to_all: bool,
        bounds: Bounds,
        length: int,
        place: Place,
    ) -> Hops[tuple[Sequence[Records[V]], float]]:
        transfer, codec, (first, last) = self._transfer, self._codec, cuts[self.rank]
        wanted, nbytes = to_all or self.rank == 0, (last - first) * codec.record
        sizes = [self._message_bytes(stop - start) if wanted else 0 for start, stop in cuts]
        incoming = self._bytes("means", sum(sizes)).part(0, sum(sizes))
        with ExitStack() as stack:
            mine = stack.enter_context(codes.host())
            theirs = stack.enter_context(incoming.host(write=True, read=False))
            bound = float((bounds + codec.bounds(mine[:nbytes])).max(initial=0.0))
            message = self._host_memory(self._message_bytes(last - first))
            if message is not None:
                message[HEADER:] = mine[:nbytes]
                label = self._label(MEANS, place, _values(cuts[self.rank], length))
                seal(message, label, bound)
            outgoing = [
                message if peer != self.rank and (to_all or peer == 0) else None
                for peer in range(self.size)
            ]
            into = _split(theirs, sizes)
            into[self.rank] = None
            yield transfer.start_all_to_all(outgoing, into, MEANS)
            for sender, message in enumerate(into):
                if message is not None:
                    label = self._label(MEANS, place, _values(cuts[sender], length))
                    bound = max(bound, check(message, label, transfer.numbers[sender]))
        if not wanted:
            return [], 0.0
        starts = np.cumsum([0, *sizes]).tolist()
        came = [(incoming, start + HEADER) for start in starts[: self.size]]
        came[self.rank] = codes, 0
        return came, bound

    def deltas(self, codes: V | None, length: int, place: Place) -> Hops[tuple[Records[V], bool]]:
        size, label = self._message_bytes(blocks(length)), self._label(DELTAS, place, length)
        message = self._host_memory(size)
        assert message is not None, "a vector has values"
        if codes is not None:
            with codes.host() as mine:
                message[HEADER:] = mine[: size - HEADER]
            seal(message, label)
        yield self._broadcast(message, DELTAS)
        if codes is None:
            check(message, label, 0)
            codes = self.room(blocks(length))
            with codes.part(0, size - HEADER).host(write=True, read=False) as records:
                records[:] = message[HEADER:]
        return (codes, 0), bool(np.isfinite(self._codec.bounds(message[HEADER:])).all())

    def _parts(
        self, mine: Bytes, length: int, gives: Sequence[Cut], place: Place
    ) -> list[Bytes | None]:
        """A complete message for each receiver: the header, and its cut of this rank's codes."""
        record, lengths = self._codec.record, [self._message_bytes(b - a) for a, b in gives]
        lengths[self.rank] = 0
        self._host_memory(sum(lengths))
        messages = _split(self._host_bytes, lengths)
        for message, cut in zip(messages, gives, strict=True):
            if message is not None:
                message[HEADER:] = mine[cut[0] * record : cut[1] * record]
                seal(message, self._label(PARTS, place, _values(cut, length)))
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


def _values(cut: Cut, length: int) -> int:
    """How many values of a vector are in a cut."""
    return min(cut[1] * BLOCK, length) - min(cut[0] * BLOCK, length)


def _split(memory: Bytes, sizes: list[int]) -> list[Bytes | None]:
    """Consecutive pieces of these sizes; None for an empty one."""
    pieces: list[Bytes | None] = []
    at = 0
    for size in sizes:
        pieces.append(memory[at : at + size] if size else None)
        at += size
    return pieces
