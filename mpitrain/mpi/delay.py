"""Slow this rank's messages at random, so that tests see ranks come in any order."""

from __future__ import annotations

import random
import time


class Delay:
    """Sleeps before each operation for up to `seconds`, drawn from a generator seeded by the
    rank."""

    def __init__(self, rank: int, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._random = random.Random(rank)

    def inject(self) -> None:
        """Sleep, if anything is to be delayed."""
        if self.seconds:
            time.sleep(self._random.uniform(0, self.seconds))
