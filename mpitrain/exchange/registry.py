"""Which strategies there are, by name: for the command line, and for whoever makes one.

Knows their modules by name alone, so that `--help` needs neither MPI nor OpenCL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mpitrain.job.errors import UserError

if TYPE_CHECKING:
    from mpitrain.exchange.strategy import Strategy

REGISTRY: dict[str, str | type[Strategy]] = {
    "dynamic8": "mpitrain.exchange.coded:Dynamic8",
    "float16": "mpitrain.exchange.coded:Float16",
    "float32": "mpitrain.exchange.plain:Float32",
    "window": "mpitrain.exchange.one_host:SharedWindow",
    "lowrank": "mpitrain.exchange.lowrank:LowRank",
    "star-float32": "mpitrain.exchange.star:StarFloat32",
    "star-dynamic8": "mpitrain.exchange.star_coded:StarDynamic8",
}
"""Name of each strategy -> its module and class, or the class itself; in the order of the help."""


def find(name: str) -> type[Strategy]:
    """The strategy of this name, after which an argument may stand: lowrank:8. Raises UserError if
    there is none, or if it does not know the argument."""
    base, _, argument = name.partition(":")
    found = REGISTRY.get(base)
    if found is None:
        raise UserError(f"--exchange {name}: expected one of {', '.join(('auto', *REGISTRY))}")
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    strategy: type[Strategy] = found
    strategy.check(base, argument)
    return strategy


def is_lossy(name: str) -> bool:
    """Whether a strategy has this name and rounds what it sends."""
    return name.partition(":")[0] in REGISTRY and find(name).lossy
