"""What a device computes with: the seam between layers and kinds of devices."""

from __future__ import annotations

from typing import ClassVar

from mpitrain.engine.format import Format
from mpitrain.engine.gemm import Gemm
from mpitrain.runtime.device import Device, Entry


class Engine(Device):
    """A device, with how images lie in its memory, and what computes on it.

    A new one is a file with a class like those in cpu.py, gpu.py and nvidia.py, its algorithms in
    layers/conv/, its kernels in a folder of kernels/, and a line in registry.py.
    """

    engine: ClassVar[str]
    """Its name for --engine."""
    folders: ClassVar[tuple[str, ...]]
    """Folders of kernels/ that have its forms of kernels, the first one before the others."""
    convolutions: ClassVar[tuple[str, ...]]
    """Families of algorithms (layers/conv/registry.py); the last one can compute every
    convolution."""
    products: ClassVar[tuple[str, ...]]
    """Ways of a dense layer's products (layers/dense/dense.py); the last one can compute any."""
    precisions: tuple[str, ...] = ("float32",)
    """What --precision may ask of it."""
    precision: str = "float32"
    """Arithmetic of convolutions; layers/conv/precision.py sets it, after a check."""
    lacks: str = ""
    """A sentence on what its driver does not do, and what that costs; empty where it does all."""
    repeats: ClassVar[bool]
    """Whether values that are cheap to compute again are not kept for the way back."""
    format: Format

    @classmethod
    def suits(cls, entry: Entry) -> bool:
        """Whether it is meant for a device."""
        raise NotImplementedError

    def gemm(self) -> Gemm:
        """Products of matrices on it."""
        raise NotImplementedError
