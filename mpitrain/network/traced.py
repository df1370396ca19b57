"""A graph whose layers' times on the device are noted in a Trace."""

from __future__ import annotations

from functools import partial
from typing import Any

from mpitrain.engine.engine import Engine
from mpitrain.job.trace import DEVICE, Trace
from mpitrain.layers.layer import Pass
from mpitrain.network.graph import Graph
from mpitrain.network.network import Network
from mpitrain.runtime.recording import Command
from mpitrain.runtime.timed import Timer


class TracedGraph(Graph):
    """Queues the same commands as a Graph; the forward pass is recorded layer by layer."""

    def __init__(
        self, trace: Trace, device: Engine, network: Network, capacity: int, **more: Any
    ) -> None:
        """more: as a Graph takes it."""
        self._timer = Timer(trace, device, DEVICE, "layers")
        super().__init__(device, network, capacity, **more)

    def forward(self, run: Pass) -> None:
        for layer in self._varying:
            layer.vary(run)
        self._play(run, ("forward", "packed weights"), self._write_packed)
        for node in self.network.nodes:
            self._play(run, ("forward", node.name), partial(self._forward_of, node, run))

    def _kept(self, part: tuple[str, ...], commands: list[Command]) -> list[Command]:
        layer = " ".join(reversed(part))
        return [self._timer.wrap(layer, command) for command in commands]
