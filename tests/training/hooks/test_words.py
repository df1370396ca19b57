"""What is said of a step fits a terminal, and says how long the rest takes."""

from __future__ import annotations

import pytest

from mpitrain.training.hooks.evaluate import Scores
from mpitrain.training.hooks.words import clock, train_line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (183600, "2 d 03:00")],
)
def test_a_time_is_read_as_a_clock(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_a_line_labels_the_mean_and_fits_80_columns() -> None:
    line = train_line(0, 3, 22, 0.31671, 0.73642, 4101.4, "0:07")
    assert line == "Train:   0 [ 3/22] loss 0.3167 (mean 0.7364)  4101 img/s  0:07 left"
    longest = train_line(999, 10009, 10009, 10.31671, 10.73642, 12830.4, "23:59:59")
    assert len(longest) <= 80, longest


def test_the_last_step_leaves_nothing() -> None:
    assert train_line(0, 22, 22, 0.3, 0.7, 4101, "0:00").endswith("4101 img/s")


def test_top_5_of_five_classes_is_not_said() -> None:
    scores = Scores(0.5, 0.75, 1.0, 40)
    assert scores.words(5) == "loss 0.5000  top-1 0.7500  (40 images)"
    assert scores.words(6) == "loss 0.5000  top-1 0.7500  top-5 1.0000  (40 images)"
