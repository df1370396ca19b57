"""docs/scaling.md has the tables that benchmarks/projections.py makes of the results that are
there."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def projections(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("projections")


def test_the_page_has_the_tables_that_the_model_makes(projections: ModuleType) -> None:
    page = projections.PAGE.read_text()
    assert projections.filled(page) == page, "python benchmarks/projections.py writes them"
    assert page.count("<!-- end -->") == len(projections.tables())


def test_the_model_is_near_what_was_measured(projections: ModuleType) -> None:
    errors = sorted(abs(each.error) for each in projections.checks())
    assert len(errors) > 40 and errors[len(errors) // 2] < 0.1 and errors[-1] < 0.35
