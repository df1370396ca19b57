"""ResNet (He et al., arXiv 1512.03385) of 18 to 152 layers; bottlenecks stride in their 3x3, as
torchvision's do."""

from __future__ import annotations

from mpitrain.layers import (
    Add,
    BatchNorm,
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

WIDTHS = (64, 128, 256, 512)
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks in each of the four stages, by depth."""
BOTTLENECK_FROM = 50
"""Depths from here on use 1x1, 3x3, 1x1 blocks whose last convolution is EXPANSION times as
wide."""
EXPANSION = 4


def build(
    depth: int, input_shape: Shape = (3, 224, 224), classes: int = 1000, *, dropout: bool = True
) -> Network:
    """ResNet of a depth in BLOCKS, for images of shape (C, H, W), with torchvision's names
    (layer1.0.conv1, fc).

    It has no dropout to leave out.
    """
    chain = Chain(dropout=dropout)
    chain.add("conv1", Convolution(64, 7, stride=2, padding=3, bias=False))
    chain.add("bn1", BatchNorm())
    chain.add("relu", Relu())
    chain.add("maxpool", MaxPool(3, stride=2, padding=1))
    channels = 64
    for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            channels = _block(chain, f"layer{stage}.{block}", depth, channels, width, stride)
    chain.add("avgpool", GlobalAveragePool())
    chain.add("flatten", Flatten())
    chain.add("fc", Dense(classes))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 256, "weight_decay": 1e-4, "data": "synthetic"}
    return Network(f"resnet{depth}", input_shape, classes, chain.nodes(), defaults)


def _block(chain: Chain, name: str, depth: int, channels: int, width: int, stride: int) -> int:
    """y = relu(branch(x) + shortcut(x)), the shortcut a 1x1 convolution where the shape changes.
    Returns y's channels."""
    if depth < BOTTLENECK_FROM:
        out = width
        convolutions = [
            Convolution(width, 3, stride=stride, padding=1, bias=False),
            Convolution(width, 3, padding=1, bias=False),
        ]
    else:
        out = EXPANSION * width
        convolutions = [
            Convolution(width, 1, bias=False),
            Convolution(width, 3, stride=stride, padding=1, bias=False),
            Convolution(out, 1, bias=False),
        ]
    x = shortcut = chain.last
    for number, convolution in enumerate(convolutions, start=1):
        chain.add(f"{name}.conv{number}", convolution)
        branch = chain.add(f"{name}.bn{number}", BatchNorm())
        if number < len(convolutions):
            chain.add(f"{name}.relu{number}", Relu())
    if stride != 1 or channels != out:
        chain.add(f"{name}.downsample.0", Convolution(out, 1, stride=stride, bias=False), x)
        shortcut = chain.add(f"{name}.downsample.1", BatchNorm())
    chain.add(f"{name}.add", Add(), branch, shortcut)
    chain.add(f"{name}.relu", Relu())
    return out
