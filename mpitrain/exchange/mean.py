"""Average coded gradients: every rank's sums in, the mean over all images out.

Each rank owns a shard of the blocks. It receives the codes of that shard from all other ranks,
decodes them and its own, adds them up in rank order, codes the mean, and sends it to rank 0 or to
all ranks. Every rank, the owner too, uses only decoded bytes, so that all have the same bits.
Values are quantised twice, however many ranks there are. Two ranks swap whole buckets, and quantise
once.
"""

from __future__ import annotations

from typing import Generic

import numpy as np

from mpitrain.exchange.carrier import Carrier, Cut, Place
from mpitrain.exchange.codec_protocol import BLOCK, Codec, V, blocks
from mpitrain.job.cut import shards
from mpitrain.mpi.hops import Hops

NO_BLOCKS: Cut = (0, 0)
LOOKED_AT_VALUES = 1 << 19
"""The first values of a sampled bucket, which the host looks at: it need not be copied whole."""


def own_values(size_of_vector: int, rank: int, size: int) -> tuple[int, int]:
    """The range of a coded vector whose mean this rank makes and codes; none with two ranks."""
    if size <= 2:
        return 0, 0
    return _values(shards(blocks(size_of_vector), size)[rank], size_of_vector)


class Mean(Generic[V]):
    """Averages one vector at a time, in place."""

    def __init__(
        self, carrier: Carrier[V], codec: Codec[V], to_all: bool, star: bool = False
    ) -> None:
        """to_all: every rank gets the mean; otherwise rank 0 alone.

        star: rank 0 receives whole vectors, as in the paper, instead of each rank a shard.
        """
        self._carrier, self._codec, self._to_all = carrier, codec, to_all
        self._whole = star or carrier.size == 2
        self.watched = False
        """Whether to count into `flushed` those values that are not zero and are coded as zero."""
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
        carrier, codec, whole = self._carrier, self._codec, self._whole
        count = blocks(x.size)
        cuts = [(0, count)] * carrier.size if whole else shards(count, carrier.size)
        codes = carrier.room(count)
        codec.encode(codes, x, residual)
        if self.watched and residual is not None:
            self._count_flushed(codes, residual)
        if whole and not self._to_all:  # only rank 0 makes the mean
            cuts = [cuts[0], *[NO_BLOCKS] * (carrier.size - 1)]
        mine = cuts[carrier.rank]
        shard = x.part(*_values(mine, x.size))
        came, bounds = yield from carrier.parts(codes, cuts, mine, x.size, place)
        for sender, (records, at) in enumerate(came if shard.size else ()):
            codec.decode_add(shard, records, sender == 0, at)
        codec.scale(shard, 1 / images)
        if whole:
            return float(bounds.max(initial=0.0)) / images
        codes = carrier.room(mine[1] - mine[0])
        if shard.size:
            codec.encode(codes, shard, owned)
        bounds = bounds / images
        came, bound = yield from carrier.means(codes, cuts, self._to_all, bounds, x.size, place)
        for cut, (records, at) in zip(cuts, came, strict=False):  # none on ranks that get no mean
            part = x.part(*_values(cut, x.size))
            if part.size:
                codec.decode_add(part, records, True, at)
        return bound

    def _count_flushed(self, codes: V, residual: V) -> None:
        size = min(residual.size, LOOKED_AT_VALUES)
        records = codes.part(0, blocks(size) * self._codec.record)
        with records.host() as mine, residual.part(0, size).host() as left_out:
            nothing = self._codec.zeros(mine)[:size]
            self.flushed = int(np.count_nonzero(left_out[nothing]))


def _values(cut: Cut, length: int) -> tuple[int, int]:
    """The values [start, stop) of a vector that lie in some blocks."""
    return min(cut[0] * BLOCK, length), min(cut[1] * BLOCK, length)
