"""Records that travel through memory which the ranks of a host share: for devices with memory of
their own, which copy to it and from it by themselves.

By messages two H200 took 5 ms for the codes of 8 MiB: most of it the processor's copies into
messages, their checksums and MPI's own copies. Nothing changes bytes between two copies here, so
there are no checksums.

The records of a vector lie behind their first bytes (heads.cl), from which the host has the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol

import numpy as np

from mpitrain.exchange.carrier import Cut, Place, Records
from mpitrain.exchange.codec_protocol import Bounds, Bytes, Codec, V, blocks
from mpitrain.exchange.message import DELTAS, MEANS, PARTS
from mpitrain.exchange.reach import Reach, reach
from mpitrain.exchange.window import Host, SlotUse
from mpitrain.job.cut import round_up, shards
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import ALIGNMENT
from mpitrain.runtime.device import Device

LEFT = 5
"""Transfer's lane for barriers after which memory may be written again. The others have the lanes
of messages, which have the numbers of the window's barriers (BARRIERS): a trace names them so."""
NOTE_BYTES = 64
"""Bytes beside the records, a line of the cache, for the bound of a rank's means."""


class HeadedCodec(Codec[V], Protocol[V]):
    """A codec whose records begin with a byte that tells their bound."""

    def heads(self, heads: V, codes: V, count: int) -> None:
        """heads = the first bytes of `count` records."""

    def bounds_of(self, heads: Bytes) -> Bounds:
        """As `bounds`, of such bytes in host memory."""


class ByMemory(Generic[V]):
    """A slot of the shared memory, for one vector at a time."""

    def __init__(
        self,
        host: Host,
        codec: HeadedCodec[V],
        within: Reach[V],
        slices: Sequence[Bytes],
        longest_blocks: int,
        free_after_mean: bool,
    ) -> None:
        """within: how this rank's vectors get into shared memory. slices: every rank's part of this
        slot. longest_blocks: of the longest vector. free_after_mean: whether another vector may
        have the slot then; otherwise after the changes of weights that follow."""
        self.rank, self.size = host.rank, host.size
        self._host, self._codec, self._reach = host, codec, within
        whole, shard = _areas(codec.record, longest_blocks, host.size)
        self._slices = slices
        """Of a rank: its whole vector, or rank 0's changes."""
        self._means = [each[whole : whole + shard] for each in slices]
        self._notes = [each[whole + shard :].view(np.float64) for each in slices]
        self._own = codec.bytes(whole)
        self._incoming = codec.bytes(max(whole, (host.size - 1) * shard))
        self._use, self._free_after_mean = SlotUse(), free_after_mean

    def room(self, count: int) -> V:
        start, stop = _records(self._codec.record, count)
        return self._own.part(start, stop)

    def parts(
        self, codes: V, gives: Sequence[Cut], wants: Cut, length: int, place: Place
    ) -> Hops[tuple[Sequence[Records[V]], Bounds]]:
        host, codec, (first, last), count = self._host, self._codec, wants, blocks(length)
        start, stop = _records(codec.record, count)
        yield self._use
        self._use.taken = True
        read = any(b > a for rank, (a, b) in enumerate(gives) if rank != self.rank)
        yield from self._put(codes, self._slices[self.rank], count, stop if read else count)
        yield host.start_barrier(PARTS, stop if read else 0)
        bounds = codec.bounds_of(self._slices[self.rank][first:last])
        for rank, each in enumerate(self._slices):
            if rank != self.rank:
                bounds = bounds + codec.bounds_of(each[first:last])
        begin, end = start + first * codec.record, start + last * codec.record
        came = yield from self._take([each[begin:end] for each in self._slices])
        came[self.rank] = codes, first * codec.record
        if self._free_after_mean and self.size == 2:
            self._leave()
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
        codec, mine, wanted = self._codec, self._means[self.rank], to_all or self.rank == 0
        counts = [stop - start for start, stop in cuts]
        count = counts[self.rank]
        _, stop = _records(codec.record, count)
        read = to_all or self.rank > 0
        yield from self._put(codes, mine, count, stop if read else count)
        self._notes[self.rank][0] = (bounds + codec.bounds_of(mine[:count])).max(initial=0.0)
        yield self._host.start_barrier(MEANS, stop if read else 0)
        bound = max(float(each[0]) for each in self._notes) if wanted else 0.0
        theirs = [
            each[slice(*_records(codec.record, n if wanted else 0))]
            for each, n in zip(self._means, counts, strict=True)
        ]
        came = yield from self._take(theirs)
        came[self.rank] = codes, 0
        if self._free_after_mean:
            self._leave()
        return (came if wanted else []), bound

    def deltas(self, codes: V | None, length: int, place: Place) -> Hops[tuple[Records[V], bool]]:
        shared, count = self._slices[0], blocks(length)
        start, stop = _records(self._codec.record, count)
        if self._free_after_mean:
            yield self._use
            self._use.taken = True
        if codes is not None:
            yield from self._put(codes, shared, count, stop)
        yield self._host.start_barrier(DELTAS, stop if codes is not None else 0)
        finite = bool(np.isfinite(self._codec.bounds_of(shared[:count])).all())
        if codes is not None:
            records = codes, 0
        else:
            records = self._incoming, 0
            into = self._incoming.part(0, stop - start)
            yield from self._reach.take([(into, shared[start:stop])])
        self._leave()
        return records, finite

    def _put(self, codes: V, shared: Bytes, count: int, stop: int) -> Hops[None]:
        """Share `count` records and their first bytes: of both the first `stop` bytes."""
        self._codec.heads(self._own.part(0, count), codes, count)
        yield from self._reach.put(self._own, shared, [(0, stop)], queued=True)

    def _take(self, theirs: Sequence[Bytes]) -> Hops[list[Records[V]]]:
        """Bring what each other rank shares to the device, by rank."""
        at, pairs, came = 0, [], []
        for rank, each in enumerate(theirs):
            came.append((self._incoming, at))
            if rank != self.rank and each.size:
                pairs.append((self._incoming.part(at, at + each.size), each))
                at += round_up(each.size, ALIGNMENT)
        yield from self._reach.take(pairs)
        return came

    def _leave(self) -> None:
        self._use.leave(self._host.start_barrier(LEFT))


class SharedCodes(Generic[V]):
    """The shared memory for the codes of several vectors at once."""

    def __init__(
        self,
        host: Host,
        device: Device,
        codec: HeadedCodec[V],
        longest: int,
        count: int,
        free_after_mean: bool,
    ) -> None:
        """For `count` vectors of up to `longest` values. Collective; raises UserError on every rank
        where ranks cannot share so much memory."""
        stride = _stride(codec.record, blocks(longest), host.size)
        slices = [each.view(np.uint8) for each in host.share(count * stride // 4)]
        self._reach: Reach[V] = reach(device, slices, 0)
        self.lacks = self._reach.lacks
        """What makes it slower than it could be; empty if nothing does."""
        self.carriers = [
            ByMemory(
                host, codec, self._reach, [each[n * stride : (n + 1) * stride] for each in slices],
                blocks(longest), free_after_mean,
            )
            for n in range(count)
        ]  # fmt: skip

    def close(self) -> None:
        """Let go of the shared memory."""
        self._reach.close()


def pays(wire: Wire, device: Device) -> bool:
    """Whether records go faster so than by messages. Collective."""
    if wire.ranks.size == 1 or not wire.ranks.one_host:
        return False
    return not all(wire.agree.gather_facts(device.shares_memory))


def floats(record: int, longest: int, count: int, size: int) -> int:
    """How many float32 of shared memory the slots of each of `size` ranks take."""
    return count * _stride(record, blocks(longest), size) // 4


def _stride(record: int, longest_blocks: int, size: int) -> int:
    """Bytes of a rank's part of one slot."""
    return round_up(sum(_areas(record, longest_blocks, size)) + NOTE_BYTES, ALIGNMENT)


def _areas(record: int, longest_blocks: int, size: int) -> tuple[int, int]:
    """Bytes of a vector of so many blocks, and of the largest shard of one."""
    largest = max(stop - start for start, stop in shards(longest_blocks, size)) if size > 2 else 0
    whole, shard = (round_up(_records(record, n)[1], ALIGNMENT) for n in (longest_blocks, largest))
    return whole, shard


def _records(record: int, count: int) -> Cut:
    """Bytes [start, stop) of so many records, behind their first bytes."""
    start = round_up(count, ALIGNMENT)
    return start, start + count * record
