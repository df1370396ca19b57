"""Counts by which GPUs' tiles are chosen."""

from __future__ import annotations

import pytest

from mpitrain.engine.tile import TILES, splits_of, tail_of, tile_time
from mpitrain.job.cut import parts

UNITS = 132
SLOTS = TILES["128x128"].resident * UNITS


@pytest.mark.parametrize("name", TILES)
def test_a_tile_is_called_by_its_rows_and_columns_and_fits_48_kib(name: str) -> None:
    tile = TILES[name]
    assert name == f"{tile.m}x{tile.n}"
    assert tile.local_memory <= 48 << 10
    assert tile.m % 32 == 0  # columns are exchanged within 32


def test_few_tiles_are_split_until_they_fill_the_device() -> None:
    tile = TILES["128x128"]
    splits = splits_of(UNITS, tile, 16, 1000, 100)
    assert 0.8 * SLOTS < 16 * splits <= SLOTS * parts(16 * splits, SLOTS)
    assert tile_time(UNITS, tile, 16, 1000, splits) < tile_time(UNITS, tile, 16, 1000, 1) / 4


def test_tiles_that_fill_the_device_are_not_split() -> None:
    assert splits_of(UNITS, TILES["128x128"], 10 * SLOTS, 100, 16) == 1


def test_a_split_has_a_few_steps_and_scratch_for_its_sums() -> None:
    assert splits_of(UNITS, TILES["128x128"], 1, 8, 16) <= 2
    assert splits_of(UNITS, TILES["128x128"], 1, 1000, 3) <= 3
    assert splits_of(UNITS, TILES["128x128"], 1, 1000, 0) == 1


def test_what_is_left_after_full_turns_fills_one_more_at_most() -> None:
    tile = TILES["128x128"]
    for tiles in (1, 5, SLOTS - 1, SLOTS, SLOTS + 1, 3 * SLOTS + 40, 3 * SLOTS + SLOTS // 2 + 1):
        whole, splits = tail_of(UNITS, tile, tiles, 64)
        assert whole == tiles or (whole % SLOTS == 0 and (tiles - whole) * splits <= SLOTS)
        assert (splits == 1) == (whole == tiles)
    assert tail_of(UNITS, tile, SLOTS + 8, 64) == (SLOTS, 16)
    assert tail_of(UNITS, tile, SLOTS + 8, 4) == (SLOTS + 8, 1)  # too short to split
