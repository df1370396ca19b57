"""Programs: a compiler's error is shown with its place, and binaries are kept between runs."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyopencl as cl
import pytest

from mpitrain.engine.registry import open_device
from mpitrain.job.errors import RunError
from mpitrain.runtime import binaries, program
from mpitrain.runtime.array import Array
from mpitrain.runtime.bare import Unmarked
from mpitrain.runtime.device import Device

KERNELS = Path(__file__).parents[2] / "kernels"

BROKEN = '#line 1 "broken.cl"\n__kernel void one(__global float *y) {\n    y[0] = nonsense;\n}\n'
SMALL = """
from mpitrain.engine.registry import open_device
import numpy as np
device = open_device("intel")
x = device.upload(np.arange(100, dtype=np.float32) - 50)
device.program("relu").relu_forward(1, x, x, 100, 100, group=1)
print(int(x.download().sum()))
"""


def test_a_compilers_error_names_file_and_line(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "read_source", lambda name, kind: BROKEN)
    with pytest.raises(
        RunError, match=r"(?s)kernels/broken\.cl does not compile for .*broken\.cl:2:\d+.*nonsense"
    ):
        device.program("broken", UNIQUE=device.wide).built()


def test_lines_of_the_whole_text_are_those_of_the_file_again() -> None:
    """As NVIDIA's compiler counts them."""
    source = '#line 1 "a.cl"\n#line 1 "b.h"\nint b;\n\n#line 2 "a.cl"\nint a;\n'
    said = "".join(f"<kernel>:{line}:5: error\n" for line in (3, 4, 6, 7))
    assert program._placed(said, source).split("\n")[:4] == [
        "b.h:1:5: error",
        "b.h:2:5: error",
        "a.cl:2:5: error",
        "<kernel>:7:5: error",
    ]


def test_includes_keep_the_lines_of_the_file(device: Device) -> None:
    source = program.read_source("gemm", ("cpu",))
    assert "#include" not in source and '#line 1 "prelude.h"' in source
    lines = (KERNELS / "cpu" / "gemm.cl").read_text().splitlines()
    after = lines.index('#include "prelude.h"') + 2
    assert f'\n#line {after} "cpu/gemm.cl"' in source


def test_a_missing_kernel_file_is_said() -> None:
    with pytest.raises(RunError, match=r"no kernel file nothing\.cl or cpu/nothing\.cl"):
        program.read_source("nothing", ("cpu",))


def test_binaries_are_kept_and_made_anew_when_they_are_broken(tmp_path: Path) -> None:
    def run() -> str:
        environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", SMALL],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert run() == str(sum(range(50)))
    (kept,) = (tmp_path / "mpitrain" / "programs").glob("relu-*.bin")
    whole = kept.read_bytes()
    assert run() == str(sum(range(50))) and kept.read_bytes() == whole
    for harmed in (
        whole[:50],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        whole[binaries.CHECKSUM_BYTES :],
    ):
        kept.write_bytes(harmed)
        assert run() == str(sum(range(50)))
        assert kept.read_bytes() == whole


def test_work_items_are_rounded_up_to_whole_groups(device: Device) -> None:
    x = device.upload(np.full(700, -1, np.float32))
    device.program("relu").relu_forward(3, x, x, 700, 256, group=device.group)
    assert (x.download() == 0).all()


def test_a_program_is_built_once_for_each_set_of_definitions(device: Device) -> None:
    first = device.program("relu")
    assert device.program("relu") is first
    assert device.program("relu", UNUSED=1) is not first


def test_a_kept_binary_is_used_for_the_same_source_and_definitions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device, source = open_device("intel"), program.read_source("relu", ("cpu",))
    definitions = {"WIDTH": 8, "GROUP": 1}
    program.Program(device, "relu", definitions)

    def refuse(*_: object) -> None:
        raise AssertionError("it compiles")

    monkeypatch.setattr(program, "_compile", refuse)
    y = device.upload(np.full(64, -1, np.float32))
    program.Program(device, "relu", definitions).relu_forward(1, y, y, 64, 64, group=1)
    assert (y.download() == 0).all()
    with pytest.raises(AssertionError, match="it compiles"):
        program.Program(device, "relu", {**definitions, "WIDTH": 4})
    monkeypatch.setattr(program, "read_source", lambda name, kind: source + "\n")
    with pytest.raises(AssertionError, match="it compiles"):
        program.Program(device, "relu", definitions)


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    device = open_device("intel")
    y = device.upload(np.full(64, -1, np.float32))
    program.Program(device, "relu", {"WIDTH": 8, "GROUP": 1}).relu_forward(1, y, y, 64, 64, group=1)
    assert (y.download() == 0).all()


def test_two_dimensions_are_rounded_up_each(device: Device) -> None:
    """2 x 3 work-items in groups of 1 x 2 are 2 x 4: planes 2 and 3 are whole, too."""
    x, normal = (
        device.upload(np.ones((4, 2), np.float32)),
        device.upload(np.array([2, 1], np.float32)),
    )
    y = device.zeros((4, 2))
    device.program("images", PIXEL="float", BLOCK=1).images(
        (2, 3), y, x, normal, 1, 2, 1, group=(1, 2)
    )
    assert (y.download() == 3).all()


def test_no_work_items_are_no_work(device: Device) -> None:
    x = device.upload(np.full(8, -1, np.float32))
    device.program("relu").relu_forward(0, x, x, 8, 8, group=device.group)
    assert (x.download() == -1).all()


def relu(launches: program.Launches, device: Device, x: Array) -> None:
    kernel = device.program("relu").relu_forward
    launches.queue(kernel, 256, x, x, x.size, 256, group=device.group)


def test_calls_with_the_same_bytes_are_prepared_once(device: Device) -> None:
    launches, x = program.Launches(device), device.zeros((1024,))
    for start in (256, 512, 256):
        x.fill(-1)
        relu(launches, device, x.part(start, start + 256))
        assert x.download().sum() == 256 - 1024
        assert (x.download()[start : start + 256] == 0).all()
    assert len(x.memory.launches) == 2


def test_the_oldest_launches_go_where_there_are_too_many(device: Device) -> None:
    launches, x = program.Launches(device, limit=2), device.zeros((1024,))
    for start in (0, 256, 512, 0):
        x.fill(-1)
        relu(launches, device, x.part(start, start + 256))
        assert (x.download()[start : start + 256] == 0).all()
    assert len(x.memory.launches) == 2


def test_launches_go_with_their_keeper_and_leave_no_memory_behind(device: Device) -> None:
    launches, x, y = program.Launches(device), device.zeros((256,)), device.zeros((256,))
    kernel = device.program("relu").relu_forward
    launches.queue(kernel, 256, y, x, 256, 256, group=device.group)
    gone = weakref.ref(y.memory)
    del y, launches
    assert gone() is None
    assert not x.memory.launches


def test_what_is_recorded_is_not_kept_beside_the_recording(device: Device) -> None:
    launches, x = program.Launches(device), device.upload(np.full(256, -1, np.float32))
    device.recorded = commands = []
    relu(launches, device, x)
    device.recorded = None
    assert x.download().sum() == 0
    x.fill(-1)
    commands[0]()
    assert x.download().sum() == 0
    assert not launches._known


def test_a_prepared_launch_can_be_waited_for(device: Device) -> None:
    """By an event of its own or, where a GPU's launches have none, by a marker."""
    x = device.upload(np.full(4096, -1, np.float32))
    y = device.empty(x.shape)
    relu = device.program("relu").relu_forward
    launch = relu.prepare(4096 // device.wide, y, x, x.size, device.wide, group=device.group)
    device.finish()
    launch()
    assert isinstance(device.last, Unmarked) != device.shares_memory
    mark = device.mark()
    mark.wait()
    assert mark.done() and not isinstance(device.last, Unmarked)
    assert not y.download().any()
    launch()
    device.settle()
    assert device.last is None


def test_a_launch_that_is_refused_says_why(device: Device) -> None:
    x = device.empty((64,))
    launch = device.program("relu").relu_forward.prepare(64, x, x, 64, 1, group=1 << 20)
    with pytest.raises(cl.LogicError, match="GROUP_SIZE"):
        launch()


def test_launches_have_events_while_times_are_kept(device: Device) -> None:
    x = device.zeros((64,))
    launch = device.program("relu").relu_forward.prepare(
        64 // device.wide, x, x, 64, device.wide, group=device.group
    )
    device.keep_times(True)
    try:
        launch()
        event: Any = device.last
        event.wait()
        assert event.profile.end >= event.profile.start
    finally:
        device.keep_times(False)
