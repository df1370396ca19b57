"""The strategy `star-float32`: all gradients and weights go through rank 0, as in the paper.

It is there for comparisons.
"""

from __future__ import annotations

import numpy as np

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.codec_protocol import Bytes
from mpitrain.exchange.plain import LANE, Float32
from mpitrain.exchange.strategy import Turn
from mpitrain.mpi.hops import Hops


class StarFloat32(Float32):
    """Rank 0 receives every rank's whole gradient, and sends whole weights to each rank."""

    root_only = True

    def average(self, bucket: Bucket, images: int, turn: Turn) -> Hops[float]:
        transfer, x = self.parts.wire.transfer, self.parts.gradients[bucket.number]
        with x.host(write=transfer.rank == 0) as values:
            nothing: list[Bytes | None] = [None] * transfer.size
            if transfer.rank:
                mine = [values.view(np.uint8), *nothing[1:]]
                yield transfer.start_all_to_all(mine, nothing, LANE)
            else:
                others = [np.empty_like(values) for _ in range(transfer.size - 1)]
                theirs = [None, *(other.view(np.uint8) for other in others)]
                yield transfer.start_all_to_all(nothing, theirs, LANE)
                for other in others:
                    np.add(values, other, out=values)
        self.divide(bucket, images)
        return 0.0
