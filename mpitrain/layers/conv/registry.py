"""The families of convolution algorithms, by the names that engines give them."""

from __future__ import annotations

from mpitrain.layers.conv.algorithm import Family
from mpitrain.layers.conv.direct import DirectFamily
from mpitrain.layers.conv.grouped import GroupedFamily
from mpitrain.layers.conv.implicit import ImplicitFamily
from mpitrain.layers.conv.tensor import TensorFamily
from mpitrain.layers.conv.tiles import TilesFamily
from mpitrain.layers.conv.winograd import WinogradFamily
from mpitrain.layers.conv.winograd_tiles import WinogradTilesFamily

FAMILIES: dict[str, Family] = {
    "direct": DirectFamily(),
    "grouped": GroupedFamily(),
    "implicit": ImplicitFamily(),
    "tensor": TensorFamily(),
    "tiles": TilesFamily(),
    "winograd": WinogradFamily(),
    "winograd_tiles": WinogradTilesFamily(),
}
