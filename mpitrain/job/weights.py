"""Weights in a file of whatever kind: a safetensors file, or one of PyTorch's (.pth)."""

from __future__ import annotations

from pathlib import Path

from mpitrain.job.checkpoint import Reader
from mpitrain.job.errors import UserError
from mpitrain.job.pth import PthReader, is_pth


def open_weights(path: Path) -> Reader | PthReader:
    """Raises UserError for a file that is neither."""
    try:
        pth = is_pth(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    return PthReader(path) if pth else Reader(path)
