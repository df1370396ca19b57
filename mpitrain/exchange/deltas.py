"""New weights from rank 0 to every rank, coded as differences from what all ranks already hold.

d = Q(w - y),  y = y + d on every rank, rank 0 too. All add the same bytes, so y is the same everywhere bit for bit; and as the next
difference is taken from y, what one step's code left out is in the next one's.
"""

from __future__ import annotations

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec import Codec
from mpitrain.exchange.message import HEADER, Kind, pack, unpack
from mpitrain.exchange.table import BLOCK
from mpitrain.exchange.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device


class Deltas:
    """Brings ranges of the master weights w, which only rank 0 has, into the weights y of all ranks."""

    def __init__(self, wire: Wire, device: Device, codec: Codec, longest: int) -> None:
        self._wire, self._codec = wire, codec
        codes, scales = codec.sizes(longest)
        self._codes, self._scales = device.empty((codes,), np.uint8), device.empty((scales,), np.uint8)

    def __call__(self, bucket: Bucket, y: Array, w: Array | None, step: int) -> None:
        """Update y (n,) towards w (n,), which is None on the other ranks."""
        n = y.size
        sizes = self._codec.sizes(n)
        codes, scales = self._codes.part(0, sizes[0]), self._scales.part(0, sizes[1])
        kind = Kind(self._codec.number, BLOCK, n, step, bucket.number)
        if w is not None:
            self._codec.encode(codes, scales, w, minus=y)
            with codes.host() as c, scales.host() as s:
                message = pack(kind, s, c)
        else:
            message = np.empty(HEADER.size + sum(sizes), np.uint8)
        self._wire.broadcast(message)
        if w is None:
            found = unpack(message, kind, sizes[1], 0)
            scales.write(found[0])
            codes.write(found[1])
        self._codec.decode(y, codes, scales, add=True)
