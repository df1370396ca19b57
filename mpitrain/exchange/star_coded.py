"""The strategy `star-dynamic8`: 8-bit codes of all gradients and weights go through rank 0.

It is there for comparisons with the paper.
"""

from __future__ import annotations

from mpitrain.exchange.coded import Coded
from mpitrain.exchange.star import StarFloat32


class StarDynamic8(Coded):
    """Rank 0 receives every rank's whole coded gradient, and sends coded changes of weights."""

    codec = "dynamic8"
    root_only = True
    uncoded = StarFloat32
