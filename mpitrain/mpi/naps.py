"""How long to sleep between two looks at something that may have come: ever longer."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Naps:
    """The naps of one kind of waiting. A call of MPI that waits spins, and takes a core from work.

    The first looks only offer the core to other threads: what is about to come, comes sooner than
    the shortest nap ends (0.06 ms). Then come `steady` naps of the shortest length; each one after
    them is longer by that length, up to the longest.
    """

    yields: int
    """Looks without a nap."""
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
