"""--on-failure continue: ranks die, and the others go on from the same step, over the same
batches."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher import Ended, Job, Launch
from test_strict import NETWORK, tensors

FEW = (
    "lenet",
    "--steps",
    12,
    "--checkpoint-every",
    6,
    "--evaluate-every",
    6,
    "--on-failure",
    "continue",
)
ULFM = ("--with-ft", "ulfm")


@pytest.fixture(scope="module")
def outliving(launch: Launch) -> Launch:
    """A launcher whose MPI outlives its ranks."""
    if launch.exact:
        pytest.skip("MPICH ends a job when a rank dies: this needs Open MPI 5")
    return launch


def test_an_mpi_that_cannot_is_refused(launch: Launch, tmp_path: Path) -> None:
    ended = launch(*FEW, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, 2)
    assert (
        "--on-failure continue: expected Open MPI 5 under mpirun --with-ft ulfm, got"
        in ended.sentence()
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def undisturbed(
    outliving: Launch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ended]:
    """Runs in which nobody dies, each made once."""

    @functools.cache
    def run(*arguments: object) -> Ended:
        return outliving.trains(
            *FEW, *arguments, ranks=3, out=tmp_path_factory.mktemp("whole") / "run", flags=ULFM
        )

    return run


@pytest.mark.parametrize(
    ("phase", "exchange"),
    [
        ("scatter", "dynamic8"),
        ("forward", "window"),
        ("forward", "float32"),
        ("exchange", "dynamic8"),
        ("exchange", "window"),
        ("update", "dynamic8"),
        ("evaluate", "window"),
        ("checkpoint", "dynamic8"),
        ("exchange", "lowrank"),
    ],
)
def test_the_others_go_on(
    outliving: Launch, undisturbed: Callable[..., Ended], tmp_path: Path, phase: str, exchange: str
) -> None:
    settings = ["--exchange", exchange]
    settings += ["--update", "replicated"] if phase == "update" else []  # else rank 0 alone updates
    settings += ["--ema", "0.9", "--clip-norm", "5"] if exchange == "lowrank" else []
    settings += ["--clip-norm", "5"] if (phase, exchange) == ("exchange", "window") else []
    whole = undisturbed(*settings)
    ended = outliving(
        *FEW,
        *settings,
        "--inject",
        f"kind=kill,rank=1,phase={phase},step=6",
        ranks=3,
        out=tmp_path / "run",
        flags=ULFM,
    )
    assert "Traceback" not in ended.err, ended.err
    assert ended.end["exit"] == 0
    assert ended.end["step"] == 12
    assert len(ended.end["weights_sha256"]) == 2
    assert ended.weights
    (lost,) = ended.events("lost")
    assert (lost["ranks"], lost["left"], lost["step"]) == ([1], 2, 6)
    assert "rank 1 lost; 2 of the ranks go on" in ended.out
    steps = ended.events("step")
    assert [event["step"] for event in steps] == list(range(1, 13))
    # Two ranks do on the same batches what three did, but for rounding (and what rank 1 had not
    # sent of codes).
    tolerance = 1e-3 if exchange in ("float32", "window") else 0.05
    for mine, its in zip(steps, whole.events("step"), strict=True):
        assert abs(mine["loss"] - its["loss"]) < tolerance, (mine, its)
    scores = ended.events("evaluate"), whole.events("evaluate")
    assert [event["step"] for event in scores[0]] == [6, 12]
    for mine, its in zip(*scores, strict=True):
        assert abs(mine["loss"] - its["loss"]) < tolerance, (mine, its)
    assert [event["step"] for event in ended.events("checkpoint")] == [6, 12]


@pytest.mark.parametrize("exchange", ["lowrank", "lowrank8"])
def test_one_of_four_may_die_under_low_rank_factors(
    outliving: Launch, tmp_path: Path, exchange: str
) -> None:
    words = (*FEW, "--exchange", exchange)
    fault = "kind=kill,rank=2,phase=exchange,step=6"
    ended = outliving(*words, "--inject", fault, ranks=4, out=tmp_path / "run", flags=ULFM)
    assert ended.end["exit"] == 0 and "Traceback" not in ended.err, ended.err
    assert len(ended.end["weights_sha256"]) == 3 and ended.weights
    assert [event["ranks"] for event in ended.events("lost")] == [[2]]
    losses = [event["loss"] for event in ended.events("step")]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0], losses


@pytest.mark.parametrize("exchange", ["window", "dynamic8"])
def test_one_may_die_whose_device_copies_to_shared_memory(
    outliving: Launch, tmp_path: Path, exchange: str
) -> None:
    """As GPUs do, whose copies are under way then."""
    words = (*FEW, "--exchange", exchange, "--device", "pocl", "--engine", "gpu")
    fault = "kind=kill,rank=1,phase=exchange,step=6"
    ended = outliving(*words, "--inject", fault, ranks=3, out=tmp_path / "run", flags=ULFM)
    assert ended.end["exit"] == 0 and "Traceback" not in ended.err, ended.err
    assert len(ended.end["weights_sha256"]) == 2 and ended.weights
    assert [event["ranks"] for event in ended.events("lost")] == [[1]]
    assert [event["step"] for event in ended.events("step")] == list(range(1, 13))


def test_with_strict_a_rank_that_dies_changes_no_bit(outliving: Launch, tmp_path: Path) -> None:
    """Nor in running statistics, which each rank keeps for itself."""
    network = tmp_path / "normed.toml"
    network.write_text(NETWORK)
    words = (network, "--data", "digits", *FEW[1:], "--strict", "--update", "replicated")
    outliving.trains(*words, ranks=2, out=tmp_path / "whole", flags=ULFM)
    fault = "kind=kill,rank=1,phase=exchange,step=6"
    ended = outliving(*words, "--inject", fault, ranks=3, out=tmp_path / "run", flags=ULFM)
    assert ended.end["exit"] == 0, ended.err
    assert len(ended.end["weights_sha256"]) == 2 and ended.events("lost")
    assert tensors(tmp_path / "run") == tensors(tmp_path / "whole")


def test_one_after_the_other_may_die(outliving: Launch, tmp_path: Path) -> None:
    def kill(job: Job) -> None:
        for step, rank in ((20, 3), (40, 1), (60, 2)):
            job.wait_for_step(step)
            job.kill(rank, signal.SIGKILL)

    ended = outliving(
        "lenet", "--epochs", 3, "--exchange", "dynamic8", "--on-failure", "continue",
        ranks=4, out=tmp_path / "run", flags=ULFM, meanwhile=kill,
    )  # fmt: skip
    assert ended.end["exit"] == 0, ended.err
    assert [event["ranks"] for event in ended.events("lost")] == [[3], [1], [2]]
    assert len(ended.end["weights_sha256"]) == 1
    steps = [event["step"] for event in ended.events("step")]
    assert steps == list(range(1, steps[-1] + 1))
    assert ended.events("evaluate")[-1]["top1"] > 0.9


def test_the_death_of_rank_0_ends_the_job(outliving: Launch, tmp_path: Path) -> None:
    ended = outliving(
        *FEW,
        "--inject",
        "kind=kill,rank=0,phase=forward,step=7",
        ranks=3,
        out=tmp_path / "run",
        flags=ULFM,
    )
    assert ended.code != 0
    assert not ended.events("end")
    assert any(
        "rank 0 is dead, which holds weights and data" in line for line in ended.sentences
    ), ended.err
    assert (tmp_path / "run/checkpoints/step-00000006.safetensors").exists()
    ended = outliving(*FEW, "--resume", ranks=2, out=tmp_path / "run", flags=ULFM)
    assert ended.end["step"] == 12


def test_a_death_while_weights_are_compared_costs_no_step_of_the_log(
    outliving: Launch, tmp_path: Path
) -> None:
    ended = outliving(
        "lenet", "--steps", 52, "--exchange", "dynamic8", "--on-failure", "continue", "--inject",
        "kind=kill,rank=1,phase=compare,step=50", ranks=3, out=tmp_path / "run", flags=ULFM,
    )  # fmt: skip
    assert ended.end["exit"] == 0, ended.err
    assert [event["step"] for event in ended.events("step")] == list(range(1, 53))


MEET_TWICE = """
import os, signal, sys
from mpitrain.mpi import survive
from mpitrain.mpi.connect import connect
from mpitrain.mpi.wait import FAILURES

wire = connect()
if wire.ranks.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
make = survive.make

def die(*arguments, **named):
    make(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)

if wire.ranks.rank == 2:
    survive.make = die
try:
    while True:
        wire.agree.barrier()
except FAILURES:
    survive.give_up(wire)
living = survive.among_the_living(wire).ranks
print(f"{living.name} goes on among {living.numbers}", flush=True)
sys.stdout.flush()
os._exit(0)
"""


def test_one_more_may_die_while_the_others_meet(outliving: Launch) -> None:
    """Rank 2, which has just made its new wire: some of the others have theirs, too, and some may
    not."""
    ended = outliving(program=[outliving.mpirun, *ULFM, "-n", 4, sys.executable, "-c", MEET_TWICE])
    said = sorted(line for line in ended.out.splitlines() if line.startswith("rank "))
    assert said == [f"rank {rank} of 4 goes on among [0, 3]" for rank in (0, 3)], ended.err
