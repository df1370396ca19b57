"""Commands that a step queues again and again: asked for once in Python, then queued as they were.

A kernel that is called with all its arguments costs 15 to 50 us of a host thread, one whose
arguments were set before 2 to 9.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

Command: TypeAlias = Callable[[], None]
"""Queues one thing on a device."""


@runtime_checkable
class Kept(Protocol):
    """A command that holds something of the device."""

    def drop(self) -> None:
        """Give it back; the command is not called again."""


class Varying:
    """A kernel's argument that may differ each time the kernel is queued: set `value` before."""

    def __init__(self, value: np.generic) -> None:
        self.value = value


class Recordings:
    """The commands of each part of a run, for the `limit` kinds of run that came last."""

    def __init__(self, limit: int = 8) -> None:
        self._limit = limit
        self._known: dict[Hashable, dict[Hashable, list[Command]]] = {}

    def of(self, kind: Hashable) -> dict[Hashable, list[Command]]:
        """Part -> its commands, for one kind of run; empty for a kind that is new."""
        found = self._known.get(kind)
        if found is None:
            while len(self._known) >= self._limit:
                self._forget(next(iter(self._known)))  # the oldest
            found = self._known[kind] = {}
        return found

    def _forget(self, kind: Hashable) -> None:
        for commands in self._known.pop(kind).values():
            for command in commands:
                if isinstance(command, Kept):
                    command.drop()
