"""A dense layer whose weight is split over ranks: each keeps and updates a slice of it, for the
whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from mpitrain.engine.engine import Engine
from mpitrain.layers.bias import BiasGradient
from mpitrain.layers.dense.dense import Dense
from mpitrain.layers.dense.sides import Cut, Peers, Side, Whole
from mpitrain.layers.layer import Parameter, Pass, Placement, Shape, size
from mpitrain.runtime.array import Array


class SplitDense(Dense):
    """y = sum over ranks of x[:, own] weight[:, own]' + bias, the inputs (columns) being shared
    out; or, where there are more outputs than inputs, y[:, own] = x weight[own]' + bias[own].

    The longer side is shared out, which sends less: its values travel once, in shards, while each
    rank needs those of the other side whole. Rows of x and dy travel to where they are multiplied,
    rows of y and dx back to the ranks of their images. So dweight is of the whole batch on the rank
    that keeps the slice, and no other rank needs it. The bias is every rank's, as ever.

    x (n, in), y (n, features) of this rank's images; Pass.everyone says how many each rank has.
    """

    keeps = ()
    together = True
    x_rows: Array
    """Rows of x that this rank multiplies, of all images; on the way back those of dx."""
    y_rows: Array
    """The same of y, and of dy."""

    def __init__(self, dense: Dense, peers: Peers) -> None:
        super().__init__(dense.features, dense.has_bias, dense.initial)
        self.peers = peers

    def axis(self, *shapes: Shape) -> int:
        """Of the weight (features, in): the one that is shared out."""
        return 0 if self.features > size(shapes[0]) else 1

    def sides(self, *shapes: Shape) -> tuple[Side, Side]:
        """How the rows of x and of y travel."""
        x, y = (Whole, Cut) if self.axis(*shapes) == 0 else (Cut, Whole)
        return x(self.peers, size(shapes[0])), y(self.peers, self.features)

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        found, inputs = super().parameters(*shapes), size(shapes[0])
        axis, peers = self.axis(*shapes), self.peers
        placement = Placement((self.features, inputs), axis, peers.rank, peers.size)
        weight = replace(found["weight"], shape=placement.shape, placement=placement)
        return {**found, "weight": weight}

    def memory(self, images: int, *shapes: Shape) -> dict[str, tuple[Shape, DTypeLike]]:
        x, y = self.sides(*shapes)
        rows = images * self.peers.size
        return {
            "x_rows": ((rows, x.here), np.float32),
            "y_rows": ((rows, y.here), np.float32),
        }

    def workspace(self, images: int, *shapes: Shape) -> int:
        return super().workspace(images * self.peers.size, *shapes)

    def build(self, device: Engine, *shapes: Shape) -> None:
        self._device = device
        self._x, self._y = self.sides(*shapes)
        self._make_ways(device, self._x.here, self._y.here)
        self._way(self.capacity * self.peers.size).compile(self.capacity * self.peers.size)
        self._bias_gradient = BiasGradient(device, self.features, None)

    def forward(self, run: Pass, y: Array, *x: Array) -> None:
        total = sum(run.everyone)
        self._queue(lambda: self._spread(self._x, self.x_rows, x[0], run))
        self._way(total).forward(self.y_rows, self.x_rows, self.weight, None, total, self.scratch)
        self._queue(lambda: self._collect(self._y, y, self.y_rows, run, self._bias_of()))

    def backward(
        self, run: Pass, dx: Sequence[Array | None], dy: Array, x: Sequence[Array], y: Array
    ) -> None:
        total, wanted = sum(run.everyone), dx[0]
        way = self._way(total)
        if self.has_bias and run.images:
            self._bias_gradient(self.dbias, dy, None, run.images, run.accumulate, self.scratch)
        self._queue(lambda: self._spread(self._y, self.y_rows, dy, run))
        way.backward_weight(
            self.dweight, self.y_rows, self.x_rows, run.accumulate, total, self.scratch
        )
        if wanted is not None:
            way.backward_data(self.x_rows, self.y_rows, self.weight, total, self.scratch)
            self._queue(lambda: self._collect(self._x, wanted, self.x_rows, run))

    def _queue(self, travel: Callable[[], None]) -> None:
        """Rows travel through the host's memory, after all that was queued on the device before;
        and again whenever the run is repeated."""

        def command() -> None:
            self._device.finish()
            travel()

        self._device.queue_command(command)

    def _bias_of(self) -> Array | None:
        return self.bias if self.has_bias else None

    def _spread(self, side: Side, rows: Array, own: Array, run: Pass) -> None:
        mine = own.reshape((run.images, side.width))
        rows = rows.reshape((sum(run.everyone), side.here))
        with mine.host() as here, rows.host(write=True) as everyones:
            side.spread(everyones, here, run.everyone)

    def _collect(
        self, side: Side, own: Array, rows: Array, run: Pass, bias: Array | None = None
    ) -> None:
        mine = own.reshape((run.images, side.width))
        rows = rows.reshape((sum(run.everyone), side.here))
        with mine.host(write=True) as here, rows.host() as everyones:
            side.collect(here, everyones, run.everyone)
            if bias is not None and run.images:
                with bias.host() as values:
                    np.add(here, values, out=here)
