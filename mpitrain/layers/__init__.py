"""Layers: one file each, with its equation, shape rule, forward and backward."""

from mpitrain.layers.accuracy import Accuracy
from mpitrain.layers.add import Add
from mpitrain.layers.batchnorm import BatchNorm
from mpitrain.layers.concat import Concat
from mpitrain.layers.conv import Convolution
from mpitrain.layers.dense import Dense
from mpitrain.layers.dropout import Dropout
from mpitrain.layers.flatten import Flatten
from mpitrain.layers.pool import AveragePool, GlobalAveragePool, MaxPool
from mpitrain.layers.relu import Relu, Relu6
from mpitrain.layers.softmax import SoftmaxCrossEntropy
from mpitrain.layers.squared import SquaredLoss

__all__ = [
    "Accuracy",
    "Add",
    "AveragePool",
    "BatchNorm",
    "Concat",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Relu",
    "Relu6",
    "SoftmaxCrossEntropy",
    "SquaredLoss",
]
