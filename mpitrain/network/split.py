"""Split the large dense layers of a network over ranks: --dense split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mpitrain.layers import Dense
from mpitrain.layers.dense.sides import Peers
from mpitrain.layers.dense.split import SplitDense
from mpitrain.layers.layer import Shape, size
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network, Node


def split(network: Network, peers: Peers, least: int) -> Network:
    """The network with each dense layer of at least so many weights split over all ranks, if there
    are at least two, and each gets a part of it."""
    if peers.size < 2:
        return network
    shapes = infer_shapes(network)
    large = {node.name for node in large_layers(network, shapes, least, peers.size)}
    if not large:
        return network
    nodes = tuple(
        replace(node, layer=SplitDense(node.layer, peers))
        if node.name in large and isinstance(node.layer, Dense)
        else node
        for node in network.nodes
    )
    return replace(network, nodes=nodes)


def large_layers(
    network: Network, shapes: Mapping[str, Shape], least: int, ranks: int
) -> list[Node]:
    """The dense layers that so many ranks would split."""
    found = []
    for node in network.nodes:
        if isinstance(node.layer, Dense):
            inputs, features = size(shapes[node.inputs[0]]), node.layer.features
            if inputs * features >= least and max(inputs, features) >= ranks:
                found.append(node)
    return found
