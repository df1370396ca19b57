"""Arrays on a device hold what they are given, and views see their part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpitrain.report import RunError
from mpitrain.runtime.array import load
from mpitrain.runtime.device import Device

VALUES = np.arange(1024, dtype=np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4)])
def test_upload_then_download_is_the_identity(device: Device, shape: tuple[int, ...], dtype: type) -> None:
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
        np.testing.assert_array_equal(host[250:260], [250, 251, 252, 253, 254, 255, 512, 514, 516, 518])


def test_copies_take_the_beginning(device: Device) -> None:
    to, origin = device.zeros((512,)), device.upload(VALUES)
    to.part(256, 512).copy_from(origin.part(512, 1024))
    np.testing.assert_array_equal(to.download(), np.append(np.zeros(256), VALUES[512:768]))
    with pytest.raises(ValueError, match="cannot copy"):
        origin.copy_from(to)


def test_npy_files_come_back(device: Device, tmp_path: Path) -> None:
    device.upload(VALUES.reshape(32, 32)).save(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), VALUES.reshape(32, 32))
    np.testing.assert_array_equal(load(device, tmp_path / "a.npy").download(), VALUES.reshape(32, 32))


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
        RunError, match=r"gives at most \d+ MiB at once, \d+ MiB wanted; a smaller --sub-batch helps"
    ):
        device.empty((device.largest // 4 + 1024,))
