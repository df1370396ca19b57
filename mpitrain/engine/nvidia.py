"""NVIDIA's GPUs: what every GPU has, and tensor cores."""

from __future__ import annotations

from mpitrain.engine.format import BFLOAT16, PAIRS, TFLOAT32, Format
from mpitrain.engine.gpu import FORMAT, Gpu
from mpitrain.runtime import addresses, nvidia
from mpitrain.runtime.device import Entry

STORED = {
    "bf16": Format(64, FORMAT.few, BFLOAT16),
    "tf32": Format(32, FORMAT.few, TFLOAT32),
    "high": Format(32, FORMAT.few, PAIRS),
}
"""Precision -> how images lie: in lines of 128 bytes that tensor cores read as they are."""


class Nvidia(Gpu):
    """A GPU of compute capability 8.0 or more."""

    engine = "nvidia"
    folders = ("nvidia", "gpu")
    convolutions = ("tensor", *Gpu.convolutions)
    precisions = ("float32", *STORED)
    wgmma = False
    """Whether tensor cores multiply by Hopper's own instruction; layers/conv/precision.py sets
    it, after a check."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self.capability = nvidia.capability(entry.cl)
        wrong = addresses.offer(self)
        if wrong:
            self.lacks = f"{self.name} does not take addresses for buffers ({wrong}); steps of many"
            self.lacks += " small launches are slower"

    @property
    def instructions(self) -> tuple[bool, ...]:
        """What `wgmma` may be, the fastest first."""
        return (True, False) if self.capability[0] == 9 else (False,)

    @classmethod
    def suits(cls, entry: Entry) -> bool:
        return nvidia.capability(entry.cl) >= (8, 0)
