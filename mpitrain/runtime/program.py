"""Build kernels/NAME.cl for a device with build-time facts, and call its kernels as methods."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyopencl as cl

from mpitrain.job.cut import round_up
from mpitrain.job.errors import RunError
from mpitrain.runtime import binaries, nvidia
from mpitrain.runtime.array import Array
from mpitrain.runtime.bare import Bare, Unmarked
from mpitrain.runtime.recording import Varying

if TYPE_CHECKING:
    from mpitrain.runtime.device import Device

Argument: TypeAlias = "Array | int | float | np.generic | Varying"
"""What a kernel takes."""
LINE = re.compile(r'^#line (\d+) "(.*)"$')
"""What `_expand` writes."""
INCLUDE = re.compile(r'^#include "([\w/.]+)"[ \t]*$', re.MULTILINE)


def read_source(name: str, folders: Sequence[str]) -> str:
    """kernels/NAME.cl, or that of the first of these folders of kernels/ that has it, with its
    includes put in place.

    `#line` directives keep the compiler's messages on the file's own names and lines.
    """
    top = importlib.resources.files("mpitrain.kernels")
    files = [f"{name}.cl", *(f"{folder}/{name}.cl" for folder in folders)]
    for file in files:
        if top.joinpath(file).is_file():
            return _expand(top, file)
    raise RunError(f"no kernel file {' or '.join(files)} in {top}")


def _expand(folder: Any, file: str) -> str:
    text = folder.joinpath(file).read_text()

    def include(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 2
        return _expand(folder, match.group(1)) + f'\n#line {line} "{file}"'

    return f'#line 1 "{file}"\n' + INCLUDE.sub(include, text)


class Program:
    """The kernels of one file, built for one device and one set of definitions:
    `program.relu_forward(items, y, x, n)`."""

    def __init__(
        self, device: Device, name: str, definitions: Mapping[str, int | float | str]
    ) -> None:
        options = [f"-D{key}={value}" for key, value in definitions.items()]
        facts = device, name, read_source(name, device.folders), options
        self._device = device
        self._built: cl.Program | Future[cl.Program]
        if device.kind == "gpu":  # a driver needs seconds for some, and compiles several at once
            self._built = _compilers().submit(_build, *facts)
        else:
            self._built = _build(*facts)

    def built(self) -> cl.Program:
        """The program, once it is compiled. Raises RunError with the compiler's words."""
        if isinstance(self._built, Future):
            self._built = self._built.result()
        return self._built

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("_"):
            raise AttributeError(name)
        kernel = Kernel(self._device, cl.Kernel(self.built(), name))
        setattr(self, name, kernel)
        return kernel


class Kernel:
    """One kernel. The first argument of a call is the number of work-items, one number or a
    tuple."""

    def __init__(self, device: Device, kernel: cl.Kernel) -> None:
        self._device = device
        self._kernel = kernel

    def __call__(
        self,
        items: int | tuple[int, ...],
        *arguments: Argument,
        group: int | tuple[int, ...] | None = None,
    ) -> None:
        """Queue it. Python's int becomes int, float becomes float.

        `items` is rounded up to whole groups of `group` work-items.
        """
        if self._device.recorded is not None:
            launch = self.prepare(items, *arguments, group=group)
            self._device.recorded.append(launch)
            launch()
            return
        size, local = _sizes(items, group)
        if 0 not in size:
            values = map(_argument, arguments)
            self._device.last = self._kernel(self._device.queue, size, local, *values)

    def prepare(
        self,
        items: int | tuple[int, ...],
        *arguments: Argument,
        group: int | tuple[int, ...] | None = None,
    ) -> Launch:
        """The same call, to be made later and more than once."""
        own = cl.Kernel(self._kernel.program, self._kernel.function_name)
        return Launch(self._device, own, *_sizes(items, group), arguments)


class Launch:
    """A kernel with its arguments set before: each call queues it. It lives as long as its arrays'
    memory, or until `drop`."""

    def __init__(
        self,
        device: Device,
        kernel: cl.Kernel,
        size: tuple[int, ...],
        local: tuple[int, ...] | None,
        arguments: Sequence[Argument],
    ) -> None:
        self.name: str = kernel.function_name
        self._device, self._size, self._local = device, size, local
        self._kernel: cl.Kernel | None = kernel
        self._memories = {each.memory for each in arguments if isinstance(each, Array)}
        for memory in self._memories:
            memory.launches.add(self)
        varying = [(at, each) for at, each in enumerate(arguments) if isinstance(each, Varying)]
        self._varying = [(at, each, each.value) for at, each in varying]
        kernel.set_args(*map(_argument, arguments))
        self._bare = None if device.shares_memory else Bare(kernel, size, local)

    def __call__(self) -> None:
        if 0 in self._size:
            return
        assert self._kernel is not None, "its memory has been released"
        for nth, (at, argument, before) in enumerate(self._varying):
            if argument.value != before:  # setting costs more than queueing
                self._kernel.set_arg(at, argument.value)
                self._varying[nth] = (at, argument, argument.value)
        device = self._device
        if self._bare and not device.keeps_times and self._bare(device.queue):
            device.last = Unmarked()
            return
        device.last = cl.enqueue_nd_range_kernel(
            device.queue, self._kernel, self._size, self._local
        )

    def drop(self) -> None:
        """Give the kernel back; called at the latest when one of its arrays' memory goes."""
        self._kernel = self._bare = None
        for memory in self._memories:
            memory.launches.discard(self)
        self._memories.clear()


class Launches:
    """Calls of kernels that come again with the same arguments: prepared at the first of them.

    Arrays are the same if their bytes are, for views are often made anew. They go, the oldest
    first, where there are more than `limit`, and with this object, so that memory which lives
    longer does not keep what they hold of other memory.
    """

    def __init__(self, device: Device, limit: int = 4096) -> None:
        self._device, self._limit = device, limit
        self._known: dict[Hashable, Launch] = {}

    def queue(
        self, kernel: Kernel, items: int, *arguments: Array | float, group: int | None = None
    ) -> None:
        """`kernel(items, *arguments, group=group)` in 9 us of the host instead of 27 to 38 (with
        eight arguments, on PoCL and Intel's runtime)."""
        if self._device.recorded is not None:  # a recording drops its launches itself
            kernel(items, *arguments, group=group)
            return
        places = [each.place if isinstance(each, Array) else each for each in arguments]
        key = (kernel, items, group, *places)
        launch = self._known.get(key)
        if launch is None:
            while len(self._known) >= self._limit:
                self._known.pop(next(iter(self._known))).drop()
            launch = self._known[key] = kernel.prepare(items, *arguments, group=group)
        launch()

    def __del__(self) -> None:
        for launch in self._known.values():
            launch.drop()


def _sizes(
    items: int | tuple[int, ...], group: int | tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Work-items and work-items a group, as OpenCL wants them."""
    size = (items,) if isinstance(items, int) else items
    local = (group,) if isinstance(group, int) else group
    if local is not None:
        size = tuple(round_up(whole, part) for whole, part in zip(size, local, strict=True))
    return size, local


def _argument(value: Argument) -> Any:
    if isinstance(value, Array):
        return value.argument
    if isinstance(value, Varying):
        return value.value
    if isinstance(value, int):
        return np.int32(value)
    if isinstance(value, float):
        return np.float32(value)
    return value


@cache
def _compilers() -> ThreadPoolExecutor:
    """Threads of this process that compile."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), "compile")


def _build(device: Device, name: str, source: str, options: list[str]) -> cl.Program:
    """Compile, or load what an earlier run compiled for the same source, options and driver."""
    if not device.caches_programs:  # the driver has a cache of its own
        return _compile(device, name, source, options)
    way = ["by address"] if device.addresses else []
    path = binaries.place(name, device.identity, *way, *options, source)
    kept = binaries.load(path)
    if kept is not None:
        with contextlib.suppress(cl.Error):  # not what this driver wrote: make it again
            return _finish(cl.Program(device.context, [device.cl], [kept]), [])
    program = _compile(device, name, source, options)
    made: Any = program.get_info(cl.program_info.BINARIES)
    binaries.keep(path, made[0])
    return program


def _compile(device: Device, name: str, source: str, options: list[str]) -> cl.Program:
    device.on_compile(name)
    try:
        return _rewritten(device, source, _finish(cl.Program(device.context, source), options))
    except (cl.Error, ValueError) as error:
        said = _placed(str(error), source)
        log = "\n".join(line for line in said.splitlines() if "error" in line) or said
        raise RunError(
            f"kernels/{name}.cl does not compile for {device.name} ({device.platform}): {log}"
        ) from error


def _placed(said: str, source: str) -> str:
    """A compiler's words with files and their lines, where it counts those of the whole text:
    NVIDIA's does not heed #line."""
    places, file, number = [], "", 0
    for line in source.splitlines():
        number += 1
        places.append(f"{file}:{number}")
        if found := LINE.match(line):
            number, file = int(found.group(1)) - 1, found.group(2)

    def place(found: re.Match[str]) -> str:
        at = int(found.group(1)) - 1
        return places[at] if 0 <= at < len(places) else found.group(0)

    return re.sub(r"<kernel>:(\d+)", place, said)


def _rewritten(device: Device, source: str, program: cl.Program) -> cl.Program:
    """The same, with what the driver's compiler had to be kept from reading, and by address if its
    device takes addresses."""
    if not (nvidia.is_marked(source) or device.addresses):
        return program
    made: Any = program.get_info(cl.program_info.BINARIES)
    ptx = nvidia.retarget(made[0].rstrip(b"\0").decode())
    if device.addresses:
        ptx = nvidia.by_address(ptx)
    return _finish(cl.Program(device.context, [device.cl], [ptx.encode()]), [])


def _finish(program: cl.Program, options: list[str]) -> cl.Program:
    with warnings.catch_warnings():
        # Drivers chat there about what went well.
        warnings.simplefilter("ignore", cl.CompilerWarning)
        built: cl.Program = program.build(options)
    return built
