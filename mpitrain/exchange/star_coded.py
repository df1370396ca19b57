"""The paper's way with 8-bit codes, for comparisons: all gradients and weights go through rank
0."""

from __future__ import annotations

from mpitrain.exchange.coded import Coded
from mpitrain.exchange.star import StarFloat32


class StarDynamic8(Coded):
    """Whole coded vectors to rank 0, and coded changes of the weights from it to each rank."""

    codec = "dynamic8"
    root_only = True
    uncoded = StarFloat32
