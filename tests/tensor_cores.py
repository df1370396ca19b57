"""Skip tests of tensor cores where there are none, with a reason that `make test` prints."""

from __future__ import annotations

import pytest

from mpitrain.engine.engine import Engine
from mpitrain.runtime.nvidia import capability


def need(device: Engine) -> None:
    """Skip the running test unless the device has tensor cores."""
    if capability(device.cl) < (8, 0):
        pytest.skip("no tensor cores here: --devices nvidia runs these on an NVIDIA GPU")
