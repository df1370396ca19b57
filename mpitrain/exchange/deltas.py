"""Spread new weights from rank 0, coded as differences from the weights that all ranks hold.

d = Q(w - y), y = y + d on every rank, rank 0 too. All ranks add the same decoded bytes, so y is the
same on all of them, bit for bit. The next difference is taken from y again, so it contains what the
code of this step left out.
"""

from __future__ import annotations

from typing import Generic

from mpitrain.exchange.carrier import Carrier, Place
from mpitrain.exchange.codec_protocol import Codec, V, blocks
from mpitrain.mpi.hops import Hops


class Deltas(Generic[V]):
    """Moves the weights y of all ranks towards the master weights w, which only rank 0 has."""

    def __init__(self, carrier: Carrier[V], codec: Codec[V]) -> None:
        self._carrier, self._codec = carrier, codec

    def hops(self, y: V, w: V | None, place: Place) -> Hops[bool]:
        """Move y (n,) towards rank 0's w (n,); the other ranks pass None for w.

        Returns whether every block of w - y was finite.
        """
        codes = None
        if w is not None:
            codes = self._carrier.room(blocks(y.size))
            self._codec.encode(codes, w, minus=y)
        (records, at), finite = yield from self._carrier.deltas(codes, y.size, place)
        self._codec.decode_add(y, records, False, at)
        return finite
