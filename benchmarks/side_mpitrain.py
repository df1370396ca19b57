"""mpitrain's side of a comparison: single convolutions, matrix products, operations on whole
arrays, and what the device can do at most."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pyopencl as cl
import side_numpy
from measure import HERE, SideError, peak_memory, seconds_of, serve

from mpitrain.engine.engine import Engine
from mpitrain.engine.gemm import Left, Result, matrix
from mpitrain.engine.registry import open_device
from mpitrain.job.cut import round_up
from mpitrain.job.errors import MpitrainError
from mpitrain.layers import Convolution
from mpitrain.layers.flat import split
from mpitrain.layers.layer import Layer, Pass, Shape, pair
from mpitrain.network import models
from mpitrain.network.memory import INPUT, infer_shapes
from mpitrain.network.network import Node
from mpitrain.runtime.array import Array

CHAINS = 12
"""Of one work-item of peak.cl."""


class Ours:
    """One device, and whatever it was last asked to prepare. Memory of the one before is given back
    first."""

    device: Engine

    def __init__(self) -> None:
        self._held = ExitStack()
        self._works: dict[str, Callable[[], float]] = {}

    def open(self, device: str) -> dict[str, Any]:
        """Take a device by the name that --device gives it; facts about it."""
        try:
            self.device = open_device(device)
        except MpitrainError as error:
            raise SideError(str(error)) from None
        platform, version, name, driver = self.device.identity.split("|")
        return {
            "device": name,
            "kind": self.device.kind,
            "platform": platform,
            "platform_version": version,
            "driver": driver,
            "units": self.device.units,
            "vector": self.device.wide,
            "memory": peak_memory(),
        }

    def peak(self) -> float:
        """GFLOPS of fused multiplications and additions on registers: the best of ten launches."""
        device, cpu = self.device, self.device.kind == "cpu"
        group, steps = (1, 1 << 19) if cpu else (256, 1 << 13)
        items = device.units * (8 if cpu else 16 * group)
        options = [f"-DWIDTH={device.wide}", f"-DGROUP={group}", "-cl-mad-enable"]
        kernel: Any = cl.Kernel(build(device, "peak.cl", options), "peak")
        y = device.empty((items,))

        def work() -> None:
            kernel(
                device.queue,
                (items,),
                (group,),
                y.buffer,
                np.float32(0.5),
                np.float32(1),
                np.int32(steps),
            )
            device.finish()

        found = (
            2e-9 * items * steps * CHAINS * device.wide / min(seconds_of(work) for _ in range(10))
        )
        y.release()
        return found

    def time(self, name: str) -> float:
        """Seconds of one turn of something prepared."""
        return self._works[name]()

    def _prepare(self) -> None:
        self._held.close()
        self._held.enter_context(self.device.scope())

    def convolutions(self, network: str) -> list[dict[str, Any]]:
        """Every distinct convolution of a network, in its order: its numbers, the first node that
        is one, and how many there are."""
        net = models.load(network)
        shapes = infer_shapes(net)
        found: dict[str, dict[str, Any]] = {}
        for node in net.nodes:
            if not isinstance(node.layer, Convolution):
                continue
            layer, (source,) = node.layer, node.inputs
            numbers = {
                "shape": list(shapes[source]),
                "channels": layer.channels,
                "kernel": pair(layer.kernel, "kernel"),
                "stride": pair(layer.stride, "stride"),
                "padding": pair(layer.padding, "padding"),
                "groups": layer.groups,
                "bias": layer.has_bias,
                "data": source != INPUT,
            }
            case = found.setdefault(str(numbers), {**numbers, "node": node.name, "count": 0})
            case["count"] += 1
            case["flops"] = layer.flops(shapes[source])
        return list(found.values())

    def convolution(self, network: str, node: str, batch: int, data: bool) -> dict[str, str]:
        """Prepare "forward", "backward filter" (and bias) and, with `data`, "backward data" of one;
        names of their algorithms."""
        self._prepare()
        net = models.load(network)
        found: Node = next(each for each in net.nodes if each.name == node)
        layer, shape = found.layer, infer_shapes(net)[found.inputs[0]]
        assert isinstance(layer, Convolution)
        layer.name, layer.capacity = node, batch
        self._give_memory(layer, shape, batch)
        fmt = self.device.format
        x = self._random((batch, *fmt.stored(shape)))
        y = self.device.zeros((batch, *fmt.stored(layer.output_shape(shape))))
        dy, dx = self._random(y.shape), self.device.zeros(x.shape) if data else None
        run = Pass(batch)

        passes = {
            "forward": partial(layer.forward, run, y, x),
            "backward filter": partial(layer.backward, run, [None], dy, [x], y),
        }
        if dx is not None:
            passes["backward data"] = partial(layer.backward_data, run, dx, dy)
        self._works = {
            name: partial(seconds_of, work, self.device.finish) for name, work in passes.items()
        }
        for work in passes.values():
            work()
        return layer.algorithms

    def _give_memory(self, layer: Layer, shape: Shape, batch: int) -> None:
        """What a graph gives to a layer."""
        layer.build(self.device, shape)
        for name, parameter in layer.parameters(shape).items():
            setattr(layer, name, self._random(parameter.shape, 0.1))
            setattr(layer, f"d{name}", self.device.zeros(parameter.shape))
        for name, (extent, kind) in layer.memory(batch, shape).items():
            stored = self.device.format.stored_memory(extent)
            setattr(layer, name, self.device.zeros(stored, kind))
        layer.scratch = self.device.empty((max(1, layer.workspace(batch, shape)),))

    def _random(self, shape: Shape, deviation: float = 1.0) -> Array:
        values = np.random.default_rng(len(shape)).standard_normal(shape, np.float32)
        return self.device.upload(values * np.float32(deviation))

    def product(
        self, m: int, n: int, k: int, a_lies: str, b_lies: str, copied: bool = False
    ) -> float:
        """Prepare "product", "product alone" with a wait after each and, if asked for, "product
        copied"; the largest difference of its first rows from NumPy's in float64."""
        self._prepare()
        device, gemm = self.device, self.device.gemm()
        a, b = side_numpy.operands(m, n, k, a_lies, b_lies)
        host = a.T if a_lies == "columns" else a, b.T if b_lies == "columns" else b
        left, right = map(device.upload, host)
        c, scratch = device.zeros((m, n)), device.empty((max(1, gemm.scratch(m, k)),))
        at = Left(left, 1, m, k) if a_lies == "columns" else Left(left, k, 1, k)
        strides = (1, k) if b_lies == "columns" else (n, 1)

        def work() -> None:
            gemm(Result(c, n, n), at, matrix(right, *strides), m, n, k, scratch)

        self._take("product", work, list(zip((left, right), host, strict=True)) * copied, c)
        rows = min(m, 8)
        expected = a[:rows].astype(np.float64) @ b.astype(np.float64)
        with c.host() as found:
            return float(np.abs(found[:rows] - expected).max())

    def elementwise(self, operation: str, rows: int, columns: int) -> float:
        """Prepare "elementwise alone" and "elementwise copied"; the largest difference from NumPy's
        in float64."""
        self._prepare()
        device, size = self.device, rows * columns
        host = side_numpy.positive(operation, rows, columns)
        x, y = [device.upload(each) for each in host], device.zeros((rows, columns))
        items, chunk = split(device, size)
        kernel: Any = device.program("add").add if operation == "add" else None
        numbers = [np.int32(size), np.int32(chunk)]
        log = None if kernel else self._own("log.cl", "logarithm")

        def work() -> None:
            if kernel:
                kernel(items, y, *x, size, chunk, 0, group=device.group)
            else:
                whole = (round_up(items, device.group),)
                log(device.queue, whole, (device.group,), y.buffer, x[0].buffer, *numbers)

        self._take("elementwise", work, list(zip(x, host, strict=True)), y)
        expected = side_numpy.OPERATIONS[operation](*(each.astype(np.float64) for each in host))
        return float(np.abs(y.download() - expected).max())

    def _take(
        self,
        name: str,
        work: Callable[[], None],
        given: Sequence[tuple[Array, Any]],
        result: Array,
    ) -> None:
        """Compute something once, and keep it to be timed: queued in a row, with a wait after each,
        and with all operands copied to the device before and the result back after."""

        def alone() -> None:
            work()
            self.device.finish()

        def copied() -> None:
            for array, host in given:
                array.write(host)
            work()
            result.download()

        alone()
        self._works = {
            name: partial(seconds_of, work, self.device.finish),
            f"{name} alone": partial(seconds_of, alone),
        }
        if given:
            self._works[f"{name} copied"] = partial(seconds_of, copied)

    def _own(self, file: str, name: str) -> Any:
        """A kernel of the benchmarks' own."""
        options = [f"-DWIDTH={self.device.wide}", f"-DGROUP={self.device.group}"]
        return cl.Kernel(build(self.device, file, [*options, "-cl-mad-enable"]), name)


def build(device: Engine, file: str, options: Sequence[str]) -> Any:
    """A program of a file that lies beside this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cl.CompilerWarning)  # drivers chat there of what went well
        return cl.Program(device.context, (HERE / file).read_text()).build(list(options))


if __name__ == "__main__":
    ours = Ours()
    names = ("open", "peak", "time", "convolutions", "convolution", "product", "elementwise")
    serve({name: getattr(ours, name) for name in names} | {"memory": peak_memory})
