"""Work that waits for messages now and then, written as it is read: a generator that yields what it
must wait for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeAlias, TypeVar


class Pending(Protocol):
    """Something that is on its way: messages, or work on a device."""

    def done(self) -> bool:
        """Whether it has come; looks, and does not wait. Raises RunError if it cannot come, or is
        not what was expected."""

    def wait(self) -> None:
        """Return when it is done."""


T = TypeVar("T")
Hops: TypeAlias = Generator[Pending, None, T]
"""Goes on after each `yield` when what was yielded is done, and returns a T."""


def complete(hops: Hops[T]) -> T:
    """Take all hops one after the other, waiting for each."""
    while True:
        try:
            pending = next(hops)
        except StopIteration as end:
            result: T = end.value
            return result
        pending.wait()
