"""What is found out of a run before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpitrain.data import augment
from mpitrain.data.source import open_source
from mpitrain.job.config import Run
from mpitrain.job.errors import UserError
from mpitrain.training.prepare import check_looks


def check(source: str, **options: object) -> None:
    run = Run("lenet", data=source, **options)  # type: ignore[arg-type]
    data = open_source(source, shape_hint=(1, 28, 28), side=run.resize)
    check_looks(run, augment.parse(run.augment), data)


def test_only_photos_are_scaled_and_not_below_what_the_network_sees(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (40, 30)).save(tmp_path / "a" / "1.png")
    check(str(tmp_path), resize=28)
    check(str(tmp_path), resize=256, augment="resized,flip,jitter")
    with pytest.raises(UserError, match="--resize 27: expected at least 28, of which lenet sees"):
        check(str(tmp_path), resize=27)
    with pytest.raises(UserError, match=r"--resize 32: only photos .* are scaled, got digits"):
        check("digits", resize=32)


def test_colours_of_float_images_are_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    np.savez(file, images=np.zeros((2, 1, 28, 28), np.float32), labels=np.arange(2))
    check(str(file), augment="resized,flip")
    with pytest.raises(UserError, match="--augment jitter: expected uint8 images"):
        check(str(file), augment="jitter")
    check("digits", augment="jitter")
