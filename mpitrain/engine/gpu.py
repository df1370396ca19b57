"""GPUs by plain OpenCL C: blocks of 32 channels, and groups of work-items that share tiles."""

from __future__ import annotations

from typing import ClassVar

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.engine.gemm import Gemm, TiledGemm
from mpitrain.runtime.device import Entry

FORMAT = Format(block=32, few=4)
"""A line of memory (128 bytes) of channels; where there are few, that would be padding mostly."""


class Gpu(Engine):
    """Any GPU of OpenCL 1.2. A CPU can play one, in small groups, which tests its kernels."""

    engine = "gpu"
    folders: ClassVar[tuple[str, ...]] = ("gpu",)
    convolutions: ClassVar[tuple[str, ...]] = ("tiles", "winograd_tiles", "grouped", "implicit")
    products = ("tiled",)
    repeats = False

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self.wide = 4
        self.group = 256 if entry.kind == "gpu" else 16
        self.long_items = self.shares_memory = False
        self.format = FORMAT

    @classmethod
    def suits(cls, entry: Entry) -> bool:
        return entry.kind == "gpu"

    def gemm(self) -> Gemm:
        return TiledGemm(self)
