"""A stopped run goes on as if nothing had been: a signal ends it with a checkpoint and 75, and --resume comes to the same weights."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from launcher import Job, Launch

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
    assert [e["loss"] for e in resumed.events("step")] == [e["loss"] for e in straight.events("step")]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_signal_from_outside(launch: Launch, tmp_path: Path, ranks: int, number: signal.Signals) -> None:
    """A large batch on its way to the other rank is no reason to hang at the end. The second signal, which SLURM sends, changes nothing."""

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


@pytest.mark.parametrize(
    ("exchange", "update"), [("dynamic8", "replicated"), ("float16", "root"), ("float32", "root")]
)
def test_dropout_batch_norm_and_augmentation_go_on_in_the_middle_of_an_epoch(
    launch: Launch, tmp_path: Path, small_network: Path, small_data: Path, exchange: str, update: str
) -> None:
    """Ten steps an epoch, stopped after 13 of 20."""
    arguments = (
        small_network, "--data", small_data, "--steps", 20, "--augment", "crop,flip",
        "--exchange", exchange, "--update", update, "--schedule", "step", "--warmup", 5,
    )  # fmt: skip
    straight = launch.trains(*arguments, ranks=3, out=tmp_path / "straight")
    out = tmp_path / "stopped"
    stopped = launch(*arguments, "--inject", "kind=term,rank=2,step=12,phase=forward", ranks=3, out=out)
    launch.ends_with(stopped, STOPPED)
    assert stopped.end["step"] == 13
    resumed = launch.trains(*arguments, "--resume", ranks=3, out=out)
    assert resumed.weights == straight.weights
    (before, *_), (after, *_) = straight.events("evaluate")[-1:], resumed.events("evaluate")[-1:]
    assert abs(before["loss"] - after["loss"]) < 1e-5


def test_a_newest_checkpoint_that_is_cut_is_passed_over(launch: Launch, tmp_path: Path) -> None:
    """As after a power failure on a disk that lied about its flush."""
    out = tmp_path / "run"
    arguments = ("lenet", "--steps", 6, "--checkpoint-every", 2)
    straight = launch.trains(*arguments, out=out)
    newest = out / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:100000])
    again = launch.trains(*arguments, "--resume", out=out)
    assert again.events("start")[-1]["step"] == 4
    assert again.weights == straight.weights


def test_a_plain_run_goes_on_with_another_number_of_ranks(launch: Launch, tmp_path: Path) -> None:
    arguments = ("lenet", "--exchange", "float32", "--no-dropout")
    straight = launch.trains(*arguments, "--steps", 8, ranks=2, out=tmp_path / "straight")
    launch.trains(*arguments, "--steps", 4, ranks=3, out=tmp_path / "run")
    resumed = launch.trains(*arguments, "--steps", 8, "--resume", ranks=1, out=tmp_path / "run")
    losses = [[event["loss"] for event in run.events("step")] for run in (straight, resumed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_coded_run_goes_on_with_the_same_ranks_alone(launch: Launch, tmp_path: Path) -> None:
    arguments = ("lenet", "--exchange", "dynamic8", "--resume")
    launch.trains(*arguments[:-1], "--steps", 2, ranks=3, out=tmp_path / "run")
    ended = launch(*arguments, "--steps", 4, ranks=2, out=tmp_path / "run")
    launch.ends_with(ended, 2)
    assert "saved by 3 ranks" in ended.sentence()
    assert "this job has 2" in ended.sentence()
    moved = launch.trains(*arguments, "--steps", 4, "--update", "replicated", ranks=3, out=tmp_path / "run")
    back = launch.trains(*arguments, "--steps", 6, "--update", "root", ranks=3, out=tmp_path / "run")
    assert moved.end["step"] == back.end["step"] == 6
    assert back.weights


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
        "lenet", "--steps", 2, "--data", "synthetic:999", "--classes", 10, "--resume", out=tmp_path / "run"
    )
    launch.ends_with(other, 2)
    assert "training images 1437, this one has 999" in other.sentences[0]
