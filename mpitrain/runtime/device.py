"""Choose an OpenCL device for a rank and hand out arrays and programs on it."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyopencl as cl
from numpy.typing import DTypeLike, NDArray

from mpitrain.job.config import whole
from mpitrain.job.errors import RunError, UserError
from mpitrain.runtime import platforms, pocl
from mpitrain.runtime.addresses import Addresses
from mpitrain.runtime.array import Array, Memory
from mpitrain.runtime.bare import Unmarked
from mpitrain.runtime.pinned import Pinned
from mpitrain.runtime.program import Program
from mpitrain.runtime.recording import Command
from mpitrain.runtime.tuned import TunedChoices

UNITS_ALIKE = 8
"""Compute units that work is cut for where it must not depend on how many there are."""


def choose(choice: str = "auto", local_rank: int = 0, cores: Sequence[int] | None = None) -> Entry:
    """The device to open for one rank of a host.

    choice: "auto" (a GPU where there is one, else a CPU; local ranks take the devices of the best
    kind in turn), "cpu", "gpu", or part of a platform's or device's name, with an index: "intel",
    "pocl", "nvidia:1". cores: what this process may compute on (None: all it was given). Raises
    UserError if nothing fits, naming those that there are.
    """
    everything = list_devices(cores)
    found = [entry for entry in everything if entry.fits(choice)]
    if not found:
        there = ", ".join(
            f"{entry.platform.name} ({entry.kind}: {entry.cl.name.strip()})" for entry in everything
        )
        hint = there or "none at all; `pip install mpitrain[runtimes]` brings two for CPUs"
        raise UserError(f"--device {choice}: no such OpenCL device; found: {hint}")
    index = _index(choice)
    if index is not None:
        if index >= len(found):
            raise UserError(
                f"--device {choice}: there are only {len(found)} such devices, counted from 0"
            )
        return found[index]
    best = [entry for entry in found if entry.rank == found[0].rank]
    return best[local_rank % len(best)]


class Entry:
    """A device that could be opened, before a context is made on it."""

    def __init__(self, platform: cl.Platform, device: cl.Device) -> None:
        self.platform = platform
        self.cl = device
        self.number = 0
        self.kind: Literal["cpu", "gpu"] = "cpu" if device.type & cl.device_type.CPU else "gpu"

    @property
    def rank(self) -> tuple[int, str]:
        """Order of preference: GPUs, then Intel's CPU runtime (fastest on every x86 we measured),
        then others by name."""
        name = self.platform.name
        return (0 if self.kind == "gpu" else 1 if "Intel" in name else 2, name)

    def fits(self, choice: str) -> bool:
        """Whether it is among those that --device `choice` means (its index aside)."""
        wanted = choice.partition(":")[0].lower()
        if wanted in ("cpu", "gpu"):
            return self.kind == wanted
        names = f"{self.platform.name} {self.platform.vendor} {self.cl.name}".lower().replace(
            "portable computing language", "pocl"
        )
        return wanted == "auto" or wanted in names


def _index(choice: str) -> int | None:
    _, colon, text = choice.partition(":")
    if not colon:
        return None
    index = whole(text)
    if index is None:
        raise UserError(f"--device {choice}: after the colon comes a number, got {text!r}")
    return index


def list_devices(cores: Sequence[int] | None = None) -> list[Entry]:
    """Every device, best first."""
    platforms.prepare(cores)
    try:
        found = cl.get_platforms()
    except cl.LogicError:  # the loader's way to say that there is none
        return []
    entries = []
    for platform in found:
        try:
            entries += [Entry(platform, device) for device in platform.get_devices()]
        except cl.Error:
            continue  # a driver that is installed without its hardware
    entries.sort(key=lambda entry: entry.rank)
    for number, entry in enumerate(entries):
        entry.number = number
    return entries


class Device:
    """One OpenCL device with one in-order queue: kernels and copies run in the order in which they
    were asked for.

    What is computed on it, and from which kernels, an engine says: engine/engine.py.
    """

    folders: ClassVar[tuple[str, ...]] = ()
    """Folders of kernels/ that are looked into beside kernels/ itself."""
    wide: int = 1
    """Float32 values of a vector (WIDTH in kernels)."""
    group: int = 1
    """Work-items of a group (GROUP in kernels)."""
    long_items: bool = True
    """Whether a work-item takes a long run of values, as a core of a CPU does, or one vector beside
    its neighbours."""
    addresses: Addresses | None = None
    """Where kernels take a number for a buffer: those of its buffers."""

    def __init__(self, entry: Entry) -> None:
        self.cl: cl.Device = entry.cl
        self.number = entry.number
        """Its place in this process's list of devices: ranks of a host with the same number may
        share it."""
        self.kind = entry.kind
        self.shares_memory = entry.kind == "cpu"
        """Whether its memory is the host's: arrays are mapped, not copied."""
        self.name = " ".join(entry.cl.name.split())
        self.platform = entry.platform.name
        self.units: int = entry.cl.max_compute_units
        self.memory: int = entry.cl.global_mem_size
        self.largest: int = entry.cl.max_mem_alloc_size
        self.local_memory: int = entry.cl.local_mem_size
        self.context = cl.Context([entry.cl])
        self.queue = cl.CommandQueue(self.context)
        self.pinned = Pinned(self.context, self.queue)
        self.last: cl.Event | Unmarked | None = None
        """Of the command that was queued last."""
        self.keeps_times = False
        """Whether commands keep when they ran; then every launch has an event."""
        self._held: list[cl.Event] = []
        self.recorded: list[Command] | None = None
        """What is being queued, while somebody records it."""
        self.is_pocl = "Portable" in self.platform
        self.cpu_name = pocl.name_cpu(entry.cl) if self.is_pocl else ""
        """What PoCL compiles for; it does not compile before it has been told."""
        self.identity = "|".join(
            [self.platform, entry.platform.version, self.name, entry.cl.driver_version]
        )
        self.caches_programs = not self.is_pocl
        self.on_compile: Callable[[str], None] = lambda name: None
        """Called before a program is compiled, as it is not in the cache."""
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._scopes: list[list[Array]] = []
        self._beside: Device | None = None
        self.allocated = 0
        """Bytes handed out so far and not known to be released, for messages and the memory
        plan."""

    def __repr__(self) -> str:
        return f"{self.name} ({self.platform}, {self.units} units)"

    def empty(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """A new array whose content is not set. Raises RunError when the device cannot hold it."""
        shape = tuple(int(extent) for extent in shape)
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > self.largest:
            raise RunError(
                f"{self.name} gives at most {self.largest >> 20} MiB at once, {nbytes >> 20} MiB "
                "wanted; a smaller --sub-batch helps"
            )
        where = cl.mem_flags.ALLOC_HOST_PTR if self.shares_memory else 0
        return self._array(shape, dtype, where, size=max(nbytes, 1))

    def around(self, host: NDArray[Any]) -> Array:
        """An array that is this host memory, of a device that shares the host's memory."""
        return self._array(host.shape, host.dtype, cl.mem_flags.USE_HOST_PTR, hostbuf=host)

    def _array(self, shape: tuple[int, ...], dtype: DTypeLike, where: int, **what: Any) -> Array:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            root = cl.Buffer(self.context, cl.mem_flags.READ_WRITE | where, **what)
        except cl.MemoryError as error:
            raise RunError(
                f"{self.name} is out of memory: {nbytes >> 20} MiB more wanted; a smaller "
                "--sub-batch helps"
            ) from error
        array = Array(self, shape, dtype, Memory(self, root))
        self.allocated += nbytes
        if self._scopes:
            self._scopes[-1].append(array)
        return array

    def zeros(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """A new array of zeros."""
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def upload(self, host: NDArray[Any]) -> Array:
        """A new array with a host array's shape, type and content."""
        array = self.empty(host.shape, host.dtype)
        array.write(host)
        return array

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Arrays made inside are released at its end."""
        self._scopes.append([])
        try:
            yield
        finally:
            for array in self._scopes.pop():
                self.allocated -= array.nbytes
                array.release()

    def program(self, name: str, **definitions: int | float | str) -> Program:
        """kernels/NAME.cl built with these definitions (and WIDTH and GROUP), once."""
        key = (name, *sorted(definitions.items()))
        if key not in self._programs:
            self._programs[key] = Program(
                self, name, {"WIDTH": self.wide, "GROUP": self.group, **definitions}
            )
        return self._programs[key]

    @cached_property
    def tuned(self) -> TunedChoices:
        """What `mpitrain tune` has found out about it."""
        return TunedChoices(self.identity, self.units)

    def cut_alike(self) -> None:
        """From now on cut work in the same way whatever the number of cores, for results are sums
        of its parts. Before anything is computed."""
        self.units = UNITS_ALIKE
        self.tuned = TunedChoices(f"alike|{self.identity}", self.units)

    @contextmanager
    def record(self) -> Iterator[list[Command]]:
        """What is queued inside, which is done as ever, as commands to be queued again."""
        commands = self.recorded = []
        try:
            yield commands
        finally:
            self.recorded = None

    def queue_command(self, command: Command) -> None:
        """Do something that queues, and keep it if it is being recorded: as one command, whatever
        it queues itself."""
        kept, self.recorded = self.recorded, None
        if kept is not None:
            kept.append(command)
        try:
            command()
        finally:
            self.recorded = kept

    def mark(self) -> Mark:
        """What was asked for so far, as something to look at or to wait for.

        It is the event of the last command, or of a marker where that has none. After a marker or a
        barrier command, Intel's runtime no longer lets the host thread that waits in a blocking
        read compute, and so loses a core.
        """
        if isinstance(self.last, Unmarked):
            self.last = cl.enqueue_marker(self.queue)
        self.queue.flush()
        return Mark() if self.last is None else Mark(self.last)

    def hold(self, event: cl.Event) -> None:
        """Keep the event of the last command, and the host array that it holds, until the command
        is done."""
        done = cl.command_execution_status.COMPLETE
        self._held = [each for each in self._held if each.command_execution_status > done]
        self._held.append(event)
        self.last = event

    def keep_times(self, on: bool) -> None:
        """Whether commands keep when they ran (runtime/timed.py), from now on, and on the second
        queue as well. Nothing may be on its way."""
        kind: Any = cl.command_queue_properties.PROFILING_ENABLE if on else 0
        for each in (self, self._beside):
            if each is not None:
                each.finish()
                each.keeps_times = on
                each.queue = cl.CommandQueue(each.context, properties=kind)

    def finish(self) -> None:
        """Wait for everything asked for so far."""
        last = self.last
        self.queue.finish()
        if self.last is last:  # another thread may have queued more meanwhile
            self.last, self._held = None, []

    def settle(self) -> None:
        """Wait for what has been queued since the last `finish`, and for the second queue."""
        if self.last is not None:
            self.finish()
        if self._beside is not None:  # the driver does not know what works with which memory
            self._beside.queue.finish()

    def beside(self) -> Device:
        """The same device with a second queue, always the same one, for a thread of its own;
        `Array.on` gives it this one's arrays."""
        if self._beside is None:
            twin = copy.copy(self)
            twin.queue = cl.CommandQueue(self.context)
            twin.pinned = Pinned(self.context, twin.queue)
            twin._programs, twin._scopes, twin._held, twin.allocated = {}, [], [], 0
            twin.last, twin.recorded = None, None
            self._beside = twin
        return self._beside


class Mark:
    """A point in a device's queue."""

    def __init__(self, *events: cl.Event) -> None:
        """events: of the commands before it, the last one of a queue at its end. They are kept, for
        one that holds a host array waits where it is dropped before its command is done."""
        self._events = events

    def done(self) -> bool:
        """Whether everything before it is done. Raises RunError if a command failed."""
        done = cl.command_execution_status.COMPLETE
        if self._events and self._events[-1].command_execution_status > done:
            return False
        for event in self._events:
            if event.command_execution_status < done:
                raise RunError(f"work on the device failed ({event.command_execution_status})")
        return True

    def wait(self) -> None:
        """Return when everything before it is done. Raises RunError if a command failed."""
        if self._events:
            with contextlib.suppress(cl.Error):  # which says less than its event
                self._events[-1].wait()
            self.done()
