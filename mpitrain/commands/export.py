"""`mpitrain export`: a checkpoint's weights for other programs, as safetensors or ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mpitrain.job import checkpoint
from mpitrain.job.checkpoint import Entry
from mpitrain.job.errors import RunError, UserError
from mpitrain.network.onnx_model import make_model
from mpitrain.network.trained import Trained, open_trained


def export(source: Path, file: Path, network: str | None = None, raw: bool = False) -> str:
    """Write the weights of a checkpoint to `file`, whose name's end says the format; returns what
    to say.

    network: `source` holds weights alone, of this network. raw: not the moving average of a run
    with --ema. Raises UserError for a format that is none, and rather than write over a file.
    """
    write = FORMATS.get(file.suffix.lower())
    if write is None:
        raise UserError(f"{file}: expected a name that ends in {' or '.join(FORMATS)}")
    if file.exists():
        raise UserError(f"{file} is there already")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
    with open_trained(source, network, averaged=not raw) as trained:
        write(trained, file)
        averaged = " (moving average)" if trained.reader.averaged and not raw else ""
        return (
            f"{file}: {trained.network.name}, {len(trained.shapes)} tensors{averaged}, "
            f"{file.stat().st_size:,} bytes"
        )


def _write_safetensors(trained: Trained, file: Path) -> None:
    """Weights and statistics under the network's names, which are torchvision's where it has the
    network."""
    entries = [
        Entry(name, shape, lambda name=name: [trained.read(name)])  # type: ignore[misc]
        for name, shape in trained.shapes.items()
    ]
    checkpoint.write(file, entries, {"format": "pt", "network": trained.network.name}, sealed=False)


def _write_onnx(trained: Trained, file: Path) -> None:
    content = make_model(trained).SerializeToString()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{file} cannot be written: {error.strerror or error}") from error


FORMATS: dict[str, Callable[[Trained, Path], None]] = {
    ".safetensors": _write_safetensors,
    ".onnx": _write_onnx,
}
