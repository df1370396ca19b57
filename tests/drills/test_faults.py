"""Faults while running end the job on every rank, soon, with a line that says where and why; the
last checkpoint stays whole."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Job, Launch
from safetensors.numpy import load_file

FAILED, STALLED = 1, 86
FEW = ("lenet", "--steps", 4, "--checkpoint-every", 2, "--evaluate-every", 2)


def strike(launch: Launch, out: Path, fault: str, *arguments: object, ranks: int = 3) -> Ended:
    """A run in which a fault strikes rank 1, and which therefore has no end."""
    ended = launch(*FEW, *arguments, "--inject", f"rank=1,{fault}", ranks=ranks, out=out)
    assert ended.code != 0
    assert not (out / "log.jsonl").exists() or not ended.events("end")
    return ended


BROKEN = """
import os, sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "pyopencl":
            raise ImportError("libOpenCL.so.1: cannot open shared object file")

if "1" in (os.environ.get("PMI_RANK"), os.environ.get("OMPI_COMM_WORLD_RANK")):
    sys.meta_path.insert(0, Broken())
"""
"""A sitecustomize.py that makes rank 1 a host on which OpenCL is not installed."""


def assert_whole(path: Path) -> None:
    assert all(np.isfinite(tensor).all() for tensor in load_file(path).values())


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        ("setup", 0),
        ("compile", 0),
        ("scatter", 2),
        ("forward", 2),
        ("exchange", 2),
        ("evaluate", 2),
        ("checkpoint", 2),
    ],
)
def test_an_exception_on_one_rank_is_named_with_rank_phase_and_step(
    launch: Launch, tmp_path: Path, phase: str, step: int
) -> None:
    ended = strike(launch, tmp_path / "run", f"kind=raise,phase={phase},step={step}")
    launch.ends_with(ended, FAILED)
    assert ended.sentences == [
        f"mpitrain: rank 1 of 3, {phase} at step {step}: ValueError: injected fault"
    ], ended.err


def test_a_rank_that_cannot_even_start_is_named(launch: Launch, tmp_path: Path) -> None:
    """The others are in MPI by then, and would wait for it for ever."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    ended = launch(*FEW, ranks=3, out=tmp_path / "run", env={"PYTHONPATH": str(tmp_path)})
    launch.ends_with(ended, FAILED)
    assert len(ended.sentences) == 1
    assert ended.sentences[0].startswith(
        "mpitrain: rank 1 of 3: ImportError: libOpenCL.so.1: cannot open"
    )


def test_a_rank_without_memory_says_so(launch: Launch, tmp_path: Path) -> None:
    ended = strike(launch, tmp_path / "run", "kind=memory,phase=exchange,step=2")
    launch.ends_with(ended, FAILED)
    (said,) = ended.sentences
    assert said.startswith("mpitrain: rank 1 of 3, ") and said.endswith(" at step 2: MemoryError")


def test_an_exit_on_one_rank_ends_all(launch: Launch, tmp_path: Path) -> None:
    ended = strike(launch, tmp_path / "run", "kind=exit,phase=exchange,step=1")
    launch.ends_with(ended, FAILED)
    assert ended.sentences == ["mpitrain: rank 1 of 3, exchange at step 1: SystemExit: 3"]


@pytest.mark.parametrize("kind", ["kill", "segv"])
def test_a_rank_that_dies_without_a_word_is_named_and_the_last_checkpoint_is_whole(
    launch: Launch, tmp_path: Path, kind: str
) -> None:
    ended = strike(launch, tmp_path / "run", f"kind={kind},phase=forward,step=3")
    (said,) = ended.sentences
    assert said.startswith("mpitrain: rank 1 of 3, forward at step 3: died without a word")
    assert [event["step"] for event in ended.events("checkpoint")] == [2]
    assert_whole(tmp_path / "run" / "checkpoints" / "step-00000002.safetensors")


def test_a_rank_that_is_killed_while_another_writes_is_named_and_not_the_other(
    launch: Launch, tmp_path: Path
) -> None:
    """Rank 0 sees a message fail, maybe before the dead rank's witness has spoken."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(3)
        job.kill(1, signal.SIGKILL)

    words = ("lenet", "--exchange", "dynamic8", "--checkpoint-every", 1, "--steps", 100_000)
    ended = launch(*words, ranks=3, out=tmp_path / "run", meanwhile=meanwhile)
    assert ended.code != 0
    (said,) = ended.sentences
    assert said.startswith("mpitrain: rank 1 of 3, ") and "died without a word" in said


@pytest.mark.parametrize("phase", ["setup", "forward", "checkpoint"])
def test_a_stopped_rank_is_noticed(launch: Launch, tmp_path: Path, phase: str) -> None:
    fault = f"kind=stop,phase={phase},step={0 if phase == 'setup' else 2}"
    ended = strike(launch, tmp_path / "run", fault, "--stall-seconds", 4, "--exchange", "dynamic8")
    launch.ends_with(ended, STALLED)
    assert "Traceback" not in ended.err
    stopped = [said for said in ended.sentences if said.startswith("mpitrain: rank 1 ")]
    assert [said.partition(", ")[2].partition(", ")[0] for said in stopped] == [
        f"{phase} at step {0 if phase == 'setup' else 2}: stopped (SIGSTOP)"
    ]
    assert all("no progress for 4 s in " in said for said in ended.sentences if said not in stopped)
    assert any(f"rank {rank}: " in said for said in ended.sentences for rank in (0, 2)), ended.err


@pytest.mark.parametrize("update", ["root", "replicated"])
@pytest.mark.parametrize("exchange", ["dynamic8", "float16"])
def test_a_coded_gradient_that_is_not_finite_ends_its_own_step(
    launch: Launch, tmp_path: Path, exchange: str, update: str
) -> None:
    fault = "kind=nan,phase=exchange,step=2"
    ended = strike(launch, tmp_path / "run", fault, "--exchange", exchange, "--update", update)
    launch.ends_with(ended, FAILED)
    assert "step 3: the gradient is not finite" in ended.sentence()
    assert_whole(tmp_path / "run" / "checkpoints" / "step-00000002.safetensors")


@pytest.mark.parametrize(
    ("step", "words"), [(2, "step 4: the loss is nan"), (3, "step 4: the "), (1, "step 2: the ")]
)
def test_a_plain_gradient_that_is_not_finite_spoils_no_checkpoint(
    launch: Launch, tmp_path: Path, step: int, words: str
) -> None:
    """Step 2's is seen in the next step's loss, steps 1's and 3's before they are scored and
    saved."""
    fault = f"kind=nan,phase=exchange,step={step}"
    ended = strike(launch, tmp_path / "run", fault, "--exchange", "float32", ranks=2)
    launch.ends_with(ended, FAILED)
    assert words in ended.sentence()
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert_whole(path)
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize("exchange", ["float32", "dynamic8"])
def test_a_learning_rate_far_too_large(launch: Launch, tmp_path: Path, exchange: str) -> None:
    out = tmp_path / "run"
    ended = launch("lenet", "--lr", 1e6, "--exchange", exchange, ranks=2, out=out)
    launch.ends_with(ended, FAILED)
    said = ended.sentence()
    assert "--lr" in said
    assert "the loss is" in said or "is not finite" in said or "are not finite" in said
    assert not ended.events("end")


def test_a_run_directory_that_takes_no_files(launch: Launch, tmp_path: Path) -> None:
    """A folder in the file's place stands for a directory that may not be written to, which root
    may all the same."""
    place = tmp_path / "run" / "config.toml"
    place.mkdir(parents=True)
    ended = launch(*FEW, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, FAILED)
    assert f"{place} cannot be written: Is a directory" in ended.sentence()


def test_a_disk_that_takes_no_more(launch: Launch, tmp_path: Path) -> None:
    """A folder in the checkpoint's place stands for the full disk; what was saved before stays,
    nothing half-written does."""
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-00000004.safetensors" / "in the way").mkdir(parents=True)
    ended = launch(*FEW, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, FAILED)
    said = ended.sentence()
    assert "rank 0 of 2, checkpoint at step 4: " in said
    assert (
        f"checkpoint {folder}/step-00000004.safetensors cannot be written: Is a directory" in said
    )
    assert {path.name for path in folder.iterdir()} == {
        "step-00000002.safetensors",
        "step-00000004.safetensors",
    }
    assert_whole(folder / "step-00000002.safetensors")


@pytest.mark.parametrize("exchange", ["float32", "dynamic8"])
def test_a_bit_that_flips_in_one_ranks_weights_ends_the_run_with_the_tensors_name(
    launch: Launch, tmp_path: Path, exchange: str
) -> None:
    """In LeNet the value in the middle is one of fc1's."""
    fault = "kind=flip,rank=1,phase=compare,step=50"
    ended = launch(
        "lenet",
        "--steps",
        60,
        "--exchange",
        exchange,
        "--inject",
        fault,
        ranks=3,
        out=tmp_path / "run",
    )
    launch.ends_with(ended, FAILED)
    assert (
        ended.sentence()
        == "mpitrain: step 50: weights differ between rank 0 and rank 1, first in fc1.weight"
    )
    assert not ended.events("end")
