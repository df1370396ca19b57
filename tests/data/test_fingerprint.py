"""Whether two ranks see the same data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpitrain.data.fingerprint import fingerprint
from mpitrain.data.source import open_source


def pictures(root: Path) -> Path:
    for name in ("train/a", "train/b", "val/b"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 9), (number * 40, 0, 0)).save(root / name / f"{number}.png")
    return root


def of(path: Path) -> str:
    return fingerprint(open_source(str(path), shape_hint=(3, 8, 8)))


def test_a_copy_is_the_same_and_every_change_of_the_listing_is_seen(tmp_path: Path) -> None:
    first = pictures(tmp_path / "first")
    other = tmp_path / "other"
    shutil.copytree(first, other)
    assert of(other) == of(first)
    shutil.rmtree(other)
    for change in (
        lambda: (other / "train/a/1.png").rename(other / "train/a/4.png"),
        lambda: (other / "train/a/1.png").rename(other / "train/b/4.png"),
        lambda: (other / "val/b/2.png").unlink(),
        lambda: shutil.rmtree(other / "val"),
        lambda: shutil.copy(other / "train/b/2.png", other / "train/b/0.png"),
        lambda: (other / "train/b/0.png").write_bytes(b""),
    ):
        shutil.copytree(first, other)
        change()
        assert of(other) != of(first)
        shutil.rmtree(other)


@pytest.mark.parametrize("spoil", ["labels", "images"])
def test_arrays_are_compared_too(tmp_path: Path, spoil: str) -> None:
    arrays = {"images": np.zeros((6, 3, 4, 4), np.uint8), "labels": np.arange(6)}
    np.savez(tmp_path / "a.npz", **arrays)
    before = of(tmp_path / "a.npz")
    arrays[spoil][0] = 5
    np.savez(tmp_path / "b.npz", **arrays)
    assert before == of(tmp_path / "a.npz") != of(tmp_path / "b.npz")


def test_what_is_made_up_is_the_same_everywhere() -> None:
    def made(seed: int) -> str:
        return fingerprint(open_source("synthetic:64", shape_hint=(3, 8, 8), seed=seed))

    assert made(0) == made(0) != made(1)
