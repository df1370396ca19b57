"""VGG (Simonyan and Zisserman, arXiv 1409.1556) of 11 to 19 layers, without batch normalisation."""

from __future__ import annotations

from collections.abc import Collection

from mpitrain.layers import Convolution, Dense, Dropout, Flatten, MaxPool, Relu, SoftmaxCrossEntropy
from mpitrain.layers.layer import Shape
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network

CHANNELS = (64, 128, 256, 512, 512)
REPEATS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions before each of the five pools, by depth (columns A, B, D and E of the paper's table
1)."""


def convolutions(depth: int) -> dict[tuple[int, int], str]:
    """(stage, number in it) -> the convolution's name, by which torchvision counts all layers."""
    found, place = {}, 0
    for stage, repeats in enumerate(REPEATS[depth]):
        for number in range(repeats):
            found[stage, number] = f"features.{place}"
            place += 2
        place += 1  # the pool
    return found


def counterparts(depth: int, names: Collection[str]) -> tuple[int, dict[str, str]] | None:
    """Of the tensors of a VGG of another depth: that depth, and the name of each tensor of ours in
    it, the convolutions by stage and number as the VGG paper (section 3.1) begins deep networks.

    names: of all tensors. None if they are no such network's.
    """
    layers = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    features = {name for name in layers if name.startswith("features.")}
    for other in REPEATS:
        theirs = convolutions(other)
        if other != depth and features == set(theirs.values()):
            pairs = [
                (name, theirs[place])
                for place, name in convolutions(depth).items()
                if place in theirs
            ]
            pairs += [(name, name) for name in layers - features]
            ends = ("weight", "bias")
            return other, {f"{mine}.{end}": f"{its}.{end}" for mine, its in pairs for end in ends}
    return None


def build(
    depth: int, input_shape: Shape = (3, 224, 224), classes: int = 1000, *, dropout: bool = True
) -> Network:
    """VGG of a depth in REPEATS, for images of shape (C, H, W), with torchvision's names
    (features.0, classifier.6).

    There is no adaptive pooling: the first dense layer takes what the features give, torchvision's
    25088 at 224x224.
    """
    chain = Chain(dropout=dropout)
    place = 0
    for channels, repeats in zip(CHANNELS, REPEATS[depth], strict=True):
        for _ in range(repeats):
            chain.add(f"features.{place}", Convolution(channels, 3, padding=1))
            chain.add(f"features.{place + 1}", Relu())
            place += 2
        chain.add(f"features.{place}", MaxPool(2))
        place += 1
    chain.add("flatten", Flatten())
    chain.add("classifier.0", Dense(4096))
    chain.add("classifier.1", Relu())
    chain.add("classifier.2", Dropout())
    chain.add("classifier.3", Dense(4096))
    chain.add("classifier.4", Relu())
    chain.add("classifier.5", Dropout())
    chain.add("classifier.6", Dense(classes))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 256, "weight_decay": 5e-4, "data": "synthetic"}
    return Network(f"vgg{depth}", input_shape, classes, chain.nodes(), defaults)
