"""Settings of a run from a file: a run's own config.toml, or one by hand that is like it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mpitrain.job import toml
from mpitrain.job.config import Run
from mpitrain.job.errors import UserError

RECORDED = (
    "exchange_chosen",
    "exchange_reason",
    "coded_from",
    "coders",
    "capacity",
    "read_chosen",
)
"""What a run adds to its settings in the table [run]: what it found, not what it was asked for."""
TABLES = ("run", "versions", "ranks")
"""Of a run's config.toml."""
OF_ONE_RUN = ("out", "resume", "trace", "inject", "quiet", "verbose", "json")
"""Settings of a run's own file that another run does not take over."""
LARGEST = 1 << 20
"""Bytes of a file that may be settings."""


def read(path: Path) -> dict[str, Any]:
    """Settings by name. path: a file, or a run directory, whose config.toml it means.

    Of a file that a run has written its place, its --resume and how it spoke are left out. Raises
    UserError, naming the file, for one that is not TOML and for what is no setting or cannot be.
    """
    path = path / "config.toml" if path.is_dir() else path
    tables = _tables(path)
    _check_names(path, "table", tables, TABLES)
    settings = tables.get("run")
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected a table [run], as a run's config.toml has it")
    known = [each.name for each in fields(Run)]
    _check_names(path, "setting", settings, (*known, *RECORDED))
    left_out = (*RECORDED, *(OF_ONE_RUN if "versions" in tables else ()))
    found = {name: value for name, value in settings.items() if name not in left_out}
    try:
        Run(**{"network": "lenet", **found})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return found


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; expected a run's config.toml")
    try:
        return toml.parse(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def _check_names(path: Path, kind: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise UserError(f"{path}: unknown {kind} {name[:80]!r}: {hint}")
