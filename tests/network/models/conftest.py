"""What the tests of networks share: every tensor that a network trains, found from its layers' own
rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpitrain.layers.layer import Shape
from mpitrain.network.network import Network


def walk(network: Network) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shape of every parameter, and of every layer's value, by name and in network order."""
    values: dict[str, Shape] = {"input": network.input_shape}
    tensors: dict[str, Shape] = {}
    for node in network.nodes:
        shapes = [values[name] for name in node.inputs]
        for name, parameter in node.layer.parameters(*shapes).items():
            tensors[f"{node.name}.{name}"] = parameter.shape
        values[node.name] = node.layer.output_shape(*shapes)
    return tensors, values


@pytest.fixture
def tensors() -> Callable[[Network], dict[str, Shape]]:
    return lambda network: walk(network)[0]


@pytest.fixture
def values() -> Callable[[Network], dict[str, Shape]]:
    return lambda network: walk(network)[1]
