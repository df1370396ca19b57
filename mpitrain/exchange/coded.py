"""The strategies `dynamic8` and `float16`: each value in 8 or 16 bits.

What rounding leaves out is kept as a residual and added in the next step. Of the ranks that share a
host one codes for all of them, the leader. Buckets that may not be coded are exchanged in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.by_memory import SharedCodes, floats, pays
from mpitrain.exchange.by_message import ByMessage
from mpitrain.exchange.carrier import Carrier, Place
from mpitrain.exchange.codec import DeviceCodec, make_codec
from mpitrain.exchange.codec import Dynamic8 as Dynamic8Codec
from mpitrain.exchange.deltas import Deltas
from mpitrain.exchange.leaders import Leaders
from mpitrain.exchange.mean import Mean, own_values
from mpitrain.exchange.message import DELTAS, MEANS, PARTS
from mpitrain.exchange.move import Move
from mpitrain.exchange.plain import Float32
from mpitrain.exchange.residuals import Residuals
from mpitrain.exchange.strategy import Parts, Sampled, Strategy, Turn
from mpitrain.exchange.stream import BUCKETS_AT_ONCE
from mpitrain.mpi.hops import Hops
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

LONGER = 8
"""How many times as long as usual buckets are whose codes go by shared memory: copying them then
takes as long as the host's work on a bucket."""
PIECE = 1 << 22
"""Values of a residual that are written to the device at once (16 MiB)."""


class Coded(Strategy):
    """What all coded strategies have in common; a subclass names its codec."""

    lossy = True
    left_out = "sender"
    lanes: ClassVar[Mapping[int, str]] = {
        PARTS: "codes of gradients",
        MEANS: "codes of means",
        DELTAS: "codes of changes of weights",
        **Float32.lanes,
    }
    codec: ClassVar[str]
    """The codec's name, for make_codec."""
    by_memory: ClassVar[bool] = False
    """Whether its codes may go by the memory that ranks of a host share, where that pays."""
    uncoded: ClassVar[type[Strategy]] = Float32
    """The strategy for buckets that may not be coded."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._uncoded = self.uncoded(parts)
        coded = [bucket for bucket in parts.buckets if bucket.coded]
        self._nth = {bucket.number: nth for nth, bucket in enumerate(coded)}
        if coded and parts.master is None and parts.wire.ranks.rank == 0 and not parts.to_all:
            raise ValueError("rank 0 needs master weights beside the weights that all ranks share")
        longest = max((bucket.size for bucket in coded), default=0)
        everyone = self.root_only or not coded
        self._leaders = Leaders(
            parts.wire,
            longest,
            everyone=everyone,
            apart=parts.apart and not parts.to_all,
            device=parts.device,
        )
        self._slots: list[_Slot] = []
        self._residuals: dict[str, Array] = {}
        self._places: dict[int, tuple[int, int, int, int]] = {}
        self._sample: int | None = None
        self._flushed = 0
        if coded:
            self._residuals = {name: parts.device.zeros((0,)) for name in ("sender", "owner")}
        self._shared: SharedCodes[Array] | None = None
        self._lacks_memory = False
        if coded and self._leaders.wire:
            codec = make_codec(self.codec, parts.device)
            self._prepare(self._leaders.wire, codec, coded, longest)

    @classmethod
    def longest(cls, wire: Wire, device: Device, usual: int) -> int:
        longer = LONGER * usual
        if not (cls.by_memory and pays(wire, device)):
            return usual
        room = _has_room(wire, Dynamic8Codec.record, longer, BUCKETS_AT_ONCE)
        return longer if room else usual

    def _prepare(self, wire: Wire, codec: DeviceCodec, coded: list[Bucket], longest: int) -> None:
        """Make what only a rank that codes needs. wire: between these ranks."""
        star, to_all, count = self.root_only, self.parts.to_all, min(BUCKETS_AT_ONCE, len(coded))
        carriers: Sequence[Carrier[Array]] = self._carriers(wire, codec, longest, count)
        for carrier in carriers:
            deltas = None if to_all else Deltas(carrier, codec)
            self._slots.append(_Slot(Mean(carrier, codec, to_all, star), deltas))
        sent = owned = 0
        for bucket in coded:
            start, stop = self._own(bucket.size)
            self._places[bucket.number] = (sent, sent + bucket.size, owned, owned + stop - start)
            sent, owned = sent + bucket.size, owned + stop - start
        sizes = {"sender": sent, "owner": owned}
        zeros = self.parts.device.zeros
        self._residuals = {name: zeros((size,)) for name, size in sizes.items()}

    def _carriers(
        self, wire: Wire, codec: DeviceCodec, longest: int, count: int
    ) -> Sequence[Carrier[Array]]:
        parts = self.parts
        if self.by_memory and pays(wire, parts.device):
            assert isinstance(codec, Dynamic8Codec)
            self._lacks_memory = not _has_room(wire, codec.record, longest, count)
            if not self._lacks_memory:
                free_after_mean = parts.to_all or parts.apart
                self._shared = SharedCodes(
                    wire.shared, parts.device, codec, longest, count, free_after_mean
                )
                return self._shared.carriers
        return [ByMessage(wire.transfer, codec, self.root_only) for _ in range(count)]

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        nth = self._nth.get(bucket.number)
        if nth is None:
            return (yield from self._uncoded.average(bucket, images, turn))
        gradient, bound = self.parts.gradients[bucket.number], 0.0
        yield from self._leaders.gather(gradient, nth)
        if self._slots:
            sent, end, owned, last = self._places[bucket.number]
            residual, owner = self._residuals["sender"].part(sent, end), self._owner(owned, last)
            mean = self._slots[nth % len(self._slots)].mean
            mean.watched = bucket.number == self._sample
            place = Place(turn.step, bucket.number)
            bound = yield from mean.hops(gradient, images, place, residual, owner)
            if mean.watched:
                self._flushed = mean.flushed
        if self.parts.to_all:
            bound = yield from self._leaders.spread(gradient, nth, bound)
        return bound

    def move(self, bucket: Bucket, images: int) -> Move | None:
        coded = bucket.number in self._nth
        return super().move(bucket, images) if coded else self._uncoded.move(bucket, images)

    def spread(self, bucket: Bucket, turn: Turn) -> Hops[bool]:
        """Every rank's weights move towards rank 0's exact ones by the same decoded changes.

        A leader gives its host's ranks its shared weights, to which only decoded bytes were added.
        """
        nth, finite = self._nth.get(bucket.number), True
        if nth is None:
            return (yield from self._uncoded.spread(bucket, turn))
        y, w = self.weights(bucket)
        if self._slots:
            deltas = self._slots[nth % len(self._slots)].deltas
            assert deltas is not None
            finite = yield from deltas.hops(y, w, Place(turn.step, bucket.number))
        # Here the other ranks learn that a gradient was not finite, for then the weights are not.
        note = yield from self._leaders.spread(y, nth, 0.0 if finite else np.inf)
        return bool(np.isfinite(note))

    def close(self) -> None:
        self._leaders.close()
        if self._shared:
            self._shared.close()

    def __str__(self) -> str:
        leaders = self._leaders
        if leaders.lacks_memory:
            return "every rank codes, as hosts lack shared memory"
        if leaders.count < self.parts.wire.ranks.size:
            return f"between {leaders.count} hosts, shared memory within"
        if self._lacks_memory:
            return "by messages, as the host lacks shared memory"
        if self._shared:
            lacks = self._shared.lacks
            return f"through shared memory{f': {lacks}' if lacks else ''}"
        return ""

    @property
    def coders(self) -> Wire | None:
        return self._leaders.wire if self._nth else None

    @property
    def codes(self) -> bool:
        return bool(self._nth)

    @property
    def coder_index(self) -> int:
        return self._leaders.number

    @property
    def coder_count(self) -> int:
        return self._leaders.count

    def residuals(self) -> dict[str, Array]:
        return dict(self._residuals)

    def restore(self, old: Residuals) -> None:
        rank, size, owners = self.coder_index, self.coder_count, self.shares_owned
        for name, array in self._residuals.items():
            if name == "owner" and array.size:
                array.write(old.owner(rank, size))
            elif array.size:
                for start in range(0, array.size, PIECE):
                    stop = min(start + PIECE, array.size)
                    array.part(start, stop).write(old.sender(rank, size, start, stop, owners))

    def sample(self, number: int) -> None:
        coded = sorted(self._nth) if self.coders else []
        self._sample = coded[number % len(coded)] if coded else None

    def sampled(self) -> Sampled | None:
        if self._sample is None:
            return None
        number, self._sample = self._sample, None
        sent, end, owned, last = self._places[number]
        sender = self._residuals["sender"].part(sent, end)
        start, _ = self._own(end - sent)
        return Sampled(number, sender, self._owner(owned, last), start, self._flushed)

    def _own(self, size: int) -> tuple[int, int]:
        """The range of a coded bucket of this size whose mean this rank makes."""
        if self.root_only:
            return 0, 0
        return own_values(size, self.coder_index, self.coder_count)

    def _owner(self, start: int, stop: int) -> Array | None:
        return self._residuals["owner"].part(start, stop) if stop > start else None


class Dynamic8(Coded):
    """8 bits a value: Dettmers' dynamic tree code (arXiv 1511.04561)."""

    codec = "dynamic8"
    by_memory = True


class Float16(Coded):
    """16 bits a value: IEEE half precision."""

    codec = "float16"


def _has_room(wire: Wire, record: int, longest: int, count: int) -> bool:
    """Whether the codes of `count` vectors fit into shared memory. Collective."""
    return wire.shared.has_room(floats(record, longest, count, wire.ranks.size))


@dataclass(frozen=True)
class _Slot:
    """The memory of one coded bucket that is being exchanged."""

    mean: Mean[Array]
    deltas: Deltas[Array] | None
    """None if every rank gets the mean."""
