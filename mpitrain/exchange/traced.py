"""An exchange that notes in a Trace when it works on which bucket, and what each message is."""

from __future__ import annotations

from typing import Any

from mpitrain.exchange.bucket import Bucket
from mpitrain.exchange.exchange import Exchange
from mpitrain.exchange.strategy import Turn
from mpitrain.exchange.window import BARRIERS
from mpitrain.job.trace import Trace
from mpitrain.mpi.hops import Hops, Pending


class TracedExchange(Exchange):
    """Each piece of work on a bucket between two waits is a span."""

    def __init__(self, trace: Trace, *parts: Any, **more: Any) -> None:
        """parts, more: as an Exchange takes them."""
        super().__init__(*parts, **more)
        self._trace = trace
        trace.words, trace.barriers = self._strategy.lanes, BARRIERS

    def _hops(self, bucket: Bucket, images: int, ready: Pending | None, turn: Turn) -> Hops[None]:
        return self._noted(bucket, super()._hops(bucket, images, ready, turn))

    def _move(self, bucket: Bucket, images: int, turn: Turn) -> Hops[None]:
        hops = super()._move(bucket, images, turn)
        return self._noted(bucket, hops) if self._clips else hops  # which is a part of `_hops`

    def _noted(self, bucket: Bucket, hops: Hops[None]) -> Hops[None]:
        name = f"bucket {bucket.number}"
        while True:
            self._trace.bucket = bucket.number
            try:
                with self._trace.span(name):
                    pending = next(hops, None)
            finally:
                self._trace.bucket = None
            if pending is None:
                return
            yield pending
