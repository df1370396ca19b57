"""Tiles of the products on tensor cores: their sizes, and the time that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mpitrain.job.cut import parts
from mpitrain.layers.conv.tensor_rows import FORMATS, Format


@dataclass(frozen=True)
class Tile:
    """What a group of work-items computes, and how far ahead it copies
    (kernels/nvidia/tensor.cl)."""

    groups: int
    """Groups of 128 work-items, each with its own 64 rows a repeat."""
    repeats: int
    columns: int
    stages: int
    """Stages in local memory."""
    ahead: int
    """Stages whose products may be under way while the next one's are issued."""
    resident: int
    """Groups that have to fit on a unit at once."""
    alone: float
    """Share of the time of `resident` groups on a unit that a single one takes at least."""
    seconds: Mapping[Format, tuple[float, float]]
    """Format -> microseconds of `resident` groups on a unit: to start and end, and for each stage
    (one H200)."""
    filter_seconds: Mapping[Format, tuple[float, float]]
    """The same of the gradient by the filter."""

    @property
    def rows(self) -> int:
        return 64 * self.groups * self.repeats

    @property
    def items(self) -> int:
        return 128 * self.groups

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    def time(self, units: int, groups: int, stages: int, seconds: tuple[float, float]) -> float:
        """Microseconds that so many groups of so many stages take: whole turns of the device, and
        what is left over."""
        whole, rest = divmod(groups, units * self.resident)
        left_over = max(self.alone, parts(rest, units) / self.resident) if rest else 0.0
        return (whole + left_over) * (seconds[0] + seconds[1] * stages)


TILES = {
    "128x128": Tile(
        1, 2, 128, 2, 0, 3, 0.5,
        {"bf16": (7.9, 1.18), "tf32": (7.7, 1.17), "high": (7.0, 1.68)},
        {"bf16": (13.5, 1.49), "high": (15.4, 1.73)},
    ),
    "128x256": Tile(
        2, 1, 256, 4, 1, 1, 0.4,
        {"bf16": (4.2, 0.79), "tf32": (4.3, 0.74), "high": (4.2, 1.04)},
        {"bf16": (12.6, 0.81), "high": (14.7, 1.00)},
    ),
    "64x128": Tile(
        1, 1, 128, 3, 0, 3, 0.8,
        {"bf16": (4.6, 0.66), "tf32": (4.3, 0.70), "high": (4.4, 0.82)},
        {"bf16": (10.1, 0.94), "high": (14.9, 1.03)},
    ),
    "128x64": Tile(
        1, 2, 64, 3, 0, 3, 0.8,
        {"bf16": (5.8, 0.78), "tf32": (5.4, 0.84), "high": (5.9, 0.90)},
        {"bf16": (9.9, 0.94), "high": (14.1, 1.09)},
    ),
    "64x64": Tile(
        1, 1, 64, 4, 0, 3, 0.8,
        {"bf16": (3.1, 0.53), "tf32": (3.0, 0.53), "high": (3.2, 0.56)},
        {"bf16": (9.7, 0.58), "high": (14.7, 0.71)},
    ),
}  # fmt: skip
"""Times were measured over VGG16 and ResNet152 at batch 32; with them the choice costs 1 to 2 %
over the fastest tile of each layer."""

WITHOUT_HOPPER = replace(TILES["128x128"], resident=1, stages=2)
"""The tile where products are mma.sync: the registers of one group a unit."""


def definitions(fmt: Format, tile: Tile, hopper: bool) -> dict[str, int]:
    """Build-time facts of kernels/nvidia/tensor.cl."""
    return {
        "FORMAT": FORMATS.index(fmt),
        "ON_HOPPER": int(hopper),
        "GROUPS": tile.groups,
        "REPEATS": tile.repeats,
        "COLUMNS": tile.columns,
        "STAGES": tile.stages,
        "AHEAD": tile.ahead,
        "RESIDENT": tile.resident,
    }


def filter_definitions(fmt: Format, tile: Tile, hopper: bool) -> dict[str, int]:
    """The same of kernels/nvidia/tensor_filter.cl."""
    return {**definitions(fmt, tile, hopper), "PIXELS": filter_pixels(fmt)}


def filter_pixels(fmt: Format) -> int:
    """Pixels in a stage of a gradient by the filter: 32 KiB of tiles of 128 x 128 in every
    format."""
    return 64 if fmt == "bf16" else 32
