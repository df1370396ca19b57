"""Update the slices of tensors that this rank alone keeps: no other rank has their gradients."""

from __future__ import annotations

from mpitrain.exchange.move import Move
from mpitrain.network.graph import Graph
from mpitrain.training.sgd import MomentumSgd


class OwnUpdate:
    """Momentum SGD on a graph's `own_weights`, queued on its device."""

    def __init__(
        self, graph: Graph, momentum: float, weight_decay: float, nesterov: bool = False
    ) -> None:
        self._gradient = graph.own_gradient
        self.sgd = MomentumSgd(graph.device, graph.own_weights, momentum, weight_decay, nesterov)

    def update(self, images: int) -> None:
        """Move all slices by the mean gradient over so many images."""
        self.sgd.update(Move(0, self._gradient.size, self._gradient, factor=1 / images))
