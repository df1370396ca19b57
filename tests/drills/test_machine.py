"""A machine whose disk fills up, fails or goes away, or whose memory is used up: one sentence, and
the last checkpoint is whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launcher import LONG, Ended, Job, Launch
from machine import fail, failing, fill, memory, missing_disk, missing_memory, mounted, unmount

from mpitrain.job import checkpoint

FAILED = 1
TRAINS = (*LONG, "--quiet")


def needs(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(reason), reason=reason or "all there")


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's own folder, which it would walk through to remove old ones."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def strike(launch: Launch, out: Path, fault: Callable[[], object]) -> Ended:
    """A run that a fault strikes after its seventh step."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(7)
        fault()

    ended = launch(*TRAINS, ranks=2, out=out, meanwhile=meanwhile)
    launch.ends_with(ended, FAILED)
    return ended


def goes_on(launch: Launch, out: Path, half_written: bool = False) -> None:
    """The newest checkpoint is whole, and a run goes on from there. Nothing half-written is beside
    it, unless nobody could take it away."""
    found = checkpoint.newest(out)
    assert found is not None and not found.refused
    names = [path.name for path in (out / "checkpoints").iterdir()]
    assert half_written or all(name.startswith("step-") for name in names), names
    step = found.settings["step"]
    assert step >= 5
    again = launch.trains(*TRAINS, "--steps", step + 2, "--resume", ranks=2, out=out)
    assert again.events("start")[-1]["step"] == step


@needs(missing_disk())
def test_a_disk_that_fills_up(launch: Launch, place: Path) -> None:
    with mounted(place) as disk:
        ended = strike(launch, disk / "run", lambda: fill(disk))
        said = ended.sentence()
        assert said.startswith("mpitrain: rank 0 of 2, ") and " at step " in said
        assert f"{disk}/run" in said and said.endswith(
            " cannot be written: No space left on device"
        )
        (disk / "filler").unlink()
        goes_on(launch, disk / "run")


@needs(missing_disk("mkfs.ext4", "findmnt"))
def test_a_disk_that_turns_read_only(launch: Launch, place: Path) -> None:
    with failing(place) as disk:
        ended = strike(launch, disk / "run", lambda: fail(disk))
        said = ended.sentence()
        assert said.startswith("mpitrain: rank 0 of 2, ") and " at step " in said
        assert f"{disk}/run" in said
        # What was being written when it failed ends with the other one.
        assert said.endswith(
            (" cannot be written: Read-only file system", " cannot be written: Input/output error")
        )
        found = checkpoint.newest(disk / "run")
        assert found is not None and not found.refused and found.settings["step"] >= 5


@needs(missing_disk())
def test_a_disk_that_is_unmounted(launch: Launch, place: Path) -> None:
    """A log that is open can be written to all the same; the next checkpoint would go to another
    disk."""
    with mounted(place) as disk:
        ended = strike(launch, disk / "run", lambda: unmount(disk))
        said = ended.sentence()
        assert said.startswith("mpitrain: rank 0 of 2, checkpoint at step ")
        assert f"{disk}/run/log.jsonl is not there any more" in said
        assert list(disk.iterdir()) == []
        # It may have gone while a checkpoint was written.
        goes_on(launch, place / "disk" / "run", half_written=True)


@needs(missing_memory())
def test_a_rank_that_the_system_kills_for_want_of_memory(launch: Launch, tmp_path: Path) -> None:
    """All ranks have 2 GiB together; rank 1 takes what it can get."""
    out, fault = tmp_path / "run", "kind=oom,rank=1,step=7,phase=forward"
    with memory(2048) as group:
        program = [
            "sh",
            "-c",
            f'echo 0 > {group} && exec "$@"',
            "sh",
            launch.mpirun,
            "-n",
            3,
            *launch.mpitrain,
        ]
        ended = launch(*TRAINS, "--steps", 20, "--inject", fault, program=program, out=out)
    assert ended.code != 0
    assert ended.sentence() == (
        "mpitrain: rank 1 of 3, forward at step 7: died without a word: killed, and the system has "
        "just killed for want of memory"
    )
    goes_on_from = checkpoint.newest(out)
    assert goes_on_from is not None and goes_on_from.settings["step"] == 5
