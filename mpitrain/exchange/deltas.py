"""New weights from rank 0 to every rank, coded as differences from what all ranks already hold.

d = Q(w - y), y = y + d on every rank, rank 0 too. All add the same bytes, so y is the same
everywhere bit for bit; and as the next difference is taken from y, what one step's code left out is
in the next one's.
"""

from __future__ import annotations

from typing import Generic, Protocol

import numpy as np

from mpitrain.exchange.codec_protocol import BLOCK, Bytes, Codec, V, blocks
from mpitrain.exchange.mean import Place
from mpitrain.exchange.message import DELTAS, HEADER, Label, check, seal
from mpitrain.mpi.hops import Hops, Pending


class Broadcasts(Protocol):
    """The way of bytes that this module needs; mpi's Transfer has it."""

    rank: int

    def start_broadcast(self, array: Bytes, lane: int) -> Pending: ...

    def start_star(self, array: Bytes, lane: int) -> Pending: ...


class Deltas(Generic[V]):
    """Brings ranges of the master weights w, which only rank 0 has, into the weights y of all
    ranks."""

    def __init__(self, wire: Broadcasts, codec: Codec[V], longest: int, star: bool = False) -> None:
        """longest: values in the longest range. star: rank 0 sends to each of the others, as in the
        paper."""
        self._start = wire.start_star if star else wire.start_broadcast
        self._codec = codec
        self._codes = codec.bytes(max(1, blocks(longest) * codec.record))
        self._staging = np.empty(HEADER + blocks(longest) * codec.record, np.uint8)

    def hops(self, y: V, w: V | None, place: Place) -> Hops[bool]:
        """Move y (n,) towards rank 0's w (n,); the others give None. Returns whether every block of
        w - y was finite."""
        size = blocks(y.size) * self._codec.record
        label = Label(self._codec.number, BLOCK, place.bucket, DELTAS, place.step, y.size)
        message = self._staging[: HEADER + size]
        if w is not None:
            self._codec.encode(self._codes, w, minus=y)
            with self._codes.host() as codes:
                message[HEADER:] = codes[:size]
            seal(message, label)
        yield self._start(message, DELTAS)
        if w is None:
            check(message, label, 0)
            with self._codes.part(0, size).host(write=True) as codes:
                codes[:] = message[HEADER:]
        self._codec.decode_add(y, self._codes, first=False)
        return bool(np.isfinite(self._codec.bounds(message[HEADER:])).all())
