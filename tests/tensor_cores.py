"""Devices for tests of tensor cores; without any, the reason for a skip that `make test` prints."""

from __future__ import annotations

import pytest

from mpitrain.engine.engine import Engine
from mpitrain.engine.nvidia import Nvidia
from mpitrain.engine.registry import open_device


def open_nvidia(name: str) -> Nvidia:
    """A device of --devices with NVIDIA's kernels: those in plain OpenCL C run on any."""
    found = open_device(name.split()[0], engine="nvidia")
    assert isinstance(found, Nvidia)
    return found


def need(device: Engine) -> None:
    """Skip the running test unless the device has tensor cores and an engine that uses them."""
    if not isinstance(device, Nvidia) or device.capability < (8, 0):
        pytest.skip("no tensor cores here: --devices nvidia runs these on an NVIDIA GPU")
