"""Build kernels/NAME.cl for a device with build-time facts, and call its kernels as methods."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyopencl as cl

from mpitrain.report import RunError
from mpitrain.runtime.array import Array
from mpitrain.runtime.platforms import cache_folder, write_atomically

if TYPE_CHECKING:
    from mpitrain.runtime.device import Device

INCLUDE = re.compile(r'^#include "([\w/.]+)"[ \t]*$', re.MULTILINE)


def read_source(name: str, kind: str) -> str:
    """kernels/NAME.cl, or kernels/KIND/NAME.cl where CPUs and GPUs differ, with its includes put in place.

    `#line` directives keep the compiler's messages on the file's own names and lines.
    """
    folder = importlib.resources.files("mpitrain.kernels")
    for file in (f"{name}.cl", f"{kind}/{name}.cl"):
        if folder.joinpath(file).is_file():
            return _expand(folder, file)
    raise RunError(f"no kernel file {name}.cl or {kind}/{name}.cl in {folder}")


def _expand(folder: Any, file: str) -> str:
    text = folder.joinpath(file).read_text()

    def include(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 2
        return _expand(folder, match.group(1)) + f'\n#line {line} "{file}"'

    return f'#line 1 "{file}"\n' + INCLUDE.sub(include, text)


class Program:
    """The kernels of one file, built for one device and one set of definitions: `program.relu_forward(items, y, x, n)`."""

    def __init__(self, device: Device, name: str, definitions: Mapping[str, int | float | str]) -> None:
        options = [f"-D{key}={value}" for key, value in definitions.items()]
        self._built = _build(device, name, read_source(name, device.kind), options)
        self._device = device

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("_"):
            raise AttributeError(name)
        kernel = Kernel(self._device, cl.Kernel(self._built, name))
        setattr(self, name, kernel)
        return kernel


class Kernel:
    """One kernel. The first argument of a call is the number of work-items, one number or a tuple."""

    def __init__(self, device: Device, kernel: cl.Kernel) -> None:
        self._device = device
        self._kernel = kernel

    def __call__(
        self,
        items: int | tuple[int, ...],
        *arguments: Array | int | float | np.generic,
        group: int | tuple[int, ...] | None = None,
    ) -> None:
        """Queue it. Python's int becomes int, float becomes float; `items` is rounded up to whole groups of `group` work-items."""
        size = (items,) if isinstance(items, int) else items
        if 0 in size:
            return
        local = (group,) if isinstance(group, int) else group
        if local is not None:
            size = tuple(-(-whole // part) * part for whole, part in zip(size, local, strict=True))
        self._kernel(self._device.queue, size, local, *map(_argument, arguments))


def _argument(value: Array | int | float | np.generic) -> Any:
    if isinstance(value, Array):
        return value.buffer
    if isinstance(value, int):
        return np.int32(value)
    if isinstance(value, float):
        return np.float32(value)
    return value


def _build(device: Device, name: str, source: str, options: list[str]) -> cl.Program:
    """Compile, or load what an earlier run compiled for the same source, options and driver."""
    if not device.caches_programs:  # the driver has a cache of its own
        return _compile(device, name, source, options)
    key = hashlib.sha256("\n".join([device.identity, *options, source]).encode()).hexdigest()[:24]
    path = cache_folder() / "programs" / f"{name}-{key}.bin"
    if path.exists():
        try:
            return _finish(cl.Program(device.context, [device.cl], [path.read_bytes()]), [])
        except (cl.Error, OSError):
            path.unlink(missing_ok=True)  # not what this driver wrote: make it again
    program = _compile(device, name, source, options)
    binaries: Any = program.get_info(cl.program_info.BINARIES)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
        write_atomically(path, binaries[0])
    return program


def _compile(device: Device, name: str, source: str, options: list[str]) -> cl.Program:
    device.on_compile(name)
    try:
        return _finish(cl.Program(device.context, source), options)
    except cl.RuntimeError as error:
        log = "\n".join(line for line in str(error).splitlines() if "error" in line) or str(error)
        raise RunError(
            f"kernels/{name}.cl does not compile for {device.name} ({device.platform}): {log}"
        ) from error


def _finish(program: cl.Program, options: list[str]) -> cl.Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)  # drivers chat there about what went well
        built: cl.Program = program.build(options)
    return built
