"""Kernels that take a number for a buffer, where a device lets them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mpitrain.engine.nvidia import Nvidia
from mpitrain.engine.registry import open_device
from mpitrain.job.errors import RunError
from mpitrain.runtime import addresses, binaries, program
from mpitrain.runtime.device import Device


def test_a_device_that_wants_buffers_gets_them_still() -> None:
    """Every runtime for CPUs does."""
    device = open_device("cpu")
    assert "kernel file" in str(addresses.offer(device))
    assert device.addresses is None
    x = device.upload(np.full(64, -1, np.float32))
    device.program("relu").relu_forward(1, x, x, 64, 64, group=1)
    assert (x.download() == 0).all()


def test_binaries_by_address_are_not_those_by_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a driver get the one for the other."""
    places, device = [], open_device("intel")

    def place(*facts: str) -> Path:
        places.append(binaries.place(*facts))
        raise RunError("that was all")

    monkeypatch.setattr(program, "binaries", SimpleNamespace(place=place))
    for known in (None, object()):
        device.addresses = known  # type: ignore[assignment]
        with pytest.raises(RunError, match="that was all"):
            program.Program(device, "relu", {"WIDTH": 8, "GROUP": 1})
    assert len(set(places)) == 2


def test_nvidias_gpus_take_addresses(device: Device) -> None:
    assert bool(device.addresses) == isinstance(device, Nvidia)
    x = device.zeros((512,))
    part = x.part(128, 256)
    if device.addresses:
        assert int(part.argument) - int(x.argument) == 512
    else:
        assert part.argument is part.buffer and x.argument is x.memory.buffer
