"""LeNet as in the paper (and in Caffe): two convolutions, two dense layers, 431,080 parameters at
28x28."""

from __future__ import annotations

from mpitrain.layers import Convolution, Dense, Flatten, MaxPool, Relu, SoftmaxCrossEntropy
from mpitrain.layers.layer import Shape
from mpitrain.network.models.chain import Chain
from mpitrain.network.network import Network


def build(input_shape: Shape = (1, 28, 28), classes: int = 10, *, dropout: bool = True) -> Network:
    """LeNet for images of shape (C, H, W); it has no dropout to leave out. Parameters fc1.weight,
    fc1.bias, ..."""
    chain = Chain(dropout=dropout)
    chain.add("conv1", Convolution(20, 5))
    chain.add("pool1", MaxPool(2))
    chain.add("conv2", Convolution(50, 5))
    chain.add("pool2", MaxPool(2))
    chain.add("flatten", Flatten())
    chain.add("fc1", Dense(500))
    chain.add("relu1", Relu())
    chain.add("fc2", Dense(classes))
    chain.add("loss", SoftmaxCrossEntropy())
    defaults = {"batch_size": 64, "weight_decay": 0.0, "data": "digits"}
    return Network("lenet", input_shape, classes, chain.nodes(), defaults)
