"""With --trace: begin to note what all ranks do when the first steps have compiled everything, and
some steps later write trace.json. Two hooks, since what is noted must end with a step, and the file
has time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np

from mpitrain.job import trace_file
from mpitrain.job.trace import Span, Trace
from mpitrain.job.trace_file import RankTrace
from mpitrain.mpi import clock
from mpitrain.mpi.wire import Wire

if TYPE_CHECKING:
    from mpitrain.training.plan import Plan, Progress
    from mpitrain.training.world import World

WARM = 2
"""Steps of a run that are left out, if it has more of them: they compile kernels and record what is
queued."""


class _Traced:
    """The steps that are traced: those after `_first` are done, up to `_last`.

    What hooks do about them follows from the progress, which all ranks share: where one dies in it,
    those that had come further do it again as well.
    """

    def __init__(self, plan: Plan) -> None:
        count = plan.run.trace or 0
        self._plan, self._traces = plan, count > 0
        self._before = plan.begun + (WARM if plan.steps > plan.begun + WARM else 1)
        """Steps that are done when the trace begins."""
        self._last = min(self._before + count, plan.steps)

    def _write(self, world: World, content: dict[str, Any]) -> str:
        """The path; empty where it cannot be written, which does not end a training."""
        try:
            return str(trace_file.write(self._plan.folder, content))
        except OSError as error:
            world.local.display.say(
                f"--trace: {self._plan.folder / trace_file.NAME} cannot be written: "
                f"{error.strerror or error}"
            )
            return ""


class TraceSteps(_Traced):
    """Runs between steps, from the one before the first that is traced to the last one, before all
    that belongs to no step."""

    name = "trace"

    def due(self, progress: Progress) -> bool:
        return self._traces and self._before <= progress.step <= self._last

    def run(self, world: World, progress: Progress) -> Progress:
        trace, over = world.local.trace, self._plan.is_over(progress)
        assert trace is not None
        if progress.step > self._before:
            trace.settle()
            if over or progress.step == self._last:
                _stop(world, trace)
        elif not over:
            self._start(world, trace)
        return progress

    def _start(self, world: World, trace: Trace) -> None:
        local, wire = world.local, world.wire
        reading = astuple(clock.read(wire))
        first, last = self._before + 1, self._last
        if wire.ranks.rank == 0:
            state = f"nothing is here: the run ended before steps {first} to {last} were done"
            self._write(world, trace_file.unfinished(wire.ranks.numbers, state))
        local.device.keep_times(True)
        trace.begin(reading)
        wire.agree.barrier()  # rank 0 has written meanwhile


def _stop(world: World, trace: Trace) -> None:
    trace.stop()
    world.local.device.keep_times(False)


class TraceFile(_Traced):
    """Runs once, when the last traced step is over or the run is: after the checkpoint, which a
    signal leaves little time for."""

    name = "trace file"

    def due(self, progress: Progress) -> bool:
        over = self._plan.is_over(progress)
        traced = self._before < progress.step <= self._last
        return self._traces and (
            (traced and (over or progress.step == self._last))
            or (over and progress.step <= self._before)
        )

    def run(self, world: World, progress: Progress) -> Progress:
        trace = world.local.trace
        assert trace is not None
        if progress.step <= self._before:
            world.local.display.say("--trace: the run ended before anything was traced")
            return progress
        _stop(world, trace)
        self._gather(world, trace, progress.step)
        return progress

    def _gather(self, world: World, trace: Trace, step: int) -> None:
        local, wire = world.local, world.wire
        mine = {
            "rank": wire.ranks.numbers[wire.ranks.rank],
            "device": f"{local.device.name} on {wire.ranks.host.partition('/')[0]}",
            "readings": [trace.reading, astuple(clock.read(wire))],
            "spans": [span.as_list() for span in trace.spans],
            "left_out": trace.left_out,
        }
        everyone = _to_root(wire, mine)
        if not everyone:
            return
        steps = self._before + 1, step
        facts = {
            "network": self._plan.network.name,
            "exchange": self._plan.exchange,
            "steps": steps,
            "ranks_at_start": wire.ranks.began,
        }
        path = self._write(world, trace_file.document(everyone, facts))
        if path:
            error = max(each.error for each in everyone)
            local.log.event("trace", step=step, path=path, steps=steps, clock_error=error / 1e9)
            local.display.say(
                f"steps {steps[0]} to {steps[1]} are in {path}, for https://ui.perfetto.dev or "
                f"chrome://tracing (clocks agree within {error / 1000:.1f} us)"
            )


def _to_root(wire: Wire, mine: dict[str, Any]) -> Sequence[RankTrace]:
    """What all ranks have noted, on rank 0; nothing on the others. Collective."""
    content = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    sizes = wire.agree.gather_facts(content.size)
    if wire.ranks.rank:
        wire.transfer.send(content, 0)
        return []
    found = [mine]
    for peer in range(1, wire.ranks.size):
        theirs = np.empty(sizes[peer], np.uint8)
        wire.transfer.receive(theirs, peer)
        found.append(json.loads(theirs.tobytes()))
    return [
        RankTrace(**{**each, "spans": [Span(*fields) for fields in each["spans"]]})
        for each in found
    ]
