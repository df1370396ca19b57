"""Runs with low-rank factors: beside split layers, straight, resumed, and with other ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from launcher import Launch
from safetensors.numpy import load_file


def unsent(folder: Path, step: int) -> np.ndarray:
    """What all ranks have left out of the sum of gradients, each value at its place."""
    found = load_file(folder / "checkpoints" / f"step-{step:08}.safetensors")
    parts = [values for name, values in found.items() if "/residual/unsent/" in name]
    return np.sum(parts, axis=0, dtype=np.float64)


def test_what_was_left_out_goes_on_with_any_number_of_ranks(launch: Launch, tmp_path: Path) -> None:
    dense = ("--dense", "split:100000")
    words = ("lenet", "--exchange", "lowrank8:2", *dense, "--checkpoint-every", 4)
    straight = launch.trains(*words, "--steps", 7, ranks=3, out=tmp_path / "straight")
    assert straight.weights  # one hash over ranks
    path = tmp_path / "straight" / "checkpoints" / "step-00000004.safetensors"
    resumed = (*words, "--resume", path, "--steps")
    again = launch.trains(*resumed, 7, ranks=3, out=tmp_path / "again")
    assert again.weights == straight.weights
    moved = launch.trains(*resumed, 4, ranks=2, out=tmp_path / "moved")
    before, after = unsent(tmp_path / "straight", 4), unsent(tmp_path / "moved", 4)
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
    assert np.abs(before).max() > 0 and moved.weights
