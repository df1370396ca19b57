"""mpitrain's side of a comparison: a network's layers, matrix products, and what the device can do
at most.

Layers are timed as their graph has built them, so this looks into one further than others may.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pyopencl as cl
from measure import HERE, SideError, peak_memory, seconds_of, serve

from mpitrain.engine.engine import Engine
from mpitrain.engine.gemm import Left, Result, matrix
from mpitrain.engine.registry import open_device
from mpitrain.exchange.move import Move
from mpitrain.job.errors import MpitrainError
from mpitrain.layers import BatchNorm, Convolution
from mpitrain.layers.conv.precision import use
from mpitrain.layers.layer import Pass, Shape, pair
from mpitrain.network import models
from mpitrain.network.graph import Graph, layouts_of, parameters_of
from mpitrain.network.memory import INPUT, infer_shapes
from mpitrain.network.network import Node
from mpitrain.runtime.array import Array
from mpitrain.training.sgd import MomentumSgd

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
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", cl.CompilerWarning
            )  # drivers chat there about what went well
            program = cl.Program(device.context, (HERE / "peak.cl").read_text()).build(options)
        kernel: Any = cl.Kernel(program, "peak")
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

    def layers(self, network: str, batch: int, precision: str) -> list[dict[str, Any]]:
        """Prepare every pass of every distinct layer of a network, as its graph computes them, and
        "step": all of them one after another, without the update.

        One fact sheet a layer: the numbers that make it distinct, its first node, how many there
        are, multiplications and additions of an image, algorithms, and passes, each with the bytes
        that it must move at least.
        """
        self._prepare()
        fallback = use(self.device, precision)
        if fallback:
            raise SideError(fallback)
        self._works, run = {}, Pass(batch)
        graph = Graph(self.device, models.load(network), batch)
        graph.weights.write(graph.layout.initial(0))
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (batch, *graph.shapes[INPUT]), np.uint8)
        graph.load(images, random.integers(0, 10, batch))
        graph.forward(run)
        for _ in graph.backward(run):
            pass
        self.device.finish()
        found: dict[str, dict[str, Any]] = {}
        for node in graph.network.nodes:
            case = _numbers(graph, node)
            known = found.setdefault(str(case), {**case, "node": node.name, "count": 0})
            known["count"] += 1
            if known["count"] == 1:
                known["flops"] = node.layer.flops(*(graph.shapes[each] for each in node.inputs))
                known["algorithms"] = getattr(node.layer, "algorithms", {})
                known["passes"] = self._passes(graph, node, run)
        self._keep("step", partial(_step, graph, run))
        return list(found.values())

    def _passes(self, graph: Graph, node: Node, run: Pass) -> dict[str, int]:
        """Prepare a node's passes; name -> bytes that it must read and write at least."""
        op, y, dy = node.layer, graph._values[node.name], graph._gradients[node.name]
        x = [graph._repeated.get(each, graph._values[each]) for each in node.inputs]
        dx = [
            graph._terms.get((node.name, number)) or graph._gradients.get(each)
            for number, each in enumerate(node.inputs)
        ]
        known, measured = [each for each in dx if each is not None], isinstance(op, BatchNorm)
        notes = [
            getattr(op, each) for each in op.memory(1, *(graph.shapes[n] for n in node.inputs))
        ]
        forward = [*x, y, *notes, *(x[:1] if measured else ())]
        passes: dict[str, tuple[Callable[[], None], list[Array]]] = {
            "forward": (partial(op.forward, run, y, *x), forward)
        }
        if isinstance(op, Convolution):
            whole = (partial(op.backward, run, [None], dy, x, y), [dy, *x])
            passes["backward filter"] = whole
            if known:
                passes["backward data"] = (
                    partial(op.backward_data, run, known[0], dy),
                    [dy, *known],
                )
            if op.has_bias or op.rectify:
                gradient = partial(
                    op._bias_gradient, op.dbias if op.has_bias else None, dy,
                    y if op.rectify else None, run.images, False, op.scratch,
                )  # fmt: skip
                passes["bias, ReLU"] = (gradient, [dy, y, dy] if op.rectify else [dy])
        else:
            kept = [each for n, each in enumerate(x) if op.keeps_input(n)]
            kept += [y] if "y" in op.keeps or (op.rectify and "y" in op.keeps_rectified) else []
            again = [dy, *x[:1]] if measured else []
            passes["backward"] = (
                partial(op.backward, run, dx, dy, x, y),
                [dy, *known, *kept, *notes, *again],
            )
        for name, (work, _) in passes.items():
            self._keep(f"{node.name} {name}", work)
        return {name: sum(each.nbytes for each in moved) for name, (_, moved) in passes.items()}

    def _keep(self, name: str, work: Callable[[], None]) -> None:
        """Queue something once, and have it queued again as it was when it is timed."""
        with self.device.record() as commands:
            work()

        def replay() -> None:
            for command in commands:
                command()

        self._time(name, replay)

    def _time(self, name: str, work: Callable[[], None]) -> None:
        once = {} if self.device.kind == "cpu" else {"pause": 0.0, "least": 0.02}
        self._works[name] = partial(seconds_of, work, self.device.finish, **once)

    def copies(self) -> float:
        """Prepare "copy", of 1 GiB (256 MiB on a CPU); the bytes that it reads and writes."""
        size = 1 << (26 if self.device.kind == "cpu" else 28)
        x, y = self.device.zeros((size,)), self.device.zeros((size,))
        self._keep("copy", partial(y.copy_from, x))
        return 2 * x.nbytes

    def update(self, network: str) -> int:
        """Prepare "update", momentum SGD of a network's weights; the bytes that it must move."""
        net = models.load(network)
        length = layouts_of(parameters_of(net, infer_shapes(net)))[0].length
        weights, gradient = self.device.zeros((length,)), self.device.zeros((length,))
        sgd, move = MomentumSgd(self.device, weights, 0.9, 5e-4), Move(0, length, gradient)
        self._time("update", partial(sgd.update, move))
        return 5 * weights.nbytes

    def _random(self, shape: Shape, deviation: float = 1.0) -> Array:
        values = np.random.default_rng(len(shape)).standard_normal(shape, np.float32)
        return self.device.upload(values * np.float32(deviation))

    def product(self, m: int, n: int, k: int, a_lies: str, b_lies: str) -> float:
        """Prepare "product"; the largest difference of its first rows from NumPy's in float64."""
        self._prepare()
        device, gemm = self.device, self.device.gemm()
        a, b = operands(m, n, k)
        left = device.upload(np.ascontiguousarray(a.T) if a_lies == "columns" else a)
        right = device.upload(np.ascontiguousarray(b.T) if b_lies == "columns" else b)
        c, scratch = device.zeros((m, n)), device.empty((max(1, gemm.scratch(m, k)),))
        at = Left(left, 1, m, k) if a_lies == "columns" else Left(left, k, 1, k)
        strides = (1, k) if b_lies == "columns" else (n, 1)

        def work() -> None:
            gemm(Result(c, n, n), at, matrix(right, *strides), m, n, k, scratch)

        def alone() -> None:
            work()
            device.finish()

        alone()
        rows = min(m, 8)
        expected = a[:rows].astype(np.float64) @ b.astype(np.float64)
        self._works = {
            "product": partial(seconds_of, work, device.finish),
            "product alone": partial(seconds_of, alone),
        }
        return float(np.abs(c.download()[:rows] - expected).max())


def _step(graph: Graph, run: Pass) -> None:
    graph._forward(run)
    for node in reversed(graph.network.nodes):
        graph._backward_of(node, run, {})


def _numbers(graph: Graph, node: Node) -> dict[str, Any]:
    """What makes a layer distinct."""
    op, shapes = node.layer, [list(graph.shapes[each]) for each in node.inputs]
    facts: dict[str, Any] = {"kind": type(op).__name__, "shapes": shapes, "rectify": op.rectify}
    facts["data"] = any(
        (node.name, number) in graph._terms or each in graph._gradients
        for number, each in enumerate(node.inputs)
    )
    if isinstance(op, Convolution):
        facts |= {
            "shape": shapes[0],
            "channels": op.channels,
            "kernel": pair(op.kernel, "kernel"),
            "stride": pair(op.stride, "stride"),
            "padding": pair(op.padding, "padding"),
            "groups": op.groups,
            "bias": op.has_bias,
        }
    elif hasattr(op, "kernel"):
        facts["kernel"] = pair(op.kernel, "kernel")
    return facts


def operands(m: int, n: int, k: int) -> tuple[Any, Any]:
    """A (M, K) and B (K, N)."""
    random = np.random.default_rng(0)
    return random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)


if __name__ == "__main__":
    ours = Ours()
    names = ("open", "peak", "time", "layers", "copies", "update", "product")
    serve({name: getattr(ours, name) for name in names} | {"memory": peak_memory})
