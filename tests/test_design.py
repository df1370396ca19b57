"""The picture of docs/design.md shows the rooms that are there, on their floors, and real files."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from test_house import PACKAGE, ROOMS

PICTURE = Path(__file__).parents[1] / "docs/design.svg"
TEXT = "{http://www.w3.org/2000/svg}text"


def test_the_picture_has_each_room_on_its_floor() -> None:
    floors: dict[float, list[str]] = defaultdict(list)
    for text in ElementTree.parse(PICTURE).iter(TEXT):
        if text.get("class") == "name" and (text.text or "").islower():
            floors[float(text.attrib["y"])].append(str(text.text))
    drawn = [sorted(floors[height]) for height in sorted(floors, reverse=True)]
    assert drawn == [sorted(rooms) for rooms in ROOMS if "__init__" not in rooms]


def test_the_picture_names_files_that_are_there() -> None:
    files = re.findall(r"\b[\w/]+\.py\b", PICTURE.read_text())
    assert len(files) > 12
    for name in files:
        assert (PACKAGE / name).exists(), name
