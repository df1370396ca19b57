"""What writing a log brings along."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from mpitrain.job import toml
from mpitrain.job.log import Log, _absent


def test_a_module_that_is_not_wanted_cannot_be_imported_inside_alone() -> None:
    assert "this" not in sys.modules
    with _absent("this"), pytest.raises(ImportError):
        import this  # noqa: F401
    assert "this" not in sys.modules


def test_a_module_that_is_there_stays() -> None:
    with _absent("json"):
        import json
    assert sys.modules["json"] is json


def test_numbers_go_to_tensorboard_with_the_core_dependencies_alone(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    project = toml.parse((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=; ]", each)[0] for each in project["dependencies"]}
    assert "tensorboardX" in names
    log = Log(tmp_path)
    seconds = {"total": 0.5, "wait": 0.125, "data": 0.25}
    log.event("step", step=7, lr=0.25, images_per_second=64, seconds=seconds, bytes_sent=9)
    log.event("evaluate", step=7, top1=0.5)
    assert log.lacks == ""
    log.close()
    (path,) = tmp_path.glob("events.*")
    data, found = path.read_bytes(), []
    while data:  # a record: length, its checksum, bytes, their checksum
        (length,) = struct.unpack_from("<Q", data)
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    step, test = (
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in found
        if event.summary.value
    )
    assert step == (7, {
        "step/lr": 0.25, "step/images_per_second": 64, "seconds/total": 0.5,
        "seconds/wait": 0.125, "seconds/data": 0.25,
    })  # fmt: skip
    assert test == (7, {"evaluate/top1": 0.5})


def test_without_its_writer_there_are_no_events_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    log = Log(tmp_path)
    log.event("evaluate", step=7, top1=0.5)
    assert log.lacks == "no events for TensorBoard: tensorboardX is not installed"
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
