"""Which engines there are, by name: for the command line, and for whoever opens a device.

Knows their modules by name alone, so that `--help` needs no OpenCL.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpitrain.job.errors import UserError

if TYPE_CHECKING:
    from mpitrain.engine.engine import Engine

REGISTRY: dict[str, str | type[Engine]] = {
    "nvidia": "mpitrain.engine.nvidia:Nvidia",
    "gpu": "mpitrain.engine.gpu:Gpu",
    "cpu": "mpitrain.engine.cpu:Cpu",
}
"""Name of each engine -> its module and class, or the class itself. `auto` takes the first one that
suits the device."""


def find(name: str) -> type[Engine]:
    """The engine of this name. Raises UserError if there is none."""
    found = REGISTRY.get(name)
    if found is None:
        raise UserError(f"--engine {name}: expected one of {', '.join(('auto', *REGISTRY))}")
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    engine: type[Engine] = getattr(importlib.import_module(module), attribute)
    return engine


def open_device(
    choice: str = "auto",
    local_rank: int = 0,
    cores: Sequence[int] | None = None,
    engine: str = "auto",
) -> Engine:
    """The device for one rank of a host, as runtime/device.py chooses it, with an engine.

    Raises UserError if no device fits, naming those that there are, or if there is no such engine.
    """
    from mpitrain.runtime.device import choose

    entry = choose(choice, local_rank, cores)
    if engine != "auto":
        return find(engine)(entry)
    return next(kind for kind in map(find, REGISTRY) if kind.suits(entry))(entry)
