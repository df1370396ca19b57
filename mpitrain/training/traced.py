"""What a training hands to its parts with --trace: they do as ever, and note it in a Trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mpitrain.exchange.exchange import Updater
from mpitrain.exchange.move import Move
from mpitrain.job.trace import Trace
from mpitrain.mpi import wire as wires
from mpitrain.mpi.connect import replace
from mpitrain.mpi.wire import Wire
from mpitrain.runtime.array import Array
from mpitrain.runtime.device import Device
from mpitrain.runtime.timed import Timer
from mpitrain.watch.watchdog import Watchdog

PHASES = {"scatter": "data", "exchange": "wait"}
"""What a trace calls phases, where that is not the watchdog's word."""


class TracedWatchdog(Watchdog):
    """Its phases are the trace's."""

    def __init__(self, trace: Trace, rank: int, limit: float, abort: Callable[[int], None]) -> None:
        self._trace = trace
        super().__init__(rank, limit, abort)

    def at(self, phase: str, step: int | None = None) -> None:
        if step is not None:  # otherwise a phase goes on, perhaps in another thread
            begun = step + 1 if phase == "scatter" else None
            self._trace.phase(PHASES.get(phase, phase), begun)
        super().at(phase, step)


class TracedUpdates:
    """What an exchange asks of the training above it, with the times of updates noted."""

    def __init__(self, trace: Trace, plain: Updater, device: Device, row: str) -> None:
        """device: with the queue of updates. row: the trace's for that queue."""
        self._plain, self._trace = plain, trace
        self._timer = Timer(trace, device, row, "updates")

    def set_out(self, gradient: Array) -> None:
        """A bucket of the gradient sets out."""
        self._plain.set_out(gradient)

    def update(self, move: Move) -> None:
        """Move a range of weights by its mean gradient."""
        with self._trace.span("update"):
            self._timer.call("update", partial(self._plain.update, move))

    def alive(self) -> None:
        """The exchange goes on."""
        self._plain.alive()


def traced(wire: Wire) -> tuple[Wire, Trace]:
    """The wire between these ranks whose messages are noted, made once, and where. Collective."""
    if wire.trace is not None:
        return wire, wire.trace
    trace = Trace()
    found = wires.traced(wire, trace)
    replace(wire, found)
    return found, trace
