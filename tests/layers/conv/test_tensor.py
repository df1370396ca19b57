"""What tensor cores are fed: rows of images and weights, decoded here and multiplied in NumPy as
the kernels multiply them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensor_cores
from numpy.typing import NDArray

from mpitrain.engine.nvidia import STORED, Nvidia
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.packed_weights import NO_BIAS, PackedWeights, Packing
from mpitrain.layers.conv.tensor import reciprocal, sum_items, sum_program
from mpitrain.layers.conv.tensor_rows import (
    FORMATS,
    GROUP,
    Format,
    ImageRows,
    gathered,
    row_channels,
)
from mpitrain.runtime.array import Array

Values = NDArray[Any]
IMAGES = 2
ROUNDED = {"bf16": 2.0**-8, "tf32": 2.0**-11, "high": 2.0**-16}
"""Relative rounding of one value, at most."""


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Nvidia:
    return tensor_cores.open_nvidia(request.param)


def blocks(values: Values, block: int) -> Values:
    """(N, C, H, W) as (N, C/block, H, W, block)."""
    n, c, h, w = values.shape
    padded = np.zeros((n, -(-c // block) * block, h, w), np.float32)
    padded[:, :c] = values
    return np.ascontiguousarray(padded.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))


def from_bfloat16(bits: Values) -> Values:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def decode(rows: Values, fmt: Format) -> Values:
    """The values of rows (..., 32 float32 places)."""
    if fmt == "tf32":
        assert not (rows.view(np.uint32) & 0x1FFF).any()
        return rows
    halves = from_bfloat16(np.ascontiguousarray(rows).view(np.uint16))
    return halves if fmt == "bf16" else halves[..., :32] + halves[..., 32:]


def close(result: Values, expected: Values, fmt: Format) -> None:
    np.testing.assert_allclose(result, expected, rtol=ROUNDED[fmt], atol=1e-30)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 49, 196, 3136, 50176, 65537, 2**20 + 7])
def test_a_reciprocal_divides_every_whole_number(divisor: int) -> None:
    factor, shift = reciprocal(divisor)
    numbers = {
        0,
        1,
        divisor - 1,
        divisor,
        divisor + 1,
        2**31 - 1,
        (2**31 - 1) // divisor * divisor - 1,
    }
    for n in numbers | set(np.random.default_rng(0).integers(2**31, size=1000).tolist()):
        assert n * int(factor) >> shift == n // divisor


@pytest.mark.parametrize("channels", [3, 32, 70])
def test_rows_hold_the_images_rounded(device: Nvidia, channels: int) -> None:
    """As pairs, which the gradient by a filter takes in `tf32`, too."""
    fmt: Format = "high"
    x = np.random.default_rng(0).normal(size=(IMAGES, channels, 5, 3)).astype(np.float32)
    rows = image_rows(device, fmt, channels, x)
    decoded = decode(rows, fmt).transpose(0, 1, 3, 2).reshape(IMAGES, -1, 5, 3)
    close(decoded[:, :channels], x, fmt)
    assert not decoded[:, channels:].any()


def image_rows(
    device: Nvidia,
    fmt: Format,
    channels: int,
    x: Values,
    gather: Geometry | None = None,
    pixels: int = 15,
) -> Values:
    packer = ImageRows(device, fmt, channels, pixels, gather)
    rows = device.empty((packer.size(IMAGES),))
    packer.write(rows, device.upload(blocks(x, 4 if gather else 32)), IMAGES)
    return rows.download()[: IMAGES * packer.chunks * pixels * 32].reshape(
        IMAGES, packer.chunks, pixels, 32
    )


def test_rounding_keeps_what_is_not_a_number(device: Nvidia) -> None:
    x = np.zeros((IMAGES, 32, 5, 3), np.float32)
    x[0, :2, 0, 0] = np.nan, -np.inf
    x.view(np.uint32)[0, 2, 0, 0] = 0x7FFFFFFF
    decoded = decode(image_rows(device, "high", 32, x), "high")[0, 0, 0]
    assert np.isnan(decoded[:3]).all()


def order_of_rows() -> Values:
    """Of each 32 rows of packed weights, the output channel in each."""
    return np.array(
        [
            16 * (j // 2) + 4 * i + 2 * (j % 2) + e
            for j in range(4)
            for i in range(4)
            for e in range(2)
        ]
    )


def unpacked(packed: Values, fmt: Format, weight_rows: int, stages: int) -> Values:
    """Weights (stages, output channel, channels of a row)."""
    pieces = packed[: stages * weight_rows * 32].reshape(stages, weight_rows, 8, 4)
    number = np.arange(weight_rows)
    pieces = np.take_along_axis(pieces, (np.arange(8) ^ (number & 7)[:, None])[None, :, :, None], 2)
    result = np.empty((stages, weight_rows, row_channels(fmt)), np.float32)
    result[:, number // 32 * 32 + order_of_rows()[number % 32]] = decode(
        pieces.reshape(stages, weight_rows, 32), fmt
    )
    return result


GEOMETRIES = [
    Geometry(40, 6, 5, 70, 3, 3, 6, 5, (1, 1), (1, 1), 1),
    Geometry(33, 7, 8, 65, 3, 2, 3, 4, (2, 2), (0, 1), 1),
    Geometry(3, 9, 9, 20, 3, 3, 5, 5, (2, 2), (1, 1), 1),
]


@pytest.mark.parametrize("fmt", FORMATS)
def test_all_weights_of_a_network_are_packed_at_once(device: Nvidia, fmt: Format) -> None:
    """Forward passes with their bias, and gradients by x without one."""
    vector = np.random.default_rng(0).normal(size=1 << 17).astype(np.float32)
    places, start = [], 0
    for g in GEOMETRIES:
        weights = g.k * g.c * g.r * g.s
        for c in (correlation.forward(g), *correlation.backward_data(g)):
            bias = start + weights if c.k == g.k else NO_BIAS
            places.append((Packing(fmt, c), start, bias))
        start += weights + g.k
    assert start <= vector.size
    on_device = device.upload(vector)
    PackedWeights(device, places).write(on_device, on_device)
    for packing, weight, bias in places:
        check_packing(packing, vector[weight:], vector[bias:] if bias != NO_BIAS else None)


def check_packing(packing: Packing, weight: Values, bias: Values | None) -> None:
    c, count, chunks, fmt = packing.sums, packing.count, packing.chunks, packing.format
    assert packing.rows and packing.bias
    found = unpacked(packing.rows.download(), fmt, count, chunks * c.r * c.s)
    found = found.reshape(chunks, c.r, c.s, count, -1).transpose(3, 0, 4, 1, 2)
    found = found.reshape(count, -1, c.r, c.s)
    k, i, r, s = np.ix_(range(c.k), range(c.c), range(c.r), range(c.s))
    taps = (c.first_tap[0] + r * c.tap_step[0]) * c.tap_row + c.first_tap[1] + s * c.tap_step[1]
    close(found[: c.k, : c.c], weight[k * c.out_step + i * c.in_step + taps], fmt)
    assert not found[c.k :].any() and not found[:, c.c :].any()
    filled = np.zeros(count, np.float32) if bias is None else np.pad(bias[: c.k], (0, count - c.k))
    np.testing.assert_array_equal(packing.bias.download()[:count], filled)


FEW_CHANNELS = [
    GEOMETRIES[2],
    Geometry(3, 20, 19, 20, 5, 5, 20, 19, (1, 1), (2, 2), 1),
    Geometry(1, 33, 20, 6, 2, 2, 34, 21, (1, 1), (1, 1), 1),
]
"""One group and several, taps in registers and too many for those."""


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("g", FEW_CHANNELS, ids=str)
def test_gathered_taps_times_the_weights_are_the_convolution(
    device: Nvidia, fmt: Format, g: Geometry
) -> None:
    random = np.random.default_rng(0)
    x, weight = (
        random.normal(size=(IMAGES, g.c, g.h, g.w)),
        random.normal(size=(g.k, g.c * g.r * g.s)),
    )
    flat = gathered(g)
    assert flat is not None
    rows = image_rows(device, fmt, flat.c, x.astype(np.float32), g, g.p * g.q)
    taps = decode(rows, fmt).transpose(0, 1, 3, 2).reshape(IMAGES, -1, g.p * g.q)
    assert not taps[:, flat.c :].any()
    (up, left), (down, right) = g.padding, g.stride
    padded = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (g.r, g.s), (2, 3))
    windows = windows[:, :, ::down, ::right]
    expected = np.einsum("ncpqrs,kcrs->nkpq", windows, weight.reshape(g.k, g.c, g.r, g.s))
    result = np.einsum("ncm,kc->nkm", taps[:, : flat.c], weight)
    np.testing.assert_allclose(result, expected.reshape(result.shape), atol=60 * ROUNDED[fmt])


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize(
    ("taps", "k", "c", "many", "lanes"),
    [
        (9, 3, 70, 19, 1),
        (1, 3, 70, 5, 1),
        (1, 20, 35, 19, 4),
        (1, 64, 64, 300, 16),
        (2, 3, 70, 19, 4),
        (49, 2, 3, 9, 1),
    ],
)
def test_parts_of_a_filters_gradient_are_added_up_in_order(
    device: Nvidia, add: int, taps: int, k: int, c: int, many: int, lanes: int
) -> None:
    """`lanes` work-items share the parts of a value."""
    random = np.random.default_rng(0)
    wide = -(-c // 64) * 64
    sums = random.normal(size=(many, k, taps, wide)).astype(np.float32)
    before = random.normal(size=(k, c, taps)).astype(np.float32)
    dweight = device.upload(before)
    items, shared = sum_items(k, c, taps, many)
    assert shared == lanes
    sum_program(device, taps).sum_parts(
        items, dweight, device.upload(sums), many, k, c, lanes, add, group=(GROUP, 1)
    )
    expected = np.zeros((k, taps, wide), np.float32)
    for lane in range(lanes):
        total = np.zeros_like(expected)
        for part in sums[lane::lanes]:
            total += part
        expected += total
    expected = expected[:, :, :c].transpose(0, 2, 1)
    np.testing.assert_array_equal(dweight.download(), before + expected if add else expected)


@pytest.mark.parametrize("fmt", FORMATS)
def test_images_of_a_format_are_rows_as_they_lie(
    device: Nvidia, fmt: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "format", STORED[fmt])
    rows, x = ImageRows(device, fmt, 70, 15), device.empty((1,))
    assert rows.size(IMAGES) == 0
    assert rows.of(x, IMAGES, device.empty((0,))) is x


def test_an_array_of_rows_starts_where_a_part_may(device: Nvidia) -> None:
    rows: Array = device.empty((ImageRows(device, "high", 3, 7).size(1),))
    assert rows.size % 128 == 0
