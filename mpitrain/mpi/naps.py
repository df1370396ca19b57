"""How long to sleep between two looks at something that is not yet done: ever longer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

offer: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))
"""Let other threads and processes have the core, if any wants it."""


@dataclass(frozen=True)
class Naps:
    """The naps of one kind of waiting.

    MPI's own waiting calls spin, which takes a core from the computation. The first looks only let
    others have the core. Then follow `steady` naps of the shortest length; each one after
    them is longer by that length, up to the longest.
    """

    yields: int
    """After how many looks the core is only offered to others: a short message comes at once, and
    the shortest nap takes 0.06 ms by Linux's clocks."""
    shortest: float
    """Seconds."""
    longest: float
    """Seconds."""
    steady: int = 0

    def after(self, looks: int) -> None:
        """Sleep after so many looks in a row that found nothing new; 0 returns at once."""
        if looks > self.yields:
            growth = max(1, looks - self.yields - self.steady)
            time.sleep(min(growth * self.shortest, self.longest))
        elif looks:
            offer()
