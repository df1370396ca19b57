"""New weights from rank 0 to every rank, coded as differences from what all ranks already hold.

d = Q(w - y),  y = y + d on every rank, rank 0 too. All add the same bytes, so y is the same everywhere bit for bit; and as the next
difference is taken from y, what one step's code left out is in the next one's.
"""

from __future__ import annotations

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import DeviceCodec
from mpitrain.exchange.codec_numpy import BLOCK, blocks
from mpitrain.exchange.message import HEADER, Kind, pack, unpack
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array


class Deltas:
    """Brings ranges of the master weights w, which only rank 0 has, into the weights y of all ranks."""

    def __init__(self, wire: Wire, codec: DeviceCodec, longest: int) -> None:
        self._wire, self._codec = wire, codec
        self._codes = codec.bytes(blocks(longest) * codec.record)

    def __call__(self, bucket: Bucket, y: Array, w: Array | None, step: int) -> None:
        """Update y (n,) towards w (n,), which is None on the other ranks."""
        size = blocks(y.size) * self._codec.record
        codes = self._codes.part(0, size)
        kind = Kind(self._codec.number, BLOCK, y.size, step, bucket.number)
        if w is not None:
            self._codec.encode(codes, w, minus=y)
            with codes.host() as records:
                message = pack(kind, records)
        else:
            message = np.empty(HEADER.size + size, np.uint8)
        self._wire.broadcast(message)
        if w is None:
            codes.write(unpack(message, kind, 0))
        self._codec.decode_add(y, codes, first=False)
