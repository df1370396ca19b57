"""Dense layers: one layer, and one file for each way to compute its products."""

from mpitrain.layers.dense.dense import Dense

__all__ = ["Dense"]
