"""When a device's commands ran, as spans of a Trace in this process's clock."""

from __future__ import annotations

from itertools import groupby
from time import perf_counter_ns as now
from typing import Any

from mpitrain.job.trace import Span, Trace
from mpitrain.runtime.device import Device
from mpitrain.runtime.recording import Command, Kept

READINGS = 5
"""Commands with which the device's clock is read; the fastest counts."""


class Timer:
    """Keeps the events of one queue's commands, whose times are known when they are done.

    The device keeps them (`Device.keep_times`) while the trace is on.
    """

    def __init__(self, trace: Trace, device: Device, row: str, name: str) -> None:
        """row: of the trace, for that queue. name: another one for each timer."""
        self._trace, self._device, self._row = trace, device, row
        self._probe = device.zeros((1,))
        self._events: list[tuple[str, str, Any]] = []
        """Layer, kernel and event."""
        trace.settlers[name] = self.settle

    def wrap(self, layer: str, command: Command) -> Command:
        """A command that keeps its event as well."""
        return _Timed(self, layer, command)

    def call(self, layer: str, command: Command) -> None:
        """Queue something, and keep its last event."""
        before = self._device.last
        command()
        event = self._device.last
        if self._trace.on and event is not before and event is not None:
            self._events.append((layer, getattr(command, "name", ""), event))

    def settle(self) -> None:
        """Note what ran since the last time: each layer, and in it each kernel."""
        self._device.finish()
        events, self._events = self._events, []
        if not events:
            return
        ahead, end = self._ahead(), 0
        for layer, group in groupby(events, key=lambda each: each[0]):
            kernels = []
            for _, name, event in group:
                begin = max(end, int(event.profile.start) + ahead)
                end = max(begin, int(event.profile.end) + ahead)
                kernels.append(Span(self._row, name, begin, end))
            self._trace.add(Span(self._row, layer, kernels[0].begin, end))
            for span in kernels:
                if span.name:
                    self._trace.add(span)

    def _ahead(self) -> int:
        """Nanoseconds to add to the device's clock to have this process's."""
        found = []
        for _ in range(READINGS):
            before = now()
            self._probe.fill(0)
            event: Any = self._device.last
            event.wait()
            after = now()
            found.append((after - before, (before + after) // 2 - int(event.profile.end)))
        self._device.finish()
        return min(found)[1]


class _Timed:
    """A command of a layer that keeps its event."""

    def __init__(self, timer: Timer, layer: str, command: Command) -> None:
        self._timer, self._layer, self._command = timer, layer, command

    def __call__(self) -> None:
        self._timer.call(self._layer, self._command)

    def drop(self) -> None:
        """Give back what the command holds."""
        if isinstance(self._command, Kept):
            self._command.drop()
