"""The digits that come with mpitrain: 1,797 real handwritten ones, enough to see LeNet learn in a
minute.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998,
doi:10.24432/C50P49, CC BY 4.0 (digits.txt). tests/data/make_digits.py made digits.npz.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mpitrain.data.dataset import Dataset
from mpitrain.data.npz import open_npz

DIGITS = Path(__file__).with_name("digits.npz")


def open_digits(*, classes: int | None = None) -> Dataset:
    """1,437 training and 360 test images uint8 (1, 28, 28), 10 classes."""
    names = tuple("0123456789") if classes in (None, 10) else ()
    return replace(open_npz(DIGITS, classes=classes), name="digits", class_names=names)
