"""Networks by name or from a network file: `load` finds them, one file a family builds them."""

from mpitrain.network.models.named import NAMES, counterparts, load

__all__ = ["NAMES", "counterparts", "load"]
