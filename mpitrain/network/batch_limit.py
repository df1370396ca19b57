"""How many images of a network fit into memory at a time."""

from __future__ import annotations

from mpitrain.engine.engine import Engine
from mpitrain.network.fuse import fuse
from mpitrain.network.graph import LARGEST_SLOT, layouts_of, parameters_of
from mpitrain.network.memory import infer_shapes, make_plan
from mpitrain.network.network import Network


def batch_limit(network: Network, device: Engine, room: float, vectors: int) -> int:
    """At least 1, with so many bytes for their values, and for that many flat vectors of what all
    ranks have: weights, gradients and more. Of slices there are weights, gradient and momentum."""
    shapes = infer_shapes(network)
    fused = fuse(network, device.format)
    one, two = (
        make_plan(fused, shapes, images, True, device.format, device.repeats) for images in (1, 2)
    )
    shared, own = layouts_of(parameters_of(network, shapes))
    room -= 4 * (vectors * shared.length + 3 * own.length)
    by_memory = int(room / max(1, two.nbytes - one.nbytes))
    by_largest = min(device.largest, LARGEST_SLOT) // max(one.slots)
    return max(1, min(by_memory, by_largest))
