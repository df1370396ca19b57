"""What must not depend on chance: ranks agree to the bit, runs repeat, and without lossy codes the
number of ranks does not matter."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from launcher import Launch

MANY = Path(__file__).with_name("many.py")


def test_losses_do_not_depend_on_the_number_of_ranks(launch: Launch, tmp_path: Path) -> None:
    losses = []
    for ranks in (1, 2, 3, 4):
        out = tmp_path / f"{ranks}"
        arguments = ("--steps", 20, "--exchange", "float32", "--no-dropout")
        run = launch.trains("lenet", *arguments, ranks=ranks, out=out)
        losses.append([event["loss"] for event in run.events("step")])
        assert len(run.end["weights_sha256"]) == ranks
        assert run.weights
    assert np.ptp(losses, axis=0).max() < 1e-4
    assert losses[0][-1] < 0.5 * losses[0][0]


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_ranks_agree_and_runs_repeat_whatever_the_exchange(
    launch: Launch, tmp_path: Path, small_network: Path, small_data: Path, ranks: int
) -> None:
    ended = launch(small_network, small_data, tmp_path, program=[sys.executable, MANY], ranks=ranks)
    assert ended.code == 0, ended.err
    hashes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in ended.out.splitlines():
        found = json.loads(line)
        assert len(found["hashes"]) == ranks
        hashes[found["exchange"], found["update"]] += found["hashes"]
    assert len(hashes) == 6
    for way, all_of_both in hashes.items():
        assert len(all_of_both) == 2 * ranks
        assert len(set(all_of_both)) == 1, way


def test_two_runs_of_one_command_are_one(launch: Launch, tmp_path: Path) -> None:
    runs = [
        launch.trains(
            "lenet",
            "--steps",
            5,
            "--exchange",
            "dynamic8",
            "--seed",
            seed,
            ranks=2,
            out=tmp_path / name,
        )
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert runs[0].weights == runs[1].weights != runs[2].weights
