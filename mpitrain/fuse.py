"""Let layers take on the ReLU after them, which spares a reading and a writing of their values each way."""

from __future__ import annotations

import copy
from dataclasses import replace

from mpitrain.layers.layer import Layer
from mpitrain.layers.network import Network
from mpitrain.layers.relu import Relu


def fuse(network: Network, block: int) -> Network:
    """The network for a device with blocks of that many channels, without the ReLUs that the layers before them can take on.

    A ReLU goes into the layer before it if it alone reads that layer's value. Its own name goes; the layer keeps its name, and so
    do its parameters.
    """
    readers = [name for node in network.nodes for name in node.inputs]
    layers: dict[str, Layer] = {node.name: node.layer for node in network.nodes}
    renamed: dict[str, str] = {}
    for node in network.nodes[:-2]:  # the last two are scores and loss, which others look at by name
        (origin, *_) = node.inputs
        takes = origin in layers and layers[origin].can_rectify(block) and readers.count(origin) == 1
        if isinstance(node.layer, Relu) and takes:
            layers[origin] = _rectifying(layers[origin])
            renamed[node.name] = origin
    nodes = [
        replace(node, layer=layers[node.name], inputs=tuple(renamed.get(name, name) for name in node.inputs))
        for node in network.nodes
        if node.name not in renamed
    ]
    return replace(network, nodes=tuple(nodes))


def _rectifying(layer: Layer) -> Layer:
    layer = copy.copy(layer)
    layer.rectify, layer.keeps = True, (*layer.keeps, *layer.keeps_rectified)
    return layer
