"""Tiles of a product of matrices on a GPU: their sizes, and a count of the time that each would
take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mpitrain.job.cut import parts

DEPTH = 16
"""Of a step: rows of both operands that are in local memory at once; kernels/gpu/tile.h."""

MOST_PARTIAL = 1 << 26
"""Values at most of the partial sums of a product whose depth is split (256 MiB)."""


@dataclass(frozen=True)
class Tile:
    """A group's share of the result, `m` x `n`, by 8 x `y` work-items that have `units_m` x
    `units_n` squares of 4 x 4 values each."""

    units_m: int
    units_n: int
    y: int
    resident: int
    """Groups that a compute unit holds at once (registers: 64 Ki in a unit of NVIDIA's)."""
    rate: float
    """Products of a correlation in a unit of `tile_time`, as a share of a 128x128 tile's step, as
    measured on an H200."""
    filter_rate: float = 1.0
    """The same for a weights' gradient."""

    @property
    def m(self) -> int:
        return 4 * self.units_m * self.y

    @property
    def n(self) -> int:
        return 32 * self.units_n

    @property
    def local_memory(self) -> int:
        """Bytes that a group needs: two buffers for each side."""
        return 2 * DEPTH * (self.m + self.n) * 4

    def definitions(self) -> dict[str, int]:
        """What kernels/gpu/tile.h wants to know."""
        return {"UNITS_M": self.units_m, "UNITS_N": self.units_n, "TILE_Y": self.y}


TILES = {
    f"{tile.m}x{tile.n}": tile
    for tile in (
        Tile(2, 4, 16, 2, 0.97, 1.01),
        Tile(4, 2, 16, 2, 0.96, 1.04),
        Tile(2, 2, 16, 3, 0.95, 0.93),
        Tile(2, 4, 8, 4, 0.97, 0.87),
        Tile(2, 2, 8, 6, 0.88, 0.96),
        Tile(4, 1, 16, 3, 0.84, 0.89),
    )
}
"""By the names that the tuner keeps: rows (pixels, or output channels of a weights' gradient) times
columns."""


GATHERING, PLAIN = 3.5, 2.0
"""Steps' cost of a group's start and end, where it works out pixels and where it does not; measured
like the rates."""

TURNS = 8
"""Times at most that every unit is filled with parts of a split depth: more, and a last turn that
is not full is no loss."""


def tail_of(units: int, tile: Tile, tiles: int, steps: int) -> tuple[int, int]:
    """(tiles done whole, splits of each tile after them): what is over after turns that fill the
    device is split to fill one more."""
    slots = tile.resident * units
    whole = tiles // slots * slots
    splits = min(slots // max(1, tiles - whole), steps // 4)
    return (whole, splits) if whole < tiles and splits > 1 else (tiles, 1)


@lru_cache(1 << 14)
def splits_of(units: int, tile: Tile, tiles: int, steps: int, most: int) -> int:
    """Into how many parts to split the depth of so many tiles: the fewest that come within 5 % of
    the shortest time."""
    whole = {turns * tile.resident * units // tiles for turns in range(1, TURNS + 1)}
    most = max(1, min(most, steps // 4))
    times = {
        splits: tile_time(units, tile, tiles, steps, splits)
        for splits in sorted({1, *(min(each, most) for each in whole if each > 1)})
    }
    shortest = min(times.values())
    return next(splits for splits, time in times.items() if time <= 1.05 * shortest)


def tile_time(
    units: int, tile: Tile, tiles: int, steps: int, splits: int, edge: float = GATHERING
) -> float:
    """Time of a product in units of one step of a 128x128 tile on a compute unit that has it alone:
    1.5 us on an H200.

    edge: steps that a group's start and end cost.
    """
    turns = parts(tiles * splits, tile.resident * units)
    step = tile.resident * tile.m * tile.n / (128 * 128) / tile.rate
    # A part's sums are written and read again, 4 values for a step's 128 x 128 x 16 products.
    work = turns * (parts(steps, splits) + edge) * step
    return work + (
        0 if splits == 1 else tiles * splits * tile.m * tile.n / (128 * 128) * 4 / units + 8
    )
