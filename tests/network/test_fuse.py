"""ReLUs go into the layers before them where nobody else reads those, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mpitrain.engine.engine import Engine
from mpitrain.engine.format import Format
from mpitrain.layers import (
    Add,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    MaxPool,
    Relu,
    Relu6,
    SoftmaxCrossEntropy,
)
from mpitrain.layers.layer import Pass
from mpitrain.layers.residual import BatchNormAdd
from mpitrain.network import models
from mpitrain.network.fuse import fuse
from mpitrain.network.graph import Graph
from mpitrain.network.network import Network, Node


def branches() -> Network:
    nodes = (
        ("conv", Convolution(20, 3, padding=1), ("input",)),
        ("relu1", Relu(), ("conv",)),
        ("left", Convolution(20, 1, bias=False), ("relu1",)),
        ("norm", BatchNorm(), ("left",)),
        ("relu2", Relu(), ("norm",)),
        ("right", Convolution(20, 3, padding=1), ("relu2",)),
        ("sum", Add(), ("right", "relu1")),
        ("relu3", Relu(), ("sum",)),
        ("inner", Convolution(20, 1), ("relu3",)),
        ("norm2", BatchNorm(), ("inner",)),
        ("shortcut", Convolution(20, 1), ("relu3",)),
        ("norm3", BatchNorm(), ("shortcut",)),
        ("sum2", Add(), ("norm2", "norm3")),
        ("relu4", Relu(), ("sum2",)),
        ("norm4", BatchNorm(), ("relu4",)),
        ("sum3", Add(), ("relu4", "norm4")),
        ("read twice", Convolution(4, 1), ("sum3",)),
        ("relu5", Relu(), ("read twice",)),
        ("last sum", Add(), ("relu5", "read twice")),
        ("flat", Flatten(), ("last sum",)),
        ("features", Dense(5), ("flat",)),
        ("norm of features", BatchNorm(), ("features",)),
        ("relu of features", Relu(), ("norm of features",)),
        ("scores", Dense(3), ("relu of features",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )
    return Network("test", (3, 6, 5), 3, tuple(Node(*node) for node in nodes))


def test_only_a_layers_sole_reader_goes_into_it() -> None:
    fused = fuse(branches(), Format(16))
    rectifying = [node.name for node in fused.nodes if node.layer.rectify]
    assert rectifying == ["conv", "norm", "sum", "norm2"]
    assert [node.name for node in fused.nodes if isinstance(node.layer, Relu)] == [
        "relu5",
        "relu of features",
    ]
    inputs = {node.name: node.inputs for node in fused.nodes}
    assert inputs["left"] == ("conv",) and inputs["sum"] == ("right", "conv")
    assert inputs["read twice"] == ("norm4",)
    assert not any(node.layer.rectify for node in branches().nodes), (
        "the network itself is not changed"
    )


def test_a_sum_goes_into_the_batch_normalisation_before_it() -> None:
    fused = fuse(branches(), Format(16))
    inputs = {
        node.name: node.inputs for node in fused.nodes if isinstance(node.layer, BatchNormAdd)
    }
    assert inputs == {"norm2": ("norm3", "inner"), "norm4": ("norm2", "norm2")}
    order = [node.name for node in fused.nodes]
    assert order.index("norm2") == order.index("norm3") + 1, "its other input is there before it"


def test_layers_without_blocks_keep_their_relus_but_for_sums() -> None:
    fused = fuse(branches(), Format(1))
    assert [node.name for node in fused.nodes if node.layer.rectify] == ["sum", "sum2"]
    assert not any(isinstance(node.layer, BatchNormAdd) for node in fused.nodes)


def test_a_resnets_blocks_end_in_one_layer() -> None:
    fused = fuse(models.load("resnet50"), Format(16))
    assert sum(isinstance(node.layer, BatchNormAdd) for node in fused.nodes) == 16
    assert not any(isinstance(node.layer, Add) for node in fused.nodes)


def test_only_a_batch_normalisation_takes_on_a_relu6() -> None:
    nodes = (
        ("conv", Convolution(20, 3), ("input",)),
        ("relu1", Relu6(), ("conv",)),
        ("norm", BatchNorm(), ("relu1",)),
        ("relu2", Relu6(), ("norm",)),
        ("relu3", Relu(), ("relu2",)),
        ("norm2", BatchNorm(), ("relu3",)),
        ("sum", Add(), ("norm2", "relu3")),
        ("relu4", Relu6(), ("sum",)),
        ("flat", Flatten(), ("relu4",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )
    network = Network("test", (3, 6, 5), 3, tuple(Node(*node) for node in nodes))
    fused = {node.name: node.layer for node in fuse(network, Format(16)).nodes}
    assert list(fused) == ["conv", "relu1", "norm", "norm2", "relu4", "flat", "scores", "loss"]
    assert (fused["norm"].rectify, fused["norm"].ceiling) == (True, 6.0)
    assert (fused["norm2"].rectify, fused["norm2"].ceiling) == (False, None)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("vgg16", 2),
        ("resnet152", 0),
        ("lenet", 1),
        ("alexnet", 2),
        ("densenet121", 0),
        ("mobilenetv2", 0),
    ],
)
def test_networks_keep_only_the_relus_of_dense_layers(name: str, left: int) -> None:
    assert (
        sum(isinstance(node.layer, Relu) for node in fuse(models.load(name), Format(16)).nodes)
        == left
    )


def pools() -> Network:
    """One that gates, and those that must not: what they read is read twice, not rectified, cut off
    above as well, or a batch normalisation's, which looks at its x anyway."""
    nodes = (
        ("conv", Convolution(20, 3, padding=1), ("input",)),
        ("relu", Relu(), ("conv",)),
        ("pool", MaxPool(3, 2, 1), ("relu",)),
        ("conv2", Convolution(20, 3, padding=1), ("pool",)),
        ("relu2", Relu(), ("conv2",)),
        ("pool2", MaxPool(2, 1, 1), ("relu2",)),
        ("other", MaxPool(2, 1, 1), ("relu2",)),
        ("sum", Add(), ("pool2", "other")),
        ("conv3", Convolution(20, 3), ("sum",)),
        ("pool3", MaxPool(2, 1), ("conv3",)),
        ("conv4", Convolution(20, 3, padding=1), ("pool3",)),
        ("relu4", Relu6(), ("conv4",)),
        ("pool4", MaxPool(2, 1, 1), ("relu4",)),
        ("norm", BatchNorm(), ("pool4",)),
        ("relu5", Relu(), ("norm",)),
        ("pool5", MaxPool(2, 1, 1), ("relu5",)),
        ("flat", Flatten(), ("pool5",)),
        ("scores", Dense(3), ("flat",)),
        ("loss", SoftmaxCrossEntropy(), ("scores",)),
    )
    return Network("test", (3, 6, 5), 3, tuple(Node(*node) for node in nodes))


def test_a_pool_does_the_way_back_of_a_relu_that_it_alone_reads() -> None:
    fused = {node.name: node.layer for node in fuse(pools(), Format(16)).nodes}
    assert [name for name, layer in fused.items() if layer.gates] == ["pool"]
    assert [name for name, layer in fused.items() if layer.gated] == ["conv"]
    assert (fused["conv"].keeps, fused["conv2"].keeps) == (("x",), ("x", "y"))
    assert not any(node.layer.gates or node.layer.gated for node in pools().nodes)
    vgg = fuse(models.load("vgg16"), Format(16)).nodes
    assert sum(node.layer.gates for node in vgg) == 5


@pytest.mark.parametrize("build", [branches, pools])
def test_a_fused_network_computes_the_same(
    device: Engine, monkeypatch: pytest.MonkeyPatch, build: Callable[[], Network]
) -> None:
    random = np.random.default_rng(0)
    images = random.standard_normal((4, 3, 6, 5), np.float32)
    labels = np.array([0, 1, 2, 0])
    found = []
    for way in (fuse, lambda network, block: network):
        monkeypatch.setattr("mpitrain.network.graph.fuse", way)
        graph = Graph(device, build(), 4)
        weights = np.random.default_rng(1).normal(scale=0.3, size=graph.layout.length)
        graph.weights.write(weights.astype(np.float32))
        graph.load(images, labels)
        graph.forward(Pass(4))
        for _ in graph.backward(Pass(4)):
            pass
        found.append((graph.losses(4), graph.gradient.download(), graph.statistics.download()))
    for fused, plain in zip(*found, strict=True):
        np.testing.assert_allclose(
            fused, plain, rtol=2e-5, atol=2e-5 * np.abs(plain).max(initial=0)
        )
