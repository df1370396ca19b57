"""A network before it has memory: named layers, each with the names of the values it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpitrain.layers.layer import Layer, Shape


@dataclass(frozen=True)
class Node:
    """One layer under a name. Its value goes by that name; `inputs` name earlier values, "input"
    being the images."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """Nodes in the order they run; the last one is the loss, the one before it the class scores."""

    name: str
    input_shape: Shape
    """(C, H, W) of one image."""
    classes: int
    nodes: tuple[Node, ...]
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Options of training that differ for this network (batch_size, weight_decay, data), by their
    name in config.py."""
