"""Read and write TOML: network files, and a run's config.toml."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from mpitrain.job.errors import RunError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

TomlError = tomllib.TOMLDecodeError


def parse(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises TomlError, a ValueError, if the text is not TOML."""
    found: dict[str, Any] = tomllib.loads(text)
    return found


def write(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write tables as a TOML file; settings that are None are left out.

    Raises RunError if the file cannot be written.
    """
    content = {
        table: {name: value for name, value in facts.items() if value is not None}
        for table, facts in tables.items()
    }
    try:
        path.write_text(tomli_w.dumps(content))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
