"""Kernels that take a number for a buffer, where a device lets them."""

from __future__ import annotations

import numpy as np

from mpitrain.engine.nvidia import Nvidia
from mpitrain.engine.registry import open_device
from mpitrain.runtime import addresses
from mpitrain.runtime.device import Device


def test_a_device_that_wants_buffers_gets_them_still() -> None:
    """Every runtime for CPUs does."""
    device = open_device("cpu")
    assert "kernel file" in str(addresses.offer(device))
    assert device.addresses is None
    x = device.upload(np.full(64, -1, np.float32))
    device.program("relu").relu_forward(1, x, x, 64, 64, group=1)
    assert (x.download() == 0).all()


def test_nvidias_gpus_take_addresses(device: Device) -> None:
    assert bool(device.addresses) == isinstance(device, Nvidia)
    x = device.zeros((512,))
    part = x.part(128, 256)
    if device.addresses:
        assert int(part.argument) - int(x.argument) == 512
    else:
        assert part.argument is part.buffer and x.argument is x.memory.buffer
