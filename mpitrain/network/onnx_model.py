"""A trained network as an ONNX model: images in [0, 1] in, class scores out.

Operators are those of opset 17. Normalisation by mean and deviation is part of the model; dropout,
which does nothing outside training, and the loss are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpitrain import layers
from mpitrain.job.errors import UserError
from mpitrain.layers.layer import Layer, Shape, pair, size
from mpitrain.layers.pool import Windows
from mpitrain.network.memory import INPUT, infer_shapes
from mpitrain.network.network import Node
from mpitrain.network.trained import Trained

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""Of 2022, which runtimes of today and of then read."""
MOST_BYTES = (1 << 31) - (1 << 20)
"""Of a protobuf message, with room for all but the weights."""
IMAGES, SCORES = "images", "scores"
"""Names of the model's input (N, C, H, W) and output (N, classes), both float32."""


def make_model(trained: Trained) -> onnx.ModelProto:
    """Raises UserError for what ONNX cannot express, and where the package onnx is missing."""
    try:
        from onnx import helper
    except ImportError:
        raise UserError(
            "the package onnx is not installed; `pip install mpitrain[export]` brings it"
        ) from None
    nbytes = 4 * sum(map(size, trained.shapes.values()))
    if nbytes > MOST_BYTES:
        raise UserError(
            f"{trained.network.name} has {nbytes:,} bytes of weights; an ONNX file holds 2 GiB"
        )
    graph = _Graph(trained)
    values = graph.normalised()
    inner = infer_shapes(trained.network)
    for node in trained.network.nodes[:-1]:
        values[node.name] = graph.add(node, [values[name] for name in node.inputs], inner)
    scores = values[trained.network.nodes[-1].inputs[0]]
    graph.node("Identity", [scores], SCORES)
    kind = 1  # TensorProto.FLOAT
    images, classes = trained.network.input_shape, trained.network.classes
    inputs = [helper.make_tensor_value_info(IMAGES, kind, ["N", *images])]
    outputs = [helper.make_tensor_value_info(SCORES, kind, ["N", classes])]
    made = helper.make_graph(graph.nodes, trained.network.name, inputs, outputs, graph.tensors)
    model = helper.make_model(
        made,
        producer_name="mpitrain",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(
        model, {"classes": json.dumps(trained.classes), "images": "pixels in [0, 1]"}
    )
    return model


class _Graph:
    """Nodes and tensors of a model that is being made."""

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append an operator; returns the name of its value."""
        from onnx import helper

        made = helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def tensor(self, name: str, values: NDArray[np.float32]) -> str:
        """Append a constant; returns its name."""
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def parameter(self, name: str) -> str:
        return self.tensor(name, self._trained.read(name))

    def normalised(self) -> dict[str, str]:
        """The images as the first layer takes them, as the value of INPUT."""
        x = IMAGES
        rows = ("Sub", "mean", self._trained.mean, 0.0), ("Div", "std", self._trained.std, 1.0)
        for kind, name, values, nothing in rows:
            if any(value != nothing for value in values):
                row = np.array(values, np.float32).reshape(1, -1, 1, 1)
                x = self.node(kind, [x, self.tensor(f"images.{name}", row)], f"images.{kind}")
        return {INPUT: x}

    def add(self, node: Node, inputs: Sequence[str], shapes: Mapping[str, Shape]) -> str:
        """Append a layer; returns the name of its value."""
        layer = node.layer
        if isinstance(layer, layers.Dropout):
            return inputs[0]
        make = OPERATORS.get(type(layer))
        if make is None:
            raise UserError(f"{node.name}: {type(layer).__name__} has no form in ONNX here")
        mine = [f"{node.name}.{name}" for name in TENSORS.get(type(layer), ())]
        more = [self.parameter(name) for name in mine if name in self._trained.shapes]
        for name, value in CONSTANTS.get(type(layer), {}).items():
            more.append(self.tensor(f"{node.name}.{name}", np.array(value, np.float32)))
        try:
            kind, attributes = make(layer, shapes[node.inputs[0]])
        except UserError as error:
            raise UserError(f"{node.name}: {error}") from None
        return self.node(kind, [*inputs, *more], node.name, **attributes)


Operator = tuple[str, dict[str, Any]]


def _convolution(layer: Any, _: Shape) -> Operator:
    edge = pair(layer.padding, "padding")
    return "Conv", {
        "kernel_shape": pair(layer.kernel, "kernel"),
        "strides": pair(layer.stride, "stride"),
        "pads": (*edge, *edge),
        "group": layer.groups,
    }


def _max_pool(layer: Any, shape: Shape) -> Operator:
    return "MaxPool", _windows(layer, shape)


def _average_pool(layer: Any, shape: Shape) -> Operator:
    found = _windows(layer, shape)
    height, width, end_height, end_width = found["pads"]
    counts = layer.count_padding and (height or width)
    if counts and (end_height > height or end_width > width):
        raise UserError("an average with `ceil` that counts padding has no form in ONNX")
    return "AveragePool", {**found, "count_include_pad": int(bool(counts))}


def _windows(layer: Windows, shape: Shape) -> dict[str, Any]:
    """Windows, with padding at the end as large as `ceil` makes it: runtimes differ in their own
    ceil_mode."""
    window, step, edge = layer.sizes
    _, *count = layer.output_shape(shape)
    ends = [
        max(0, (n - 1) * stride + extent - length - before) if layer.ceil else before
        for n, stride, extent, length, before in zip(
            count, step, window, shape[1:], edge, strict=True
        )
    ]
    return {"kernel_shape": window, "strides": step, "pads": (*edge, *ends)}


OPERATORS: dict[type[Layer], Callable[[Any, Shape], Operator]] = {
    layers.Convolution: _convolution,
    layers.Dense: lambda layer, shape: ("Gemm", {"transB": 1}),
    layers.MaxPool: _max_pool,
    layers.AveragePool: _average_pool,
    layers.GlobalAveragePool: lambda layer, shape: ("GlobalAveragePool", {}),
    layers.BatchNorm: lambda layer, shape: ("BatchNormalization", {"epsilon": layer.epsilon}),
    layers.Relu: lambda layer, shape: ("Relu", {}),
    layers.Relu6: lambda layer, shape: ("Clip", {}),
    layers.Concat: lambda layer, shape: ("Concat", {"axis": 1}),
    layers.Add: lambda layer, shape: ("Add", {}),
    layers.Flatten: lambda layer, shape: ("Flatten", {"axis": 1}),
}
"""Layer -> its operator and attributes, for inputs of a shape."""
TENSORS: dict[type[Layer], tuple[str, ...]] = {
    layers.Convolution: ("weight", "bias"),
    layers.Dense: ("weight", "bias"),
    layers.BatchNorm: ("weight", "bias", "running_mean", "running_var"),
}
"""Layer -> its tensors, in the order of the operator's inputs; a bias may be missing."""
CONSTANTS: dict[type[Layer], dict[str, float]] = {layers.Relu6: {"min": 0.0, "max": 6.0}}
"""Layer -> numbers that its operator takes after its values and tensors, in its order."""
