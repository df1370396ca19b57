"""Let layers take on what follows them, which spares readings and writings of their values each
way."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mpitrain.engine.format import Format
from mpitrain.layers.add import Add
from mpitrain.layers.batchnorm import BatchNorm
from mpitrain.layers.layer import Layer, Shape
from mpitrain.layers.relu import Relu
from mpitrain.layers.residual import BatchNormAdd
from mpitrain.network.memory import infer_shapes
from mpitrain.network.network import Network, Node


def fuse(network: Network, fmt: Format) -> Network:
    """The network for a device with blocks of that many channels, without the ReLUs and sums that
    the layers before can take on.

    A ReLU goes into the layer before it, and a sum into a batch normalisation before it, if they
    alone read that layer's value. Their own names go; the layer keeps its name, and so do its
    parameters, but with a sum it moves to where that was. A pool that alone reads a rectified value
    does that ReLU's way back.
    """
    shapes = infer_shapes(network)
    readers = Counter(name for node in network.nodes for name in node.inputs)
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    last = {
        node.name for node in network.nodes[-2:]
    }  # scores and loss, which others look at by name
    for node in network.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        alone = [nodes[name] for name in node.inputs if name in nodes and readers[name] == 1]
        taken = None if node.name in last else _taken_on(node, alone, shapes, fmt)
        if taken is None:
            nodes |= {each.name: each for each in _gating(node, alone)}
            continue
        if isinstance(node.layer, Add):
            del nodes[taken.name]
        nodes[taken.name] = taken
        renamed[node.name], readers[taken.name] = taken.name, readers[node.name]
    return replace(network, nodes=tuple(nodes.values()))


def _taken_on(
    node: Node, alone: list[Node], shapes: Mapping[str, Shape], fmt: Format
) -> Node | None:
    """One of the nodes that it `alone` reads, doing its work too; None if none can."""
    for origin in alone:
        inputs = [shapes[name] for name in origin.inputs]
        if isinstance(node.layer, Relu) and _can_take_on(origin.layer, node.layer, inputs, fmt):
            return replace(origin, layer=rectifying(origin.layer, node.layer))
        if (
            isinstance(node.layer, Add)
            and type(origin.layer) is BatchNorm
            and not origin.layer.rectify
        ):
            (other,) = (name for name in node.inputs if name != origin.name)
            if origin.layer.can_rectify(fmt, *inputs):
                return replace(
                    origin, layer=BatchNormAdd.of(origin.layer), inputs=(other, *origin.inputs)
                )
    return None


def _gating(node: Node, alone: list[Node]) -> Iterator[Node]:
    """The node, and before it the one whose ReLU's way back it does, if there is one."""
    for origin in alone:
        layer = origin.layer
        rectifies = layer.rectify and layer.ceiling is None and layer.can_be_gated
        if rectifies and node.layer.can_gate():
            node = replace(node, layer=copy.copy(node.layer))
            origin = replace(origin, layer=copy.copy(layer))
            node.layer.gates = origin.layer.gated = True
            origin.layer.keeps = tuple(
                each for each in layer.keeps if each not in layer.keeps_rectified
            )
            yield origin
    yield node


def _can_take_on(layer: Layer, relu: Relu, inputs: list[Shape], fmt: Format) -> bool:
    return layer.can_rectify(fmt, *inputs) and (relu.most is None or layer.can_cut)


def rectifying(layer: Layer, relu: Relu) -> Layer:
    """A copy of a layer that does a ReLU's work as well."""
    layer = copy.copy(layer)
    layer.rectify, layer.keeps = True, (*layer.keeps, *layer.keeps_rectified)
    layer.ceiling = layer.ceiling if relu.most is None else relu.most
    return layer
