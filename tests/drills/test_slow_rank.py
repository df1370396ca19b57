"""A slow rank: it gets fewer images and is named, and what is learnt is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launcher import Ended, Launch

ARGUMENTS = ("lenet", "--steps", 12, "--no-dropout", "--inject", "rank=1,slow=0.02")
"""So slow that no other program on this machine comes near."""


@pytest.fixture(scope="module")
def by_speed(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    out = tmp_path_factory.mktemp("balance") / "run"
    return launch.trains(
        *ARGUMENTS, "--exchange", "float32", "--balance", "speed", ranks=2, out=out
    )


def test_a_slow_rank_gets_fewer_images_and_is_named(by_speed: Ended) -> None:
    (found,) = by_speed.events("balance")
    assert found["straggler"] == 1
    assert found["cost"] > 0.1
    assert sum(found["parts"]) == 64
    assert found["parts"][1] < 24 < found["parts"][0]
    assert (
        f"rank 1 makes steps {found['cost']:.0%} longer; it gets {found['parts'][1]} images of 64"
        in by_speed.out
    )


def test_parts_by_speed_learn_what_equal_parts_learn(
    launch: Launch, tmp_path: Path, by_speed: Ended
) -> None:
    equal = launch.trains(*ARGUMENTS, "--exchange", "float32", ranks=2, out=tmp_path / "equal")
    assert "--balance speed gives it fewer images" in equal.out
    losses = [[event["loss"] for event in run.events("step")] for run in (by_speed, equal)]
    assert np.ptp(losses, axis=0).max() < 1e-4
    assert by_speed.weights
    assert equal.weights


def test_a_resumed_run_starts_with_the_division_that_was(launch: Launch, tmp_path: Path) -> None:
    """With residuals, which do not depend on how images are divided."""
    coded = (*ARGUMENTS, "--exchange", "dynamic8", "--balance", "speed")
    out = tmp_path / "run"
    launch.trains(*coded, ranks=2, out=out)
    again = launch.trains(*coded, "--steps", 24, "--resume", ranks=2, out=out)
    first, second = again.events("balance")
    assert first["parts"][1] < 24
    assert second["parts"][1] < 24
    assert again.events("step")[-1]["step"] == 24
    assert again.weights
