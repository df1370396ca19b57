"""Table 3: LeNet in training at batch 64, images a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paper import training
from paper.published import TABLE3
from paper.sheet import Sheet
from paper.task import Found, Options

TITLE = "Table 3: LeNet in training, images/s"
NETWORKS = ("lenet",)
brief = training.brief


def count(options: Options) -> int:
    return len(NETWORKS)


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    return training.measure(NETWORKS, options, found)


def sheets(found: Found) -> Sequence[Sheet]:
    return [training.sheet(TITLE, TABLE3, found)]


def draw(found: Found, path: Path) -> None:
    training.draw(TABLE3, found, path)
