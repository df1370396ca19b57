"""MobileNetV2 (Sandler et al., arXiv 1801.04381): narrow shortcuts, and depthwise convolutions
between wide ones."""

from __future__ import annotations

from mpitrain.layers import (
    Add,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Relu6,
    SoftmaxCrossEntropy,
)
from mpitrain.layers.layer import Shape
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride of the first), table 2 of the paper."""
FIRST, LAST = 32, 1280
"""Channels of the first and of the last convolution."""


def build(
    input_shape: Shape = (3, 224, 224), classes: int = 1000, *, dropout: bool = True
) -> Network:
    """MobileNetV2 of width 1 for images of shape (C, H, W), with torchvision's names
    (features.1.conv.0.0, classifier.1)."""
    chain = Chain(dropout=dropout)
    _activated(chain, "features.0", Convolution(FIRST, 3, 2, 1, bias=False, initial="he_out"))
    channels, place = FIRST, 1
    for expansion, width, blocks, stride in STAGES:
        for block in range(blocks):
            step = stride if block == 0 else 1
            _block(chain, f"features.{place}.conv", channels, width, expansion, step)
            channels, place = width, place + 1
    _activated(chain, f"features.{place}", Convolution(LAST, 1, bias=False, initial="he_out"))
    chain.add("avgpool", GlobalAveragePool())
    chain.add("flatten", Flatten())
    chain.add("classifier.0", Dropout(0.2))
    chain.add("classifier.1", Dense(classes, initial="normal"))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 256, "weight_decay": 4e-5, "data": "synthetic"}
    return Network("mobilenetv2", input_shape, classes, chain.nodes(), defaults)


def _activated(chain: Chain, name: str, convolution: Convolution) -> None:
    """A convolution, batch normalisation and ReLU6: NAME.0 to NAME.2."""
    chain.add(f"{name}.0", convolution)
    chain.add(f"{name}.1", BatchNorm())
    chain.add(f"{name}.2", Relu6())


def _block(chain: Chain, name: str, channels: int, width: int, expansion: int, stride: int) -> None:
    """y = branch(x), + x where the shape stays: a 1x1 convolution that widens (none without an
    expansion), a 3x3 one of each channel by itself, and a 1x1 that narrows, with no ReLU after
    it."""
    x, wide = chain.last, expansion * channels
    convolutions = [
        Convolution(wide, 1, bias=False, initial="he_out"),
        Convolution(wide, 3, stride, 1, groups=wide, bias=False, initial="he_out"),
    ][expansion == 1 :]
    for place, convolution in enumerate(convolutions):
        _activated(chain, f"{name}.{place}", convolution)
    place = len(convolutions)
    chain.add(f"{name}.{place}", Convolution(width, 1, bias=False, initial="he_out"))
    branch = chain.add(f"{name}.{place + 1}", BatchNorm())
    if stride == 1 and channels == width:
        chain.add(f"{name}.add", Add(), branch, x)
