"""Tensors in slices: drawn as the whole ones are, and put together again in the order of a file."""

from __future__ import annotations

import numpy as np
import pytest

from mpitrain.layers.layer import Parameter, Placement
from mpitrain.network import parameters
from mpitrain.network.parameters import Layout
from mpitrain.training import slices
from mpitrain.training.slices import blocks, joined

WHOLE = (301, 70)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("initial", ["uniform", "he", "normal"])
def test_a_slice_starts_from_what_the_whole_tensor_has_there(
    axis: int, ranks: int, initial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "DRAWN", 1000)
    whole = Layout({"fc.weight": Parameter(WHOLE, initial, 70, coded=True)}).initial(5)  # type: ignore[arg-type]
    whole = whole[: WHOLE[0] * WHOLE[1]].reshape(WHOLE)
    found = []
    for rank in range(ranks):
        place = Placement(WHOLE, axis, rank, ranks)
        kept = Parameter(place.shape, initial, 70, coded=True, placement=place)  # type: ignore[arg-type]
        slot = (layout := Layout({"fc.weight": kept})).slots["fc.weight"]
        found.append(layout.initial(5)[slot.start : slot.stop].reshape(place.shape))
    np.testing.assert_array_equal(np.concatenate(found, axis), whole)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("piece", [1, 20000, 1 << 22])
def test_blocks_of_all_slices_are_the_rows_in_order(
    axis: int, ranks: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "PIECE", piece)
    whole = np.arange(WHOLE[0] * WHOLE[1], dtype=np.float32).reshape(WHOLE)
    places = [Placement(WHOLE, axis, rank, ranks) for rank in range(ranks)]
    flat = [whole.take(range(*place.shards[place.rank]), axis).reshape(-1) for place in places]
    rows = []
    for each in zip(*(blocks(place) for place in places), strict=True):
        assert len({block.shapes for block in each}) == 1
        assert all(block.start % slices.ALIGNED == 0 for block in each)
        parts = [
            mine[block.start : block.start + block.sizes[rank]].reshape(block.shapes[rank])
            for rank, (mine, block) in enumerate(zip(flat, each, strict=True))
        ]
        rows.append(joined(parts, axis))
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    assert len(rows) > 1 or piece > 1
