"""AlexNet of one column (Krizhevsky, arXiv 1404.5997), as torchvision has it."""

from __future__ import annotations

from mpitrain.layers import Convolution, Dense, Dropout, Flatten, MaxPool, Relu, SoftmaxCrossEntropy
from mpitrain.layers.layer import Shape
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network


def build(
    input_shape: Shape = (3, 224, 224), classes: int = 1000, *, dropout: bool = True
) -> Network:
    """AlexNet for images of shape (C, H, W) from 63x63 on, with torchvision's names (features.0,
    classifier.6).

    There is no adaptive pooling: the first dense layer takes what the features give, torchvision's
    9216 at 224x224.
    """
    chain = Chain(dropout=dropout)
    for place, channels, kernel, stride, padding, pooled in (
        (0, 64, 11, 4, 2, True),
        (3, 192, 5, 1, 2, True),
        (6, 384, 3, 1, 1, False),
        (8, 256, 3, 1, 1, False),
        (10, 256, 3, 1, 1, True),
    ):
        convolution = Convolution(channels, kernel, stride, padding, initial="pytorch")
        chain.add(f"features.{place}", convolution)
        chain.add(f"features.{place + 1}", Relu())
        if pooled:
            chain.add(f"features.{place + 2}", MaxPool(3, stride=2))
    chain.add("flatten", Flatten())
    chain.add("classifier.0", Dropout())
    chain.add("classifier.1", Dense(4096, initial="pytorch"))
    chain.add("classifier.2", Relu())
    chain.add("classifier.3", Dropout())
    chain.add("classifier.4", Dense(4096, initial="pytorch"))
    chain.add("classifier.5", Relu())
    chain.add("classifier.6", Dense(classes, initial="pytorch"))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 256, "weight_decay": 5e-4, "data": "synthetic"}
    return Network("alexnet", input_shape, classes, chain.nodes(), defaults)
