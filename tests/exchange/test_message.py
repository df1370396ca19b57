"""Headers: what is sealed is accepted, and anything else is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpitrain.exchange.message import DELTAS, HEADER, NAMES, PARTS, Label, check, seal
from mpitrain.job.errors import RunError

LABEL = Label(codec=1, block=512, bucket=3, phase=PARTS, step=1 << 40, count=512)


def sealed() -> np.ndarray:
    message = np.arange(HEADER + 513).astype(np.uint8)
    seal(message, LABEL, 0.25)
    return message


def test_what_was_sealed_is_accepted() -> None:
    assert check(sealed(), LABEL, 2) == 0.25


FIELDS = ["codec", "block", "bucket", "phase", "step", "count"]


@pytest.mark.parametrize(("name", "field"), list(zip(NAMES, FIELDS, strict=True)))
def test_another_label_is_named_with_both_values(name: str, field: str) -> None:
    came = getattr(LABEL, field)
    expected = replace(LABEL, **{field: came + 1})
    with pytest.raises(
        RunError, match=f"message from rank 2: expected {name} {came + 1}, got {came}"
    ):
        check(sealed(), expected, 2)


@pytest.mark.parametrize("place", [0, 4, 5, 20, 32, HEADER - 1, HEADER, HEADER + 512])
def test_any_changed_byte_is_noticed(place: int) -> None:
    message = sealed()
    message[place] ^= 0x10
    with pytest.raises(RunError, match="message from rank 5"):
        check(message, LABEL, 5)


def test_phases_differ() -> None:
    with pytest.raises(RunError, match=f"expected phase {DELTAS}, got {PARTS}"):
        check(sealed(), replace(LABEL, phase=DELTAS), 0)
