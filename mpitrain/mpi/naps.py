"""How long to sleep between two looks at something that is not yet done: ever longer."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Naps:
    """The naps of one kind of waiting.

    MPI's own waiting calls spin, which takes a core from the computation. After the first looks
    only time.sleep(0) is called. Then follow `steady` naps of the shortest length; each one after
    them is longer by that length, up to the longest.
    """

    yields: int
    """How many looks are followed by time.sleep(0): a short message comes at once."""
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
            time.sleep(0)
