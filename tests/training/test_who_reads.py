"""Images that need no decoding are read by each rank where links would carry them, if all see the
same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from mpitrain.data.source import Dataset, open_source
from mpitrain.job.config import Run
from mpitrain.mpi.wire import Wire, make
from mpitrain.training.reading import Reading, choose

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture(scope="module")
def wires() -> dict[str, Wire]:
    """All ranks as on one host, each as on a host of its own, and two as on each."""
    comm = MPI.COMM_WORLD
    hosts = {"one": 0, "several": comm.rank, "pairs": comm.rank // 2}
    return {name: make(comm, host=host) for name, host in hosts.items()}


def who(wire: Wire, data: str, read: str = "auto") -> tuple[Reading, Dataset | None]:
    run = Run("lenet", data=data, read=read)
    first = open_source(data, shape_hint=(1, 28, 28)) if wire.ranks.rank == 0 else None
    return choose(run, wire, first)


@pytest.mark.parametrize("data", ["digits", "synthetic:40"])
def test_arrays_that_all_have_are_read_by_each_rank_on_several_hosts(
    wires: dict[str, Wire], data: str
) -> None:
    found = {}
    for name in ("one", "several"):
        wire = wires[name]
        reading, mine = who(wire, data)
        found[name] = reading.local, mine is not None, reading.words(wire.ranks.size)
    wire = wires["one"]
    there = wire.agree.gather_facts([found["several"], found["one"]])
    words = "each rank reads its own images (all see the same)"
    alone = [[[True, True, words], [False, rank == 0, ""]] for rank in range(wire.ranks.size)]
    assert there == alone


def test_an_archive_that_a_rank_lacks_is_read_by_rank_0(
    wires: dict[str, Wire], tmp_path: Path
) -> None:
    """Or that has other pixels there; where all have it, each reads."""
    wire, size = wires["several"], wires["several"].ranks.size
    last, found = wire.ranks.rank == size - 1, []
    for case in ("same", "other", "none"):
        path = tmp_path / f"{case}.npz"
        images = np.arange(6 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(6, 1, 28, 28)
        images[5, 0, 0, 0] += case == "other" and last
        if not (case == "none" and last):
            np.savez(path, images=images, labels=np.arange(6))
        reading, mine = who(wire, str(path))
        found.append([reading.local, mine is not None, f"rank {size - 1} on" in reading.why])
    rank_0 = wire.ranks.rank == 0
    right = found == [[True, True, False], [False, rank_0, True], [False, rank_0, True]]
    assert wire.agree.gather_facts(right) == [True] * size


@pytest.mark.mpi(min_size=3)
def test_an_archive_is_not_held_twice_on_a_host(wires: dict[str, Wire], tmp_path: Path) -> None:
    """What costs no memory is read by each rank there, too."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros((6, 1, 28, 28), np.uint8), labels=np.arange(6))
    assert not who(wires["pairs"], str(path))[0].local
    assert who(wires["pairs"], "synthetic:40")[0].local
    assert who(wires["pairs"], str(path), read="local")[0].local
