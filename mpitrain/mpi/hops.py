"""Work that must wait for messages in between: a generator that yields what it waits for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeAlias, TypeVar


class Pending(Protocol):
    """Something that is not yet done: messages, or work on a device."""

    def done(self) -> bool:
        """Whether it is done. Does not wait. Raises RunError if it failed or is not as expected."""

    def wait(self) -> None:
        """Return when it is done."""


T = TypeVar("T")
Hops: TypeAlias = Generator[Pending, None, T]
"""Is continued after each `yield` when what was yielded is done; returns a T in the end."""


def complete(hops: Hops[T]) -> T:
    """Run to the end, waiting for each hop; return the result."""
    while True:
        try:
            pending = next(hops)
        except StopIteration as end:
            result: T = end.value
            return result
        pending.wait()
