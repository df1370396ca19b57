"""What only an NVIDIA GPU shows, and `make test` elsewhere says that it has not seen."""

from __future__ import annotations

import pytest

from mpitrain.engine.engine import Engine
from mpitrain.runtime.nvidia import capability


def need(device: Engine) -> None:
    """Skip the test, with a reason, on a device that has none."""
    if capability(device.cl) < (8, 0):
        pytest.skip("no tensor cores here: --devices nvidia runs these on an NVIDIA GPU")
