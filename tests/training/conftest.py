"""What tests of a training share: the world of a short run of LeNet, on one rank, in this
process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpitrain.job.config import Run
from mpitrain.job.run_folder import Hold
from mpitrain.mpi.connect import abort, connect
from mpitrain.training.faults import Fault
from mpitrain.training.join import join
from mpitrain.training.world import World
from mpitrain.watch.signals import Stop
from mpitrain.watch.watchdog import Watchdog

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """make_world(steps=3, ...): any options of a run."""
    made: list[World] = []
    wire, hold = connect(), Hold()

    def make(**options: Any) -> World:
        run = Run("lenet", **{"quiet": True, "out": str(tmp_path / "run"), **options})
        watch, stop = Watchdog(wire.ranks.rank, run.stall_seconds, abort), Stop()
        hold.leave()  # a test goes on in the directory of its last world
        world, _ = join(run, wire, watch, Fault(run.inject, wire.ranks.rank), stop, hold)
        made.append(world)
        return world

    yield make
    for world in made:
        world.local.watch.stop()
        world.local.stop.leave()
        world.exchange.close()
        world.local.log.close()
    hold.leave()
