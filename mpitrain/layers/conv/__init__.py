"""Convolution: one layer, and one file for each algorithm that can compute it."""

from mpitrain.layers.conv.convolution import Convolution

__all__ = ["Convolution"]
