"""Ranks that were not asked for the same end at once, all with 2 and one sentence that says what
differs.

`python tests/drills/test_disagree.py` tries all kinds and prints how long each took.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from launcher import Launch

KINDS: list[tuple[str, str, str]] = [
    ("lenet --lr 0.1", "lenet --lr 0.2", "--lr is 0.1 on rank 0, 0.2 on rank 1"),
    ("lenet", "lenet --lr -3", "--lr is 0.01 on rank 0, -3.0 on rank 1"),
    ("lenet --lr -3", "lenet", "--lr is -3.0"),
    ("lenet --update root", "lenet --update replicated", "--update is root"),
    ("lenet", "evaluate nothing.safetensors", "command is train on rank 0, evaluate on rank 1"),
    ("lenet", "--help", "command is train on rank 0, --help on rank 1"),
    ("--version", "lenet", "command is --version on rank 0, train on rank 1"),
    ("lenet", "summary lenet", "command is train on rank 0, summary on rank 1"),
    ("lenet", "lenet --lerning-rate 1", "rank 1: No such option"),
    ("lenet --batch-size many", "lenet", "rank 0: Invalid value"),
    ("lenet", "lenett", "network is lenet on rank 0, lenett on rank 1"),
    ("lenet", "vgg11", "network is lenet"),
    ("lenet", "lenet --seed 1", "--seed is 0"),
    ("lenet --steps 3", "lenet --steps 4", "--steps is 3"),
    ("lenet --epochs 3", "lenet", "--epochs is 3 on rank 0, not given on rank 1"),
    ("lenet", "lenet --batch-size 32", "--batch-size is not given"),
    ("lenet", "lenet --sub-batch 8", "--sub-batch is not given"),
    ("lenet", "lenet --augment flip", "--augment is not given"),
    ("lenet", "lenet --init x.safetensors", "--init is not given"),
    ("lenet", "lenet --checkpoint-every 3", "--checkpoint-every is 1ep"),
    ("lenet", "lenet --evaluate-every 3", "--evaluate-every is 1ep"),
    ("lenet", "lenet --exchange float32", "--exchange is auto"),
    ("lenet", "lenet --momentum 0.5", "--momentum is 0.9"),
    ("lenet", "lenet --weight-decay 0.1", "--weight-decay is not given"),
    ("lenet", "lenet --schedule cosine", "--schedule is constant"),
    ("lenet", "lenet --warmup 3", "--warmup is 0"),
    ("lenet", "lenet --no-streaming", "--no-streaming is False"),
    ("lenet", "lenet --precision tf32", "--precision is float32"),
    ("lenet", "lenet --balance speed", "--balance is equal"),
    ("lenet", "lenet --mean 0.5", "--mean is not given"),
    ("lenet", "lenet --std 0.5", "--std is not given"),
    ("lenet", "lenet --classes 12", "--classes is not given"),
    ("lenet", "lenet --skip-bad 1", "--skip-bad is 0"),
    ("lenet", "lenet --out other", "--out is not given"),
    ("lenet", "lenet --resume", "--resume is not given"),
    ("lenet", "lenet --no-dropout", "--no-dropout is False"),
    ("lenet", "lenet --compute-seconds 0.1", "--compute-seconds is not given"),
    ("lenet", "lenet --on-failure continue", "--on-failure is stop"),
    ("lenet", "lenet --stall-seconds 5", "--stall-seconds is 600"),
    ("lenet", "lenet --data synthetic", "--data is not given"),
    ("lenet", "lenet --json", "--json is False"),
    ("predict a.safetensors b.png", "predict a.safetensors c.png", "images is b.png"),
    ("", "lenet", "rank 0: "),
]
"""What ranks 0 and 1 are asked for, and words of the sentence."""
IN_SECONDS = 5.0


def disagree(launch: Launch, kind: tuple[str, str, str]) -> float:
    """Seconds until a job with these ranks has been refused."""
    first, second, words = kind
    ended = launch(each=[first.split(), second.split()])
    launch.ends_with(ended, 2)
    assert ended.out == ""
    assert words in ended.sentence(), ended.err
    return ended.seconds


@pytest.mark.parametrize("kind", KINDS[:10], ids=lambda kind: f"{kind[0]} : {kind[1]}")
def test_ranks_that_were_asked_for_different_things_are_refused(
    launch: Launch, kind: tuple[str, str, str]
) -> None:
    disagree(launch, kind)


def test_the_device_and_verbose_are_a_ranks_own(launch: Launch, tmp_path: Path) -> None:
    each = [["--device", "cpu", "--verbose"], ["--device", "auto"]]
    ended = launch("lenet", "--steps", 1, "--out", tmp_path / "run", each=each)
    assert ended.code == 0, ended.err


if __name__ == "__main__":
    scratch = Path(tempfile.mkdtemp())
    launcher = Launch(lambda name: Path(tempfile.mkdtemp(dir=scratch)))
    seconds = [disagree(launcher, kind) for kind in KINDS]
    late = sum(each > IN_SECONDS for each in seconds)
    print(f"{len(seconds)} kinds refused, {min(seconds):.1f} to {max(seconds):.1f} s, {late} later")
    sys.exit(late > 0)
