"""A stopped run goes on as if nothing had been: a signal ends it with a checkpoint and 75, and
--resume comes to the same weights."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launcher import Job, Launch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

STOPPED = 75
LENET = ("lenet", "--steps", 12, "--schedule", "cosine", "--exchange", "dynamic8")


def test_a_signal_to_one_rank_of_several(launch: Launch, tmp_path: Path) -> None:
    """Residuals included: with dynamic8 the weights would differ without them."""
    straight = launch.trains(*LENET, ranks=3, out=tmp_path / "straight")
    out = tmp_path / "stopped"
    stopped = launch(*LENET, "--inject", "kind=term,rank=1,step=4,phase=exchange", ranks=3, out=out)
    launch.ends_with(stopped, STOPPED)
    assert stopped.sentences == []
    assert (stopped.end["exit"], stopped.end["step"]) == (STOPPED, 5)
    assert stopped.weights != straight.weights
    assert [event["step"] for event in stopped.events("checkpoint")] == [5]
    resumed = launch.trains(*LENET, "--resume", ranks=3, out=out)
    assert resumed.weights == straight.weights
    assert [event["step"] for event in resumed.events("step")] == list(range(1, 13))
    assert [e["loss"] for e in resumed.events("step")] == [
        e["loss"] for e in straight.events("step")
    ]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_signal_from_outside(
    launch: Launch, tmp_path: Path, ranks: int, number: signal.Signals
) -> None:
    """A large batch on its way to the other rank is no reason to hang at the end. The second
    signal, which SLURM sends, changes nothing."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(5)
        for _ in range(2):
            job.kill(max(0, ranks - 1) if ranks else None, number)

    ended = launch(
        "lenet", "--data", "synthetic:2000", "--batch-size", 500, "--steps", 1000, "--classes", 10,
        ranks=ranks, out=tmp_path / "run", meanwhile=meanwhile,
    )  # fmt: skip
    launch.ends_with(ended, STOPPED)
    assert ended.end["exit"] == STOPPED
    step = ended.end["step"]
    assert 5 <= step < 1000
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}.safetensors").exists()


@pytest.mark.parametrize("ranks", [0, 2])
def test_the_first_ctrl_c_asks_for_the_end(launch: Launch, tmp_path: Path, ranks: int) -> None:
    """Open MPI's mpirun makes a SIGTERM of it, and a code of its own."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(5)
        job.interrupt()

    out = tmp_path / "run"
    words = ("lenet", "--steps", 100_000, "--evaluate-every", 100_000)
    ended = launch(*words, "--checkpoint-every", 100_000, ranks=ranks, out=out, meanwhile=meanwhile)
    launch.ends_with(ended, STOPPED)
    assert ended.end["exit"] == STOPPED
    assert [event["step"] for event in ended.events("checkpoint")] == [ended.end["step"]]
    if launch.exact or not ranks:
        assert ended.sentence().startswith("mpitrain: stops after this step, with a checkpoint")


def test_the_second_ctrl_c_ends_at_once(launch: Launch, tmp_path: Path) -> None:
    def meanwhile(job: Job) -> None:
        job.wait_for_step(1)  # which is written when the next one ends, or begins
        time.sleep(0.5)
        job.interrupt()
        time.sleep(1)
        job.interrupt()

    words = ("lenet", "--compute-seconds", 0.06)  # a step is 3.8 s
    ended = launch(*words, out=tmp_path / "run", meanwhile=meanwhile)
    assert ended.code == 130
    assert ended.sentences[-1].endswith(": interrupted")
    assert not ended.events("end")


def test_a_suspended_job_goes_on(launch: Launch, tmp_path: Path) -> None:
    """SLURM stops all of a job's processes, for hours, and lets them go on."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(5)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in (0, 1):
                job.kill(rank, number, with_its_witness=True)
            time.sleep(6 if number == signal.SIGSTOP else 0)
        for rank in (0, 1):
            job.kill(rank, signal.SIGUSR1)

    words = ("lenet", "--steps", 100_000, "--stall-seconds", 4)
    ended = launch(*words, ranks=2, out=tmp_path / "run", meanwhile=meanwhile)
    launch.ends_with(ended, STOPPED)
    assert ended.end["exit"] == STOPPED
    assert ended.sentences == []


def test_a_rank_that_is_leaving_keeps_its_code_when_it_is_told_to_end(
    launch: Launch, tmp_path: Path
) -> None:
    """As by srun --kill-on-bad-exit, when another rank has left with 75 before it."""

    def meanwhile(job: Job) -> None:
        job.wait_for_step(5)
        job.kill(0, signal.SIGUSR1)
        job.wait_for('"event": "end"')
        for rank in (0, 1):
            job.kill(rank, signal.SIGTERM)

    ended = launch("lenet", "--steps", 1000, ranks=2, out=tmp_path / "run", meanwhile=meanwhile)
    launch.ends_with(ended, STOPPED)
    assert ended.end["exit"] == STOPPED


def averages(out: Path) -> dict[str, bytes]:
    """The moving averages of all weights in the last checkpoint. (Those of statistics were averaged
    over ranks once more in the run that stopped.)"""
    tensors = load_file(out / "checkpoints" / "step-00000020.safetensors")
    found = {name: values.tobytes() for name, values in tensors.items() if "ema/" in name}
    assert any(name.endswith("running_mean") for name in found)
    return {name: values for name, values in found.items() if "running" not in name}


@pytest.mark.parametrize(
    ("exchange", "update", "more"),
    [
        ("dynamic8", "replicated", ("--nesterov",)),
        ("float16", "root", ("--clip-norm", 0.5)),
        ("float32", "root", ("--ema", 0.9)),
    ],
)
def test_dropout_batch_norm_and_augmentation_go_on_in_the_middle_of_an_epoch(
    launch: Launch,
    tmp_path: Path,
    small_network: Path,
    small_data: Path,
    exchange: str,
    update: str,
    more: tuple[object, ...],
) -> None:
    """Ten steps an epoch, stopped after 13 of 20."""
    arguments = (
        small_network, "--data", small_data, "--steps", 20, "--augment", "crop,flip",
        "--exchange", exchange, "--update", update, "--schedule", "step", "--warmup", 5,
        *more,
    )  # fmt: skip
    straight = launch.trains(*arguments, ranks=3, out=tmp_path / "straight")
    out = tmp_path / "stopped"
    stopped = launch(
        *arguments, "--inject", "kind=term,rank=2,step=12,phase=forward", ranks=3, out=out
    )
    launch.ends_with(stopped, STOPPED)
    assert stopped.end["step"] == 13
    resumed = launch.trains(*arguments, "--resume", ranks=3, out=out)
    assert resumed.weights == straight.weights
    if "--ema" in more:
        assert averages(out) == averages(tmp_path / "straight")
    (before, *_), (after, *_) = straight.events("evaluate")[-1:], resumed.events("evaluate")[-1:]
    assert abs(before["loss"] - after["loss"]) < 1e-5


def test_a_run_that_never_saved_goes_on_from_its_beginning(launch: Launch, tmp_path: Path) -> None:
    """A job that SLURM starts again before its first checkpoint, whose last line of the log may be
    cut."""
    out, arguments = tmp_path / "run", ("lenet", "--steps", 4)
    straight = launch.trains(*arguments, "--resume", ranks=2, out=tmp_path / "straight")
    assert (
        f"no checkpoint in {tmp_path / 'straight'}/checkpoints yet, so it starts from the beginning"
        in straight.out
    )
    launch(*arguments, "--inject", "kind=kill,rank=1,step=3,phase=scatter", ranks=2, out=out)
    with (out / "log.jsonl").open("a") as log:
        log.write('{"event": "st')
    again = launch.trains(
        *arguments, "--resume", ranks=2, out=out, env={"SLURM_RESTART_COUNT": "2"}
    )
    assert again.weights == straight.weights
    assert [(start["step"], start["restarts"]) for start in again.events("start")] == [
        (0, 0),
        (0, 2),
    ]
    steps = [event["step"] for event in again.events("step")]
    assert steps[:2] == [1, 2] and steps[-4:] == [1, 2, 3, 4]
    assert "SLURM has started this job again: restart 2" in again.out


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def flip(whole: bytes) -> bytes:
    """One bit of a weight."""
    place = len(whole) // 2
    return whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]


def foreign(whole: bytes) -> bytes:
    return save({"fc.weight": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (cut, "is not a whole safetensors file"),
        (flip, "is damaged"),
        (foreign, "no settings of mpitrain"),
    ],
)
def test_a_newest_checkpoint_that_is_not_whole_is_passed_over_and_said(
    launch: Launch, tmp_path: Path, harm: Callable[[bytes], bytes], why: str
) -> None:
    """As after a power failure on a disk that lied about its flush."""
    out = tmp_path / "run"
    arguments = ("lenet", "--steps", 6, "--checkpoint-every", 2)
    straight = launch.trains(*arguments, out=out)
    newest = out / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(harm(newest.read_bytes()))
    named = launch(*arguments, "--resume", newest, out=out)
    launch.ends_with(named, 2)
    assert why in named.sentence() and newest.name in named.sentence()
    again = launch.trains(*arguments, "--resume", out=out)
    assert why in again.out and "passed over for step-00000004.safetensors" in again.out
    assert again.events("start")[-1]["step"] == 4
    assert again.weights == straight.weights


def test_a_plain_run_goes_on_with_another_number_of_ranks(launch: Launch, tmp_path: Path) -> None:
    arguments = ("lenet", "--exchange", "float32", "--no-dropout")
    straight = launch.trains(*arguments, "--steps", 8, ranks=2, out=tmp_path / "straight")
    launch.trains(*arguments, "--steps", 4, ranks=3, out=tmp_path / "run")
    resumed = launch.trains(*arguments, "--steps", 8, "--resume", ranks=1, out=tmp_path / "run")
    losses = [[event["loss"] for event in run.events("step")] for run in (straight, resumed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def left_out(path: Path) -> NDArray[np.float64]:
    """What coding has left out of the sum over a batch of 64, in all: the senders' residuals, and
    64 of the owners'."""
    tensors = {
        name: values.astype(np.float64)
        for name, values in load_file(path).items()
        if "/residual/" in name
    }
    senders = [values for name, values in tensors.items() if "/sender/" in name]
    owners = [tensors[name] for name in sorted(tensors) if "/owner/" in name]
    assert senders
    return np.array(
        [sum(senders).sum(), sum(values.sum() for values in owners) * 64 if owners else 0.0]
    )


@pytest.mark.parametrize("ranks", [2, 8])
def test_a_coded_run_goes_on_with_another_number_of_ranks(
    launch: Launch, tmp_path: Path, ranks: int
) -> None:
    """All that the old ranks have left out is still there, spread over the new ones, before a step
    is done."""
    arguments = ("lenet", "--exchange", "dynamic8", "--no-dropout", "--steps")
    saved = launch.trains(*arguments, 4, ranks=4, out=tmp_path / "four")
    path = tmp_path / "four" / "checkpoints" / "step-00000004.safetensors"
    moved = launch.trains(*arguments, 4, "--resume", path, ranks=ranks, out=tmp_path / "moved")
    assert moved.weights == saved.weights
    was, now = left_out(path), left_out(tmp_path / "moved" / "checkpoints" / path.name)
    assert np.abs(was).min() > 0
    assert now.sum() == pytest.approx(was.sum(), rel=1e-4)
    assert (now[1] == 0) == (ranks == 2)  # two ranks swap whole vectors: there are no owners

    straight = launch.trains(*arguments, 16, "--resume", path, ranks=4, out=tmp_path / "straight")
    other = launch.trains(*arguments, 16, "--resume", ranks=ranks, out=tmp_path / "moved")
    losses = [[event["loss"] for event in run.events("step")] for run in (straight, other)]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert len(set(other.end["weights_sha256"])) == 1 and len(other.end["weights_sha256"]) == ranks


def test_a_coded_run_moves_to_another_update_and_to_an_exact_exchange(
    launch: Launch, tmp_path: Path
) -> None:
    arguments = ("lenet", "--resume", "--steps")
    launch.trains(*arguments, 2, "--exchange", "dynamic8", ranks=3, out=tmp_path / "run")
    moved = launch.trains(*arguments, 4, "--update", "replicated", ranks=3, out=tmp_path / "run")
    assert moved.events("start")[-1]["exchange"] == "dynamic8"
    assert moved.end["step"] == 4
    launch.trains(*arguments, 6, "--update", "root", ranks=3, out=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    low = launch.trains(*arguments, 7, "--exchange", "lowrank", ranks=3, out=tmp_path / "other")
    assert "step-00000006.safetensors stays out: lowrank does not take it up here" in low.out
    exact = launch.trains(*arguments, 8, "--exchange", "float32", ranks=3, out=tmp_path / "run")
    assert "what dynamic8 had left out of step-00000006.safetensors stays out" in exact.out
    again = launch.trains(*arguments, 10, "--exchange", "dynamic8", ranks=3, out=tmp_path / "run")
    assert again.weights and again.end["step"] == 10


def test_a_job_that_began_from_a_checkpoint_elsewhere_goes_on_with_the_same_words(
    launch: Launch, tmp_path: Path
) -> None:
    """As SLURM starts it again: before its first own checkpoint from there once more, then from its
    own."""
    straight = launch.trains("lenet", "--steps", 6, out=tmp_path / "straight")
    launch.trains("lenet", "--steps", 2, out=tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "step-00000002.safetensors"
    words = ("lenet", "--steps", 6, "--resume", path)
    killed = launch(*words, "--inject", "kind=kill,step=3,phase=forward", out=tmp_path / "run")
    assert killed.code
    stopped = launch(*words, "--inject", "kind=term,step=3,phase=forward", out=tmp_path / "run")
    launch.ends_with(stopped, STOPPED)
    ended = launch.trains(*words, out=tmp_path / "run")
    assert [start["step"] for start in ended.events("start")] == [2, 2, 4]
    assert ended.weights == straight.weights


def test_going_back_within_a_run_would_lose_its_later_steps(launch: Launch, tmp_path: Path) -> None:
    arguments = ("lenet", "--checkpoint-every", 2, "--steps")
    straight = launch.trains(*arguments, 6, out=tmp_path / "run")
    before = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert before[0].name == "step-00000002.safetensors"
    back = launch(*arguments, 6, "--resume", before[0], out=tmp_path / "run")
    launch.ends_with(back, 2)
    (said,) = back.sentences
    assert "its run has gone on to step-00000006.safetensors" in said
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == before
    beside = launch.trains(*arguments, 6, "--resume", before[0], out=tmp_path / "beside")
    assert beside.weights == straight.weights


def test_a_resumed_run_divides_its_parts_as_before(launch: Launch, tmp_path: Path) -> None:
    arguments = ("lenet", "--exchange", "dynamic8", "--steps")
    straight = launch.trains(*arguments, 4, "--sub-batch", 10, ranks=2, out=tmp_path / "straight")
    launch.trains(*arguments, 2, "--sub-batch", 10, ranks=2, out=tmp_path / "two")
    resumed = launch.trains(*arguments, 4, "--resume", ranks=2, out=tmp_path / "two")
    assert resumed.weights == straight.weights


def test_other_images_are_no_way_to_go_on(launch: Launch, tmp_path: Path) -> None:
    launch.trains("lenet", "--steps", 1, out=tmp_path / "run")
    other = launch(
        "lenet",
        "--steps",
        2,
        "--data",
        "synthetic:999",
        "--classes",
        10,
        "--resume",
        out=tmp_path / "run",
    )
    launch.ends_with(other, 2)
    assert "training images 1437, this one has 999" in other.sentences[0]


def test_images_that_have_changed_since_are_no_way_to_go_on(
    launch: Launch, small_network: Path, small_data: Path, tmp_path: Path
) -> None:
    """As many as before. The same ones may lie elsewhere."""
    out, data, moved = tmp_path / "run", tmp_path / "data.npz", tmp_path / "moved.npz"
    shutil.copy(small_data, data)
    launch.trains(small_network, "--steps", 1, "--data", data, out=out)
    data.rename(moved)
    launch.trains(small_network, "--steps", 2, "--data", moved, "--resume", out=out)
    with np.load(moved) as arrays:
        changed = dict(arrays)
    changed["images"][77, 0, 3, 3] ^= 1
    np.savez(data, **changed)
    other = launch(small_network, "--steps", 3, "--data", data, "--resume", ranks=2, out=out)
    launch.ends_with(other, 2)
    said = other.sentence()
    newest = out / "checkpoints" / "step-00000002.safetensors"
    assert f"the 160 training images in {data} are not those of its run (which had {moved})" in said
    assert said.endswith(f"--init {newest} begins a new run with its weights")
    launch.trains(
        small_network, "--steps", 1, "--data", data, "--init", newest, out=tmp_path / "new"
    )


def test_a_run_that_ends_early_is_done_on_every_rank_and_stays_so(
    launch: Launch, tmp_path: Path
) -> None:
    """Its weights do not move, so no score is better than the first."""
    words = ("lenet", "--steps", 9, "--lr", 1e-30, "--evaluate-every", 1, "--patience", 2)
    more = ("--keep", "best,1", "--exchange", "dynamic8", "--ema", 0.9)
    ended = launch.trains(*words, *more, ranks=2, out=tmp_path / "run")
    assert ended.end["step"] == 3 and "ends early (--patience 2)" in ended.out
    again = launch.trains(*words, *more, "--resume", ranks=2, out=tmp_path / "run")
    assert again.end["step"] == 3 and again.weights == ended.weights
