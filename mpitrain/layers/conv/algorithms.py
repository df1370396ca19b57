"""Which algorithms can compute a pass of a convolution on a device, and which one it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mpitrain.engine.tile import TILES
from mpitrain.layers.blocks import BFLOAT16_BLOCK, stored_size
from mpitrain.layers.conv import correlation, tensor, winograd_tiles
from mpitrain.layers.conv.correlation import Correlation
from mpitrain.layers.conv.direct import Direct, DirectFilter
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.implicit import ImplicitGemm
from mpitrain.layers.conv.tensor import TensorCorrelations, TensorFilter
from mpitrain.layers.conv.tiles import LARGEST_FILTER, Tiles, TilesFilter
from mpitrain.layers.conv.winograd import Winograd, WinogradFilter
from mpitrain.layers.conv.winograd_tiles import WinogradTiles, WinogradTilesFilter
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device

PassName = Literal["forward", "backward data", "backward filter"]
PASSES: tuple[PassName, ...] = ("forward", "backward data", "backward filter")


@dataclass(frozen=True)
class Algorithm:
    """One pass of one layer on one device.

    `run` is forward(y, x, weight, bias, rectify, images, scratch), backward data(dx, dy, weight,
    images, scratch[, ready]) or backward filter(dweight, dy, x, accumulate, images, scratch).
    """

    name: str
    workspace: Callable[[int], int]
    """Float32 values of scratch for so many images."""
    run: Callable[..., None]
    rectifies: bool = False
    """Whether a forward pass does the ReLU itself."""
    rows: str = ""
    """Format of dy's rows that scratch starts with after a backward filter pass, and that backward
    data takes there if `ready`."""


Make = Callable[[], Algorithm]

TENSOR = "tensor"
"""The algorithm on tensor cores: the only one that computes in the device's precision, so it is
taken wherever it can be."""

GPU_WINOGRAD = {"winograd4": 4, "winograd2": 2}
"""Outputs of a tile, each way, by the names of the algorithms on GPUs."""


def candidates(device: Device, g: Geometry, what: PassName) -> dict[str, Make]:
    """Name -> how to make it, for every algorithm that can compute this pass; the last one can
    compute any."""
    found: dict[str, Make] = {}
    if device.precision != "float32" and tensor.supports(g, what == "backward data"):
        found[TENSOR] = lambda: _tensor(what, device, g)
    float32 = device.block != BFLOAT16_BLOCK
    if device.kind == "gpu" and float32 and g.groups == 1 and max(g.r, g.s) <= LARGEST_FILTER:
        for name in (
            name for name, tile in TILES.items() if tile.local_memory <= device.local_memory
        ):
            found[name] = lambda name=name: _tiled(name, what, device, g)  # type: ignore[misc]
        for name in GPU_WINOGRAD if winograd_tiles.supports(device, g) else ():
            found[name] = lambda name=name: _tiled(name, what, device, g)  # type: ignore[misc]
    if device.kind == "cpu" and g.groups == 1:
        minimal = (g.r, g.s, *g.stride) == (3, 3, 1, 1)
        for name, out in (("winograd4", 4), ("winograd2", 2)):
            if minimal and max(g.padding) <= 2:
                found[name] = lambda name=name, out=out: _blocked(  # type: ignore[misc]
                    name,
                    what,
                    device,
                    g,
                    lambda sums: Winograd(device, sums, out),
                    lambda: WinogradFilter(device, g, out),
                )
        found["direct"] = lambda: _blocked(
            "direct",
            what,
            device,
            g,
            lambda sums: Direct(device, sums),
            lambda: DirectFilter(device, g),
        )
    found["implicit"] = lambda: _implicit(what, device, g)
    return found


def choose(
    device: Device, g: Geometry, what: PassName, images: int, forced: Mapping[str, str]
) -> Algorithm:
    """The algorithm for a pass at so many images: the one forced, or measured to be fastest, or
    favoured by a count of its work.
    """
    found = candidates(device, g, what)
    name = forced.get(what) or (
        TENSOR if TENSOR in found else device.tuned.choice(f"{what} {g}", images)
    )
    if name is None or (name not in found and what not in forced):
        name = min(found, key=lambda each: estimate(device, what, each, g, images))
    if name not in found:
        raise ValueError(f"{what}: no algorithm {name!r} for {g}; there are {', '.join(found)}")
    return found[name]()


def estimate(device: Device, what: PassName, name: str, g: Geometry, images: int) -> float:
    """A count of the work of a pass, comparable between algorithms of a device: implicit only where
    nothing else can.

    On a CPU: the products it takes, and what it does besides counted as products.
    """
    if device.kind == "gpu" and name != "implicit":
        if what == "backward filter":
            return _filter_tiles(name, device, g).time(images)
        sums = [correlation.forward(g)] if what == "forward" else correlation.backward_data(g)
        return sum(_tiles(name, device, each).time(images) for each in sums)
    direct = g.r * g.s * images * g.p * g.q * g.c * g.k
    if name == "direct":
        return direct
    if name == "implicit":
        return 1e30
    out = int(name[-1])
    points, tiles = (out + 2) ** 2, images * -(-g.p // out) * -(-g.q // out)
    # A value that is transformed costs about as much as 16 products, one of a filter, which has to
    # come from memory, 40.
    return points * (tiles * g.c * g.k + 16 * tiles * (g.c + g.k) + 40 * g.c * g.k)


def _tiled(name: str, what: PassName, device: Device, g: Geometry) -> Algorithm:
    return _blocked(
        name,
        what,
        device,
        g,
        lambda sums: _tiles(name, device, sums),
        lambda: _filter_tiles(name, device, g),
    )


def _tiles(name: str, device: Device, sums: Correlation) -> Tiles | WinogradTiles:
    if name in TILES:
        return Tiles(device, sums, TILES[name])
    return WinogradTiles(device, sums, GPU_WINOGRAD[name])


def _filter_tiles(name: str, device: Device, g: Geometry) -> TilesFilter | WinogradTilesFilter:
    if name in TILES:
        return TilesFilter(device, g, TILES[name])
    return WinogradTilesFilter(device, g, GPU_WINOGRAD[name])


def _blocked(
    name: str,
    what: PassName,
    device: Device,
    g: Geometry,
    by_correlation: Callable[[Correlation], Direct | Winograd | Tiles | WinogradTiles],
    by_filter: Callable[[], DirectFilter | WinogradFilter | TilesFilter | WinogradTilesFilter],
) -> Algorithm:
    """An algorithm that computes correlations, and gradients by weights, on blocks of channels."""
    if what == "forward":
        forward = by_correlation(correlation.forward(g))
        return Algorithm(name, forward.workspace, forward, rectifies=True)
    if what == "backward filter":
        backward = by_filter()
        return Algorithm(name, backward.workspace, backward)
    sums = [by_correlation(each) for each in correlation.backward_data(g)]
    missed = len(sums) < g.stride[0] * g.stride[1]
    image = stored_size((g.c, g.h, g.w), device.block)

    def run(dx: Array, dy: Array, weight: Array, images: int, scratch: Array) -> None:
        if missed:  # pixels that no tap meets
            dx.reshape((images * image,)).fill(0)
        for each in sums:
            each(dx, dy, weight, None, False, images, scratch)

    return Algorithm(
        name, lambda images: max((each.workspace(images) for each in sums), default=0), run
    )


def _tensor(what: PassName, device: Device, g: Geometry) -> Algorithm:
    fmt, hopper = tensor.format_of(device.precision), device.wgmma
    if what == "forward":
        flat = tensor.gathered(g)
        forward = TensorCorrelations(
            device, [correlation.forward(flat or g)], fmt, hopper, gather=g if flat else None
        )
        return Algorithm(TENSOR, forward.workspace, forward, rectifies=True)
    if what == "backward filter":
        backward = TensorFilter(device, g, fmt, hopper)
        return Algorithm(TENSOR, backward.workspace, backward, rows=backward.rows)
    sums = correlation.backward_data(g)
    gradient = TensorCorrelations(device, sums, fmt, hopper)
    missed = len(sums) < g.stride[0] * g.stride[1]
    image = stored_size((g.c, g.h, g.w), device.block)

    def run(
        dx: Array, dy: Array, weight: Array, images: int, scratch: Array, ready: bool = False
    ) -> None:
        if missed:  # pixels that no tap meets
            dx.reshape((images * image,)).fill(0)
        gradient(dx, dy, weight, None, False, images, scratch, ready)

    return Algorithm(TENSOR, gradient.workspace, run, rows=gradient.rows)


def _implicit(what: PassName, device: Device, g: Geometry) -> Algorithm:
    implicit = ImplicitGemm(device, g)

    def forward(
        y: Array,
        x: Array,
        weight: Array,
        bias: Array | None,
        rectify: bool,
        images: int,
        scratch: Array,
    ) -> None:
        implicit.forward(y, x, weight, bias, images, scratch)

    runs: dict[PassName, Callable[..., None]] = {
        "forward": forward,
        "backward data": implicit.backward_data,
        "backward filter": implicit.backward_filter,
    }
    return Algorithm("implicit", implicit.workspace, runs[what])
