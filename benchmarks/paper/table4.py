"""Table 4: VGG16 at batch 16 and ResNet152 at batch 8 in training, images a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paper import training
from paper.published import TABLE4
from paper.sheet import Sheet
from paper.task import Found, Options

TITLE = "Table 4: VGG16 and ResNet152 in training, images/s"
NETWORKS = ("vgg16", "resnet152")
brief = training.brief


def count(options: Options) -> int:
    return len(_networks(options))


def measure(options: Options, found: Found) -> Iterator[dict[str, Any]]:
    return training.measure(_networks(options), options, found)


def _networks(options: Options) -> Sequence[str]:
    return ("lenet",) if options.small else NETWORKS


def sheets(found: Found) -> Sequence[Sheet]:
    return [training.sheet(TITLE, TABLE4, found)]


def draw(found: Found, path: Path) -> None:
    training.draw(TABLE4, found, path)
