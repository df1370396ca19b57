"""Training steps of the command on a GPU, in each precision, after PyTorch's on the same one.

Both take batches from host memory. PyTorch computes in strict float32, TF32 or autocast to
bfloat16, with cuDNN's benchmark on, in the faster of its two layouts; beside `high` it computes in
float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import Side, rates, ratios, spread
from rich.table import Table
from steps import LAYOUTS, Command, three

CASES = {"vgg16": (32, 128), "resnet152": (32,), "lenet": (64,)}
"""Networks, and images in a step of theirs."""
PEERS = {"float32": "float32", "high": "float32", "tf32": "tf32", "bf16": "bf16"}
"""Our precisions, and PyTorch's beside each."""
ONLY = {"lenet": ("float32",)}
"""Precisions of networks that are too small for the others to matter."""
STEPS = {"lenet": 600}
"""Steps of one run; 20 where none are given."""
UNCOUNTED = 5
"""First steps of a run, which load kernels and touch memory first."""
IMAGES = 256


class GpuCommand(Command):
    """`mpitrain train NETWORK --precision PRECISION` on one rank."""

    def __init__(self, network: str, batch: int, device: str, precision: str, data: Path) -> None:
        super().__init__(network, batch, 1, device, STEPS.get(network, 20))
        self._precision, self._data = precision, data

    uncounted = UNCOUNTED

    def words(self) -> list[str]:
        lenet = self.network == "lenet"
        return [
            "mpitrain", "train", self.network, "--data", "digits" if lenet else str(self._data),
            "--batch-size", str(self.batch), "--classes", "10" if lenet else "1000",
            "--steps", str(self.steps), "--epochs", "1000000", "--evaluate-every", "1000000ep",
            "--lr", "1e-4", "--checkpoint-every", "1000000ep", "--device", self.device,
            "--precision", self._precision,
        ]  # fmt: skip


def rows(
    networks: Sequence[str],
    device: str,
    torch_python: str,
    n: int,
    precisions: Sequence[str] = tuple(PEERS),
    batches: Sequence[int] = (),
) -> Iterator[dict[str, Any]]:
    """One a network, batch (of those given, if any) and precision."""
    with tempfile.TemporaryDirectory() as folder, Side(torch_python, "side_pytorch.py") as theirs:
        theirs("open")
        data = write_images(Path(folder), IMAGES)
        for network in networks:
            for batch in (each for each in CASES[network] if each in batches or not batches):
                peers: dict[str, dict[str, Any]] = {}
                for precision in ONLY.get(network, precisions):
                    peer = PEERS[precision]
                    if peer not in peers:
                        peers[peer] = _peer(theirs, network, batch, peer, n)
                    command = GpuCommand(network, batch, device, precision, data)
                    yield _row(command, precision, peers[peer], peer, n)


def write_images(folder: Path, count: int) -> Path:
    """A file of random images in a folder, of up to 1,000 classes."""
    data, random = folder / "images.npz", np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, 224, 224), np.uint8)
    np.savez(data, images=images, labels=np.arange(count) % 1000)
    return data


def _peer(theirs: Side, network: str, batch: int, precision: str, n: int) -> dict[str, Any]:
    """PyTorch's seconds in the faster layout, and its peak of memory."""
    found = []
    for layout in LAYOUTS:
        theirs("gpu_step", network=network, batch=batch, layout=layout, precision=precision)
        seconds = [theirs("time", name="step") for _ in range(n)]
        found.append({"seconds": seconds, "layout": layout, **theirs("gpu_facts")})
    return min(found, key=lambda each: spread(each["seconds"])[1])


def _row(
    command: GpuCommand, precision: str, theirs: Mapping[str, Any], peer: str, n: int
) -> dict[str, Any]:
    ours, batch = [command() for _ in range(n)], command.batch
    figures = command.figures(n)
    return {
        "network": command.network,
        "batch": batch,
        "precision": precision,
        "ours": {"images_per_second": rates(batch, ours), "seconds": spread(ours), **figures},
        "pytorch": {
            **theirs,
            "precision": peer,
            "images_per_second": rates(batch, theirs["seconds"]),
            "seconds": spread(theirs["seconds"]),
        },
        "ratio": ratios(ours, theirs["seconds"]),
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What was found, a network, batch and precision a line."""
    table = Table(
        title=f"Training steps on a GPU, n = {found['n']}: minimum / median / maximum",
        title_justify="left",
        caption_justify="left",
    )
    for name in (
        "network", "batch", "precision", "ours, img/s", "GiB", "PyTorch", "PyTorch, img/s",
        "its layout", "its GiB", "PyTorch's s / ours",
    ):  # fmt: skip
        table.add_column(name)
    for row in found["rows"]:
        theirs = row["pytorch"]
        table.add_row(
            row["network"],
            str(row["batch"]),
            row["precision"],
            three(row["ours"]["images_per_second"]),
            f"{row['ours']['device_memory'] / 2**30:.2f}" if row["ours"]["device_memory"] else "-",
            theirs["precision"],
            three(theirs["images_per_second"]),
            theirs["layout"],
            f"{theirs['peak_memory'] / 2**30:.2f}",
            three(row["ratio"]),
        )
    return [table]
