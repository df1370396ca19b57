"""Spread new weights from rank 0, coded as differences from the weights that all ranks hold.

d = Q(w - y), y = y + d on every rank, rank 0 too. All ranks add the same decoded bytes, so y is the
same on all of them, bit for bit. The next difference is taken from y again, so it contains what the
code of this step left out.
"""

from __future__ import annotations

from typing import Generic, Protocol

import numpy as np

from mpitrain.exchange.codec_protocol import BLOCK, Bytes, Codec, V, blocks
from mpitrain.exchange.mean import Place
from mpitrain.exchange.message import DELTAS, HEADER, Label, check, seal
from mpitrain.mpi.hops import Hops, Pending


class Broadcasts(Protocol):
    """What this module needs of the ranks; mpi's Transfer has it."""

    rank: int

    def start_broadcast(self, array: Bytes, lane: int) -> Pending: ...

    def start_star(self, array: Bytes, lane: int) -> Pending: ...


class Deltas(Generic[V]):
    """Moves the weights y of all ranks towards the master weights w, which only rank 0 has."""

    def __init__(
        self, transfer: Broadcasts, codec: Codec[V], longest: int, star: bool = False
    ) -> None:
        """longest: values in the longest range.

        star: rank 0 sends to each of the other ranks, as in the paper, instead of a broadcast.
        """
        self._start = transfer.start_star if star else transfer.start_broadcast
        self._codec = codec
        self._codes = codec.bytes(max(1, blocks(longest) * codec.record))
        self._message = np.empty(HEADER + blocks(longest) * codec.record, np.uint8)

    def hops(self, y: V, w: V | None, place: Place) -> Hops[bool]:
        """Move y (n,) towards rank 0's w (n,); the other ranks pass None for w.

        Returns whether every block of w - y was finite.
        """
        size = blocks(y.size) * self._codec.record
        label = Label(self._codec.number, BLOCK, place.bucket, DELTAS, place.step, y.size)
        message = self._message[: HEADER + size]
        if w is not None:
            self._codec.encode(self._codes, w, minus=y)
            with self._codes.host() as codes:
                message[HEADER:] = codes[:size]
            seal(message, label)
        yield self._start(message, DELTAS)
        if w is None:
            check(message, label, 0)
            with self._codes.part(0, size).host(write=True, read=False) as codes:
                codes[:] = message[HEADER:]
        self._codec.decode_add(y, self._codes, first=False)
        return bool(np.isfinite(self._codec.bounds(message[HEADER:])).all())
