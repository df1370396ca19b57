"""Which algorithms can compute a pass of a convolution on a device, and which one it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mpitrain.engine.engine import Engine
from mpitrain.layers.conv.algorithm import Algorithm, Family, PassName
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.registry import FAMILIES


def candidates(device: Engine, g: Geometry, what: PassName) -> dict[str, Family]:
    """Name -> family, of every algorithm that can compute this pass; the last one can compute
    any."""
    return {name: family for family, name in _candidates(device, g, what)}


def _candidates(device: Engine, g: Geometry, what: PassName) -> Iterator[tuple[Family, str]]:
    for family in (FAMILIES[name] for name in device.convolutions):
        for name in family.names(device, g, what):
            yield family, name


def choose(
    device: Engine, g: Geometry, what: PassName, images: int, forced: Mapping[str, str]
) -> Algorithm:
    """The algorithm for a pass at so many images: the one forced, or the one that alone computes
    in the device's precision, or measured to be fastest, or favoured by a count of its work."""
    found = candidates(device, g, what)
    precise = next((name for name, family in found.items() if family.precise), None)
    name = forced.get(what) or precise or device.tuned.choice(f"{what} {g}", images)
    if name is None or (name not in found and what not in forced):
        name = min(found, key=lambda each: found[each].cost(each, device, g, what, images))
    if name not in found:
        raise ValueError(f"{what}: no algorithm {name!r} for {g}; there are {', '.join(found)}")
    return found[name].make(name, device, g, what)
