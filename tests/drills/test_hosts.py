"""Several hosts, and a link that is cut, a host whose ranks are killed, a rank that stands still:
the job ends, and its last line is the cause."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import Hosts, missing, signal_ranks
from launcher import LONG, Ended, Job, Launch

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "all there")
LIMIT, SPARE = 4, 10
TRAINS = (*LONG, "--quiet", "--stall-seconds", LIMIT)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as three:
        yield three


def strike(
    launch: Launch, hosts: Hosts, out: Path, ranks: tuple[int, ...], fault: Callable[[Job], None]
) -> tuple[Ended, float]:
    """A run that a fault strikes after its seventh step, and the seconds from there to its end."""
    struck = 0.0

    def meanwhile(job: Job) -> None:
        nonlocal struck
        job.wait_for_step(7)
        struck = time.time()
        fault(job)

    ended = launch(*TRAINS, program=hosts.program(launch, ranks), out=out, meanwhile=meanwhile)
    assert ended.code != 0
    assert not ended.events("end")
    assert ended.events("checkpoint")[-1]["step"] >= 5
    return ended, ended.finished - struck


def test_a_cut_link_ends_the_job_and_the_host_behind_it_is_named(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    """Open MPI's mpirun would wait for that host for ever."""
    ended, seconds = strike(launch, hosts, tmp_path / "run", (1, 1, 1), lambda _: hosts.cut(1))
    assert seconds < LIMIT + SPARE, ended.err
    said = ended.sentences[-1]
    speaker = next(rank for rank in (0, 2) if said.startswith(f"mpitrain: rank {rank} of 3 on "))
    assert (
        f" on {hosts.names[speaker]}: no progress for {LIMIT} s in " in said and " at step " in said
    )
    assert (
        f"; no answer from rank 1 of 3 on {hosts.names[1]}: gone, or its link is cut; ending the"
        in said
    )


def test_a_host_whose_ranks_are_all_killed_is_named_and_no_other(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    ended, seconds = strike(
        launch,
        hosts,
        tmp_path / "run",
        (1, 2, 1),
        lambda job: signal_ranks(job, (1, 2), signal.SIGKILL),
    )
    assert seconds < SPARE, ended.err
    (said,) = ended.sentences
    assert said.startswith(("mpitrain: rank 1 of 4 on ", "mpitrain: rank 2 of 4 on "))
    assert f" on {hosts.names[1]}, " in said and " at step " in said
    assert said.endswith(": died without a word: killed, or at fault in native code")


def test_a_stopped_rank_that_is_alone_on_its_host_is_named(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    def stop(job: Job) -> None:
        signal_ranks(job, (1,), signal.SIGSTOP)

    ended, seconds = strike(launch, hosts, tmp_path / "run", (1, 1, 1), stop)
    assert seconds < LIMIT + SPARE, ended.err
    assert f"; rank 1 of 3 on {hosts.names[1]}, " in ended.sentences[-1]
    assert ": stopped (SIGSTOP); ending the job" in ended.sentences[-1]


def test_a_job_fails_when_a_host_and_its_daemon_die_whatever_mpirun_ends_with(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    """Open MPI's ends with 0. What job scripts call looks at the log."""

    def strike(job: Job) -> None:
        job.wait_for_step(7)
        for process in hosts.processes(1):
            os.kill(process, signal.SIGKILL)

    out = tmp_path / "run"
    ended = launch(*TRAINS, program=hosts.program(launch, (1, 1, 1)), out=out, meanwhile=strike)
    assert not ended.events("end")
    job = launch("requeue", min(ended.code, 255), "--out", out)
    assert job.code not in (0, 75)
    if ended.code == 0:
        assert job.code == 1
        assert job.sentence().endswith("run/log.jsonl has no end of this run")


def test_ranks_of_other_hosts_go_on_without_the_dead(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    """Two die one after the other: one that codes for its host, where another takes its place, and
    one that was alone on its."""
    if launch.exact:
        pytest.skip("MPICH ends a job when a rank dies: this needs Open MPI 5")

    def kill(job: Job) -> None:
        for step, rank in ((7, 2), (14, 4)):
            job.wait_for_step(step)
            signal_ranks(job, (rank,), signal.SIGKILL)

    ended = launch(
        "lenet",
        "--exchange",
        "dynamic8",
        "--epochs",
        3,
        "--on-failure",
        "continue",
        "--stall-seconds",
        30,
        program=hosts.program(launch, (2, 2, 1), ("--with-ft", "ulfm")),
        out=tmp_path / "run",
        meanwhile=kill,
    )
    assert [event["ranks"] for event in ended.events("lost")] == [[2], [4]], ended.err
    assert ended.end["exit"] == 0 and ended.end["step"] == 66
    assert len(ended.end["weights_sha256"]) == 3 and ended.weights
    assert "exchange dynamic8, between 3 hosts, shared memory within" in ended.out
    # A rank keeps the number it had at the start, whoever died before it.
    assert "rank 2 lost; 4 of the ranks go on" in ended.out
    assert "rank 4 lost; 3 of the ranks go on" in ended.out
    # What is said of a rank's end comes from its own host, and Open MPI may drop what comes from
    # there after a death.
    dead = ["mpitrain: rank 2 of 5 on ", "mpitrain: rank 4 of 5 on "]
    told = [
        next((start for start in dead if said.startswith(start)), said) for said in ended.sentences
    ]
    assert told in (dead, dead[:1], dead[1:], []), ended.err


def test_several_ranks_a_host_resume_to_the_same_bytes_and_others_take_over_from_them(
    launch: Launch, hosts: Hosts, tmp_path: Path
) -> None:
    run = (
        "lenet",
        "--exchange",
        "dynamic8",
        "--steps",
        12,
        "--checkpoint-every",
        6,
        "--stall-seconds",
        30,
    )
    program, out = hosts.program(launch, (2, 1, 1)), tmp_path / "run"
    whole = launch.trains(*run, program=program, out=out)
    assert "exchange dynamic8, between 3 hosts, shared memory within" in whole.out
    _, newest = sorted((out / "checkpoints").iterdir())
    newest.unlink()
    again = launch.trains(*run, "--resume", program=program, out=out)
    assert again.weights == whole.weights
    newest.unlink()
    fewer = launch.trains(*run, "--resume", program=hosts.program(launch, (1, 1, 0)), out=out)
    first, last = (each.events("step")[-1]["loss"] for each in (whole, fewer))
    assert abs(first - last) < 0.05
