"""What every hook is: something that happens between steps, when it is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mpitrain.training.plan import Progress
    from mpitrain.training.world import World


class Hook(Protocol):
    """Called by the loop after each step, on every rank; hooks run in the order of `HOOKS` in
    hooks/registry.py."""

    name: str

    def due(self, progress: Progress) -> bool:
        """Whether it runs after this step; the same on every rank."""

    def run(self, world: World, progress: Progress) -> Progress:
        """Do it; returns the progress, with what it adds. A death of a rank in it makes it run
        again."""
