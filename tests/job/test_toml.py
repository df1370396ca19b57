"""What is written as TOML is read again as it was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mpitrain.job import toml
from mpitrain.job.errors import RunError


def test_numbers_and_characters_of_every_kind_come_back(tmp_path: Path) -> None:
    facts = {
        "inf": math.inf,
        "text": 'quote " and 🜁 and \\',
        "list": [1, 2],
        "yes": True,
        "float": 1e-05,
    }
    toml.write(tmp_path / "config.toml", {"run": {**facts, "none": None}})
    assert toml.parse((tmp_path / "config.toml").read_text()) == {"run": facts}


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        toml.write(tmp_path / "none" / "config.toml", {})
