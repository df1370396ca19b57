"""What was measured is remembered by device, problem, size and cores, and a file that is no such
thing is thrown away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpitrain.runtime.tuned import TunedChoices


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_nearest_size_and_number_of_cores_is_taken(cache: Path) -> None:
    memory = TunedChoices("a device", 2)
    memory.keep("forward", 4, "direct", {"direct": {"seconds": 1.0}})
    memory.keep("forward", 64, "winograd4", {})
    TunedChoices("a device", 8).keep("forward", 4, "winograd2", {})
    memory = TunedChoices("a device", 2)
    assert [memory.choice("forward", size) for size in (1, 4, 15, 17, 900)] == [
        "direct",
        "direct",
        "direct",
        "winograd4",
        "winograd4",
    ]
    assert TunedChoices("a device", 6).choice("forward", 4) == "winograd2"
    assert memory.choice("backward data", 4) is None
    assert memory.knows("forward", 4) and not memory.knows("forward", 5)
    assert not TunedChoices("a device", 3).knows("forward", 4)


def test_what_is_measured_again_replaces_what_was(cache: Path) -> None:
    memory = TunedChoices("a device", 2)
    memory.keep("forward", 4, "direct", {})
    memory.keep("forward", 4, "winograd4", {})
    assert TunedChoices("a device", 2).choice("forward", 4) == "winograd4"


def test_two_that_write_lose_nothing_of_each_other(cache: Path) -> None:
    first, second = TunedChoices("a device", 2), TunedChoices("a device", 2)
    first.keep("forward", 4, "direct", {})
    second.keep("backward data", 4, "winograd4", {})
    both = TunedChoices("a device", 2)
    assert (both.choice("forward", 4), both.choice("backward data", 4)) == ("direct", "winograd4")


def test_devices_do_not_share(cache: Path) -> None:
    TunedChoices("a device", 2).keep("forward", 4, "direct", {})
    assert TunedChoices("another", 2).choice("forward", 4) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"format": 0}',
        b'{"format": 1, "device": "another", "problems": {}}',
        b'{"format": 1, "device": "a device", "problems": '
        b'{"forward": [{"size": 0, "units": 2, "choice": "direct"}]}}',
        b'{"format": 1, "device": "a device", "problems": {"forward": 7}}',
    ],
)
def test_an_unreadable_file_is_deleted_and_written_anew(cache: Path, content: bytes) -> None:
    path = TunedChoices("a device", 2).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    memory = TunedChoices("a device", 2)
    assert memory.choice("forward", 4) is None and not path.exists()
    memory.keep("forward", 4, "direct", {})
    assert json.loads(path.read_bytes())["problems"]["forward"][0]["choice"] == "direct"
    assert [each.name for each in path.parent.iterdir()] == [path.name], "a temporary file is left"
