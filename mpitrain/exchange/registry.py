"""The registry of strategies by name, for the command line and for the exchange.

It imports no strategy before it is asked for, so that `--help` needs neither MPI nor OpenCL.
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
    "exact": "mpitrain.exchange.exact:Exact",
    "lowrank": "mpitrain.exchange.lowrank:LowRank",
    "lowrank8": "mpitrain.exchange.lowrank8:LowRank8",
    "star-float32": "mpitrain.exchange.star:StarFloat32",
    "star-dynamic8": "mpitrain.exchange.star_coded:StarDynamic8",
}
"""Name of each strategy -> its module and class, or the class itself, in the order of --help."""
ARGUMENTS: dict[str, range] = dict.fromkeys(("lowrank", "lowrank8"), range(1, 33))
"""Strategy -> the whole numbers that may follow its name and a colon, as in lowrank:8."""


def check(name: str) -> str:
    """The name of a strategy without its argument; imports nothing.

    Raises UserError if there is no such strategy, or if it does not take the argument.
    """
    base, _, argument = name.partition(":")
    if base not in REGISTRY:
        raise UserError(f"--exchange {name}: expected one of {', '.join(('auto', *REGISTRY))}")
    allowed = ARGUMENTS.get(base)
    if argument and allowed is None:
        raise UserError(f"--exchange {name}: expected nothing after {base}")
    if argument and allowed and not (argument.isdecimal() and int(argument) in allowed):
        raise UserError(
            f"--exchange {name}: expected a rank from {allowed[0]} to {allowed[-1]} after the colon"
        )
    return base


def find(name: str) -> type[Strategy]:
    """The strategy of this name, which an argument may follow, as in lowrank:8.

    Raises UserError if there is none, or if it does not know the argument.
    """
    found = REGISTRY[check(name)]
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    strategy: type[Strategy] = getattr(importlib.import_module(module), attribute)
    return strategy


def check_update(name: str, update: str) -> None:
    """Raise UserError unless the strategy of this name works with this --update."""
    strategy = find(name)
    if strategy.root_only and update != "root":
        raise UserError(
            f"exchange {name}: rank 0 has the mean alone; expected update root, got {update}"
        )
    if strategy.replicated_only and update != "replicated":
        raise UserError(
            f"exchange {name}: every rank has the mean; expected update replicated, got {update}"
        )
    if update not in ("root", "replicated"):
        raise UserError(f"update {update}: expected root or replicated")


def is_lossy(name: str) -> bool:
    """Whether a strategy has this name and rounds what it sends."""
    return name.partition(":")[0] in REGISTRY and find(name).lossy
