"""What layers that see their arrays as flat runs of values share: how work-items split a run, and
copies that may be needless."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import FLOAT32, Numbers
from mpitrain.job.cut import parts
from mpitrain.runtime.array import Array

CPU_CHUNK = 4096
"""Values that one work-item of a CPU takes: 16 KiB, enough to hide its start (about 1 us) and to
give LeNet's arrays several."""


def split(device: Engine, n: int, numbers: Numbers = FLOAT32) -> tuple[int, int]:
    """(work-items, values each) for n values: long runs on CPUs, one vector on GPUs."""
    chunk = CPU_CHUNK if device.long_items else numbers.wide or device.wide
    return parts(n, chunk), chunk


def split_rows(rows: int, size: int) -> tuple[int, int]:
    """(work-items, rows each) on a CPU for rows of `size` values, none of which is shared between
    work-items."""
    chunk = max(1, CPU_CHUNK // size)
    return parts(rows, chunk), chunk


def shares(device: Engine, rows: int) -> int:
    """Into how many shares to divide a sum for each of so many rows, so that every core has some
    (of a GPU, what hides its memory's delay)."""
    return max(1, parts(4 * device.units, rows))


def shares_of(device: Engine, most: int, images: int, pixels: int) -> int:
    """How many of those shares a run has: each is whole images on a CPU, and pixels enough for a
    turn or two of a group on a GPU."""
    return min(most, images if device.long_items else max(1, images * pixels // 128))


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays start at the same place of the same buffer."""
    return a.memory is b.memory and a._offset == b._offset


def copy(to: Array, origin: Array, n: int) -> None:
    """Queue a copy of the first n values, unless they are there already."""
    if not same_memory(to, origin):
        to.reshape((n,)).copy_from(origin)
