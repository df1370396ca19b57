"""Set a device to the arithmetic that a run asks for: tensor cores are checked first, on the
device, against float64.

A product of small convolutions is computed by every tile that a run may take. Where Hopper's own
instruction is wrong, the older one is taken; where that is wrong too, float32; both with a sentence
that the caller has to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpitrain.engine.engine import Engine
from mpitrain.engine.gpu import FORMAT
from mpitrain.engine.nvidia import STORED, Nvidia
from mpitrain.job.errors import RunError, UserError
from mpitrain.layers.conv import correlation
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.tensor import TensorCorrelations, TensorFilter
from mpitrain.layers.conv.tensor_rows import Format, format_of
from mpitrain.layers.conv.tensor_tiles import (
    TILES,
    WITHOUT_HOPPER,
    Tile,
    definitions,
    filter_definitions,
)

LIMITS: dict[Format, float] = {"bf16": 1e-2, "tf32": 1e-3, "high": 1e-4}
"""Relative errors (norms) that a right kernel stays under: three to ten times what was seen."""
CHECKED = Geometry(40, 6, 5, 70, 3, 3, 6, 5, (1, 1), (1, 1), 1)
"""Borders, channels that fill no tile, and more stages than local memory holds."""
IMAGES = 3

Values = NDArray[Any]


def use(device: Engine, precision: str) -> str | None:
    """Let convolutions on a device compute in a precision. Returns the sentence to show if they
    fall back to another way.

    Raises UserError where the device has no tensor cores that it could use.
    """
    if precision == "float32":
        return None
    if precision not in device.precisions:
        raise UserError(
            f"--precision {precision}: expected an NVIDIA GPU of compute capability 8.0 or more "
            f"and its own engine, got {device} with engine {device.engine}, which can do "
            f"{', '.join(device.precisions)}"
        )
    assert isinstance(device, Nvidia)
    fmt = format_of(precision)
    wrong = worst = None
    device.format = STORED[precision]
    for hopper in device.instructions:
        device.wgmma = hopper
        wrong = _what_is_wrong(device, fmt)
        if wrong is None:
            device.precision = precision
            break
        worst = worst or wrong
    else:
        device.format = FORMAT
    if worst is None:
        return None
    way = "mma.sync, the slower instruction" if wrong is None else "float32"
    return f"--precision {precision}: on {device} {worst}; convolutions compute by {way} instead"


def _what_is_wrong(device: Nvidia, fmt: Format) -> str | None:
    """What of the kernels is wrong, by the instruction that the device is set to; None if nothing
    is."""
    try:
        compile_all(device, fmt, device.wgmma)
    except RunError as refused:
        return str(refused)
    for name, error in errors(device, fmt):
        if not error < LIMITS[fmt]:
            return f"{name} has an error of {error:.1e}, expected less than {LIMITS[fmt]:.0e}"
    return None


def tiles(hopper: bool) -> list[Tile]:
    """Every tile that a run may take."""
    return list(TILES.values()) if hopper else [WITHOUT_HOPPER]


def compile_all(device: Nvidia, fmt: Format, hopper: bool) -> None:
    """Compile every kernel that a run may need, side by side: seconds each."""
    by_filter: Format = "bf16" if fmt == "bf16" else "high"
    wanted: list[tuple[str, dict[str, int]]] = []
    for tile in tiles(hopper):
        wanted.append(("tensor", definitions(fmt, tile, hopper)))
        wanted.append(("tensor_filter", filter_definitions(by_filter, tile, hopper)))
    for program in [device.program(name, **facts) for name, facts in wanted]:
        program.built()


def errors(device: Nvidia, fmt: Format) -> Iterator[tuple[str, float]]:
    """What was computed on images in the device's format, by which instruction and tile, and its
    relative error against float64; NaN for what is missing."""
    g, random = CHECKED, np.random.default_rng(0)
    x, dy = random.normal(size=(IMAGES, g.c, g.h, g.w)), random.normal(size=(IMAGES, g.k, g.p, g.q))
    weight = random.normal(size=(g.k, g.c, g.r, g.s))
    x, dy, weight = (each.astype(np.float32).astype(np.float64) for each in (x, dy, weight))
    windows = np.lib.stride_tricks.sliding_window_view(_padded(x), (g.r, g.s), (2, 3))
    back = np.lib.stride_tricks.sliding_window_view(_padded(dy), (g.r, g.s), (2, 3))
    y = np.einsum("ncpqrs,kcrs->nkpq", windows, weight)
    dx = np.einsum("nkhwrs,kcrs->nchw", back, weight[:, :, ::-1, ::-1])
    dweight = np.einsum("ncpqrs,nkpq->kcrs", windows, dy)
    with device.scope():
        on_device = {
            name: device.upload(_laid(each, device)) for name, each in (("x", x), ("dy", dy))
        }
        weights, into = device.upload(weight.astype(np.float32)), device.empty(weight.shape)
        for tile in tiles(device.wgmma):
            way = f"{'wgmma' if device.wgmma else 'mma.sync'} {tile}"
            for name, source, sums, expected in (
                ("forward", "x", [correlation.forward(g)], y),
                ("backward data", "dy", correlation.backward_data(g), dx),
            ):
                run = TensorCorrelations(device, sums, fmt, device.wgmma, tile)
                result = device.upload(_laid(np.full_like(expected, np.nan), device))
                scratch = device.empty((run.workspace(IMAGES),))
                run(result, on_device[source], weights, None, False, IMAGES, scratch)
                values = _values(result.download(), expected, device)
                yield f"{name} by {way}", _error(values, expected)
            by_filter = TensorFilter(device, g, fmt, device.wgmma, tile)
            into.fill(np.nan)
            scratch = device.empty((by_filter.workspace(IMAGES),))
            by_filter(into, on_device["dy"], on_device["x"], False, IMAGES, scratch)
            yield f"backward filter by {way}", _error(into.download(), dweight)


def _padded(images: Values) -> Values:
    return np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))


def _laid(images: Values, device: Engine) -> Values:
    """(N, C, H, W) as it lies on a device."""
    (n, c, h, w), fmt = images.shape, device.format
    padded = np.pad(images, ((0, 0), (0, -c % fmt.block), (0, 0), (0, 0)))
    split = padded.reshape(n, -1, fmt.block, h, w).transpose(0, 1, 3, 4, 2)
    return fmt.images.pack(np.ascontiguousarray(split, np.float32))


def _values(laid: Values, like: Values, device: Engine) -> Values:
    """The way back, as float64 (N, C, H, W)."""
    n, c, h, w = like.shape
    values = device.format.images.unpack(laid)
    planes: Values = values.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c]
    return planes.astype(np.float64)


def _error(result: Values, expected: Values) -> float:
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
