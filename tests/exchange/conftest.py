"""What tests of the exchange share: values that no rank has set are seen to be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpitrain.runtime.array import Array


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host views that are not read (`Array.host(read=False)`) start as NaN, and codes as 0xFF."""
    beside = Array._beside

    @contextmanager
    def poisoned(array: Array) -> Iterator[NDArray[Any]]:
        with beside(array) as host:
            host.reshape(-1).view(np.uint8)[:] = 0xFF
            yield host

    monkeypatch.setattr(Array, "_beside", poisoned)
