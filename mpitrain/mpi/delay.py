"""Delay this rank's messages at random, so that in tests ranks arrive in any order."""

from __future__ import annotations

import random
import time


class Delay:
    """Sleeps up to `seconds` before each operation, at random; the rank is the seed."""

    def __init__(self, rank: int, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._random = random.Random(rank)

    def inject(self) -> None:
        """Sleep, if messages are to be delayed."""
        if self.seconds:
            time.sleep(self._random.uniform(0, self.seconds))
