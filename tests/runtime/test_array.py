"""Arrays on a device hold what they are given, and views see their part of it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

from mpitrain.job.errors import RunError
from mpitrain.runtime.array import Array, load
from mpitrain.runtime.device import Device, Mark

VALUES = np.arange(1024, dtype=np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4)])
def test_upload_then_download_is_the_identity(
    device: Device, shape: tuple[int, ...], dtype: type
) -> None:
    host = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    found = device.upload(host).download()
    assert found.dtype == host.dtype and found.shape == host.shape
    np.testing.assert_array_equal(found, host)


def test_a_part_is_a_view(device: Device) -> None:
    whole = device.upload(VALUES)
    part = whole.part(256, 512)
    part.fill(-1)
    part.reshape((4, 64)).part(128, 192).write(np.full(64, 9, np.float32))
    wanted = VALUES.copy()
    wanted[256:512], wanted[384:448] = -1, 9
    np.testing.assert_array_equal(whole.download(), wanted)


@pytest.mark.parametrize(("start", "stop"), [(1, 10), (0, 1025), (512, 256), (-128, 0)])
def test_a_part_must_lie_inside_and_start_aligned(device: Device, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="must lie inside and start at a multiple of 512 bytes"):
        device.upload(VALUES).part(start, stop)


def test_a_view_cannot_be_larger_than_its_array(device: Device) -> None:
    with pytest.raises(ValueError, match="too few elements"):
        device.upload(VALUES).reshape((1025,))
    with pytest.raises(ValueError, match="cannot write"):
        device.upload(VALUES).write(np.zeros(1025, np.float32))
    with pytest.raises(ValueError, match="cannot write"):
        device.upload(VALUES).write(np.zeros(4, np.float64))


def test_what_the_host_view_changes_is_on_the_device(device: Device) -> None:
    whole = device.upload(VALUES)
    with whole.part(256, 512).host(write=True) as host:
        host *= 2
    with whole.host() as host:
        np.testing.assert_array_equal(
            host[250:260], [250, 251, 252, 253, 254, 255, 512, 514, 516, 518]
        )


def test_a_host_view_that_is_all_written_need_not_be_read(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = device.upload(VALUES)
    with monkeypatch.context() as patch:
        patch.setattr(Array, "_read", None)
        with whole.part(256, 512).host(write=True, read=False) as host:
            host[:] = 7
    np.testing.assert_array_equal(whole.download()[255:257], [255, 7])
    np.testing.assert_array_equal(whole.download()[511:513], [7, 512])


def test_copies_take_the_beginning(device: Device) -> None:
    to, origin = device.zeros((512,)), device.upload(VALUES)
    to.part(256, 512).copy_from(origin.part(512, 1024))
    np.testing.assert_array_equal(to.download(), np.append(np.zeros(256), VALUES[512:768]))
    with pytest.raises(ValueError, match="cannot copy"):
        origin.copy_from(to)


def test_npy_files_come_back(device: Device, tmp_path: Path) -> None:
    device.upload(VALUES.reshape(32, 32)).save(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), VALUES.reshape(32, 32))
    np.testing.assert_array_equal(
        load(device, tmp_path / "a.npy").download(), VALUES.reshape(32, 32)
    )


def test_a_scope_gives_back_what_was_made_in_it(device: Device) -> None:
    before = device.allocated
    kept = device.upload(VALUES)
    with device.scope():
        device.zeros((1 << 20,))
        assert device.allocated == before + kept.nbytes + (4 << 20)
    assert device.allocated == before + kept.nbytes
    np.testing.assert_array_equal(kept.download(), VALUES)


def test_more_than_the_device_gives_is_said(device: Device) -> None:
    with pytest.raises(
        RunError,
        match=r"gives at most \d+ MiB at once, \d+ MiB wanted; a smaller --sub-batch helps",
    ):
        device.empty((device.largest // 4 + 1024,))


def test_the_end_of_a_scope_releases_and_the_end_of_a_view_does_not(device: Device) -> None:
    """pyopencl itself refuses to release what is released already."""
    kept = device.upload(VALUES)
    with device.scope():
        inside = device.upload(VALUES)
        kept.part(256, 512).release()
        kept.reshape((4,)).release()
    with pytest.raises(cl.LogicError, match="double-unref"):
        inside.memory.buffer.release()
    np.testing.assert_array_equal(kept.download(), VALUES)
    kept.release()
    kept.release()  # a second time is nothing
    with pytest.raises(cl.LogicError, match="double-unref"):
        kept.memory.buffer.release()


def test_a_scope_within_a_scope_gives_back_its_own(device: Device) -> None:
    before = device.allocated
    with device.scope():
        outer = device.upload(VALUES)
        with pytest.raises(ZeroDivisionError), device.scope():
            device.zeros((512,))
            raise ZeroDivisionError
        assert device.allocated == before + outer.nbytes
        np.testing.assert_array_equal(outer.download(), VALUES)
    assert device.allocated == before


def test_a_host_view_ends_with_its_block_even_by_an_error(device: Device) -> None:
    whole = device.upload(VALUES)
    with pytest.raises(ZeroDivisionError), whole.host(write=True) as host:
        assert whole.memory.buffer.map_count == (device.long_items)
        raise ZeroDivisionError
    device.finish()  # Intel's runtime counts it when its turn has come
    assert host.shape == VALUES.shape and whole.memory.buffer.map_count == 0


def test_a_host_view_of_a_cpu_is_the_memory_itself(device: Device) -> None:
    whole = device.upload(VALUES)
    with whole.host() as first:
        place = first.ctypes.data
    with whole.part(128, 256).host() as second:
        apart = second.ctypes.data - place
    assert (apart == 512) == (device.long_items)


@pytest.mark.parametrize("value", [0, -2.5, np.nan, np.inf])
def test_a_fill_sets_every_element_and_no_other(device: Device, value: float) -> None:
    whole = device.upload(VALUES)
    whole.part(128, 1000).fill(value)
    wanted = VALUES.copy()
    wanted[128:1000] = value
    np.testing.assert_array_equal(whole.download(), wanted)


def test_nothing_can_be_filled_copied_and_seen(device: Device) -> None:
    none, other = device.zeros((0, 4)), device.empty((3, 0))
    none.copy_from(other)
    none.write(np.zeros((0,), np.float32))
    with none.host(write=True) as host:
        assert host.shape == (0, 4)
    assert none.part(0, 0).download().shape == (0,)


def test_a_second_queue_works_on_the_same_memory(device: Device) -> None:
    beside = device.beside()
    assert beside is device.beside()
    x = device.zeros((1024,))
    mark = device.mark()
    mark.wait()
    assert mark.done()
    x.on(beside).part(512, 1024).fill(3.0)
    beside.finish()
    assert x.download().sum() == 3 * 512


@pytest.mark.parametrize("failed", [0, 1])
def test_a_failed_command_is_not_done(device: Device, failed: int) -> None:
    """Whichever of those before a mark it is."""
    events = [cl.UserEvent(device.context) for _ in range(2)]
    mark = Mark(*events)
    assert not mark.done()
    complete = int(cl.command_execution_status.COMPLETE)
    for number, event in enumerate(events):
        event.set_status(-5 if number == failed else complete)
    for ask in (mark.done, mark.wait):
        with pytest.raises(RunError, match=r"work on the device failed \(-5\)"):
            ask()


def test_memory_gives_back_launches_and_parts_before_itself(device: Device) -> None:
    whole = device.upload(VALUES)
    part = whole.part(256, 512)
    launch = device.program("relu").relu_forward.prepare(
        1, part, part, 256, 256, group=device.group
    )
    launch()
    memory = whole.memory
    assert memory.launches == {launch}
    whole.release()
    assert launch._kernel is None
    assert not memory.launches
    assert not memory._parts


def test_launches_in_a_circle_go_when_the_collector_comes(device: Device) -> None:
    array = device.upload(VALUES)
    launch = device.program("relu").relu_forward.prepare(
        1, array, array, 256, 256, group=device.group
    )
    gone = weakref.ref(launch)
    del array, launch
    gc.collect()
    assert gone() is None


def test_host_arrays_that_have_arrived_are_let_go(device: Device) -> None:
    array = device.upload(VALUES)
    for _ in range(5):
        array.send(VALUES.copy())
        array.download()
    assert len(device._held) <= 1
