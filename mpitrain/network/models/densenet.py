"""DenseNet (Huang et al., arXiv 1608.06993): every layer of a block takes the channels of all
before it."""

from __future__ import annotations

from mpitrain.layers import (
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Relu,
    SoftmaxCrossEntropy,
)
from mpitrain.layers.layer import Shape
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network

BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
"""Dense layers in each of the four blocks, by depth."""
GROWTH = 32
"""Channels that a dense layer adds."""
BOTTLENECK = 4
"""Channels of its 1x1 convolution, in GROWTH."""
FIRST = 64
"""Channels of the first convolution."""


def build(
    depth: int, input_shape: Shape = (3, 224, 224), classes: int = 1000, *, dropout: bool = True
) -> Network:
    """DenseNet of a depth in BLOCKS, for images of shape (C, H, W), with torchvision's names
    (features.denseblock1.denselayer1.conv1, classifier).

    It has no dropout to leave out.
    """
    chain = Chain(dropout=dropout)
    chain.add("features.conv0", Convolution(FIRST, 7, stride=2, padding=3, bias=False))
    chain.add("features.norm0", BatchNorm())
    chain.add("features.relu0", Relu())
    chain.add("features.pool0", MaxPool(3, stride=2, padding=1))
    channels = FIRST
    for stage, layers in enumerate(BLOCKS[depth], start=1):
        _block(chain, f"features.denseblock{stage}", layers)
        channels += layers * GROWTH
        if stage < len(BLOCKS[depth]):
            channels //= 2
            name = f"features.transition{stage}"
            _activated(chain, f"{name}.", "", Convolution(channels, 1, bias=False))
            chain.add(f"{name}.pool", AveragePool(2))
    chain.add("features.norm5", BatchNorm())
    chain.add("features.relu5", Relu())
    chain.add("avgpool", GlobalAveragePool())
    chain.add("flatten", Flatten())
    chain.add("classifier", Dense(classes))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 256, "weight_decay": 1e-4, "data": "synthetic"}
    return Network(f"densenet{depth}", input_shape, classes, chain.nodes(), defaults)


def _activated(chain: Chain, name: str, number: str, convolution: Convolution) -> None:
    """Batch normalisation and ReLU before a convolution: NAMEnormNUMBER, ..."""
    chain.add(f"{name}norm{number}", BatchNorm())
    chain.add(f"{name}relu{number}", Relu())
    chain.add(f"{name}conv{number}", convolution)


def _block(chain: Chain, name: str, layers: int) -> None:
    """Dense layers, each with GROWTH channels from all before it, and all of them as the value."""
    values = [chain.last]
    for layer in range(1, layers + 1):
        here = f"{name}.denselayer{layer}."
        if layer > 1:
            chain.add(f"{here}concat", Concat(), *values)
        _activated(chain, here, "1", Convolution(BOTTLENECK * GROWTH, 1, bias=False))
        _activated(chain, here, "2", Convolution(GROWTH, 3, padding=1, bias=False))
        values.append(chain.last)
    chain.add(f"{name}.concat", Concat(), *values)
