"""What writing a log brings along."""

from __future__ import annotations

import sys

import pytest

from mpitrain.job.log import _absent


def test_a_module_that_is_not_wanted_cannot_be_imported_inside_alone() -> None:
    assert "this" not in sys.modules
    with _absent("this"), pytest.raises(ImportError):
        import this  # noqa: F401
    assert "this" not in sys.modules


def test_a_module_that_is_there_stays() -> None:
    with _absent("json"):
        import json
    assert sys.modules["json"] is json
