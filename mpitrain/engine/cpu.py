"""CPUs: blocks of a vector's channels, and work-items that take long runs of values."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.engine.gemm import Gemm, PackedGemm
from mpitrain.runtime.device import Entry

WIDEST = 16
"""Float32 values of the longest vector (AVX-512)."""


class Cpu(Engine):
    """A CPU, by its vectors."""

    engine = "cpu"
    folders = ("cpu",)
    convolutions = ("winograd", "direct", "grouped", "implicit")
    products = ("rows", "packed")
    repeats = True

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        if self.is_pocl:
            self.wide = WIDEST if self.cpu_name == "skylake-avx512" else 8
        else:
            self.wide = min(WIDEST, max(8, entry.cl.native_vector_width_float))
        self.group = 1
        self.format = Format(self.wide)

    @classmethod
    def suits(cls, entry: Entry) -> bool:
        return entry.kind == "cpu"

    def gemm(self) -> Gemm:
        return PackedGemm(self)
