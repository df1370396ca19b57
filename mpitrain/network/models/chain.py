"""Put layers one after the other: each takes the value before it, unless it names others."""

from __future__ import annotations

from mpitrain.layers import Dropout
from mpitrain.layers.layer import Layer
from mpitrain.network.network import Node

IMAGES = "input"
"""The name under which the images are a layer's input."""


class Chain:
    """Nodes in the order they were added. With `dropout` false the dropout layers are left out and
    bridged."""

    def __init__(self, *, dropout: bool = True) -> None:
        self.dropout = dropout
        self.last = IMAGES
        """Name of the value that the next layer takes."""
        self._nodes: list[Node] = []
        self._bridges: dict[str, str] = {}

    def add(self, name: str, layer: Layer, *inputs: str) -> str:
        """Append a layer that takes `inputs`, or else the last value; returns its value's name."""
        taken = tuple(self._bridges.get(value, value) for value in inputs or (self.last,))
        if isinstance(layer, Dropout) and not self.dropout:
            self._bridges[name] = self.last = taken[0]
        else:
            self._nodes.append(Node(name, layer, taken))
            self.last = name
        return self.last

    def nodes(self) -> tuple[Node, ...]:
        """What was added, for a Network."""
        return tuple(self._nodes)
