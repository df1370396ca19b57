"""What a network or a machine is like, before anything runs: `mpitrain summary` and `mpitrain
devices`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from mpitrain.commands.traffic import KINDS, activations, traffic
from mpitrain.data.source import open_source
from mpitrain.engine.cpu import WIDEST
from mpitrain.engine.format import Format
from mpitrain.engine.registry import open_device
from mpitrain.job.config import LARGE_DENSE
from mpitrain.layers.layer import Shape, size
from mpitrain.network import models
from mpitrain.network.fuse import fuse
from mpitrain.network.graph import parameters_of, statistics_of
from mpitrain.network.memory import infer_shapes, make_plan
from mpitrain.network.models import netfile
from mpitrain.network.network import Network, Node
from mpitrain.network.parameters import Layout
from mpitrain.network.split import large_layers
from mpitrain.runtime.device import list_devices
from mpitrain.runtime.platforms import own_cores, share_of_cores

MIB = 1 << 20
PIPED = 1000
"""Columns where nobody looks: nothing is cut, and a table is as wide as its words."""

FEW = 2
"""Inputs of a layer that the table names."""
FORMAT = Format(WIDEST)
"""That the memory plan is shown for: a CPU's with AVX-512."""


def print_summary(
    name: str, data: str | None, classes: int | None, batch_size: int, ranks: int, toml: bool
) -> None:
    """Print a network's table and totals, or its network file. Raises UserError for a network that
    does not fit together."""
    network = models.load(name, None, classes)
    if data is not None:
        source = open_source(data, shape_hint=_image(network), classes=classes)
        network = models.load(name, source.shape, source.classes)
    if toml:
        print(netfile.encode(network), end="")
        return
    shapes = infer_shapes(network)
    table = Table(
        title=f"{network.name}: {_shape(network.input_shape)} images, {network.classes} classes",
        title_justify="left",
    )
    for heading in ("name", "type", "inputs", "output", "parameters", "MFLOP forward"):
        table.add_column(
            heading, justify="right" if heading in ("parameters", "MFLOP forward") else "left"
        )
    previous, flops = "input", 0
    for node in network.nodes:
        inputs = [shapes[each] for each in node.inputs]
        count = sum(size(parameter.shape) for parameter in node.layer.parameters(*inputs).values())
        work = node.layer.flops(*inputs)
        flops += work
        origin = "" if node.inputs == (previous,) else _names(node.inputs)
        row = (node.name, netfile.type_of(node.layer), origin, _shape(shapes[node.name]))
        table.add_row(*row, f"{count:,}" if count else "", f"{work / 1e6:,.1f}" if work else "")
        previous = node.name
    console = Console(width=None if sys.stdout.isatty() else PIPED)
    console.print(table)
    layout = Layout(parameters_of(network, shapes))
    fused = fuse(network, FORMAT)
    plan = make_plan(fused, shapes, batch_size, training=True, fmt=FORMAT, repeats=True)
    unshared = sum(storage.nbytes(batch_size) for storage in plan.storages)
    statistics = sum(size(each.shape) for each in statistics_of(network, shapes).values())
    print(
        f"{layout.count:,} parameters in {len(layout.slots)} tensors "
        f"({layout.count * 4 / MIB:,.1f} MiB), {statistics:,} statistics"
    )
    print(
        f"{flops / 1e9:,.3f} GFLOP an image forward, about {3 * flops / 1e9:,.3f} for a training "
        "step"
    )
    print(
        f"memory of a training step at {batch_size} images: {2 * layout.length * 4 / MIB:,.1f} MiB "
        "weights and gradients, "
        f"{plan.nbytes / MIB:,.1f} MiB values in {len(plan.slots)} shared buffers "
        f"({unshared / MIB:,.1f} without sharing)"
    )
    print(
        f"on the wire a step, {ranks} ranks, sent by all together: "
        + ", ".join(_wire(layout, ranks))
    )
    large = large_layers(network, shapes, LARGE_DENSE, ranks)
    if ranks > 1 and large:
        print(
            f"with --dense split, {batch_size} images a rank: "
            + ", ".join(_split_wire(network, shapes, large, batch_size, ranks))
        )


def _split_wire(
    network: Network, shapes: Mapping[str, Shape], large: Sequence[Node], images: int, ranks: int
) -> list[str]:
    """The same where these layers are split, whose activations travel (docs/wire.md)."""
    names = {f"{node.name}.weight" for node in large}
    rest = {
        name: each for name, each in parameters_of(network, shapes).items() if name not in names
    }
    return _wire(Layout(rest), ranks, activations(large, shapes, images, ranks).everyone)


def _wire(layout: Layout, ranks: int, more: float = 0.0) -> list[str]:
    """Bytes a step that ranks receive, by exchange; and `more`."""
    if ranks < 2:
        return ["nothing"]
    found = {kind: (more + traffic(kind, layout, ranks).everyone) / MIB for kind in KINDS}
    return [f"{kind} {each:,.{1 if each >= 1 else 3}f} MiB" for kind, each in found.items()]


def _names(names: tuple[str, ...]) -> str:
    """Of inputs: all where they are few."""
    if len(names) <= FEW:
        return ", ".join(names)
    return f"{names[0]}, {len(names) - 2} more, {names[-1]}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(extent) for extent in shape) if shape else "1"


def _image(network: Network) -> tuple[int, int, int]:
    c, h, w = network.input_shape
    return c, h, w


def print_devices(ranks: int, choice: str) -> None:
    """Print every OpenCL device, and which one each of so many local ranks would take with how many
    cores."""
    entries = list_devices()
    table = Table(title="OpenCL devices, best first", title_justify="left")
    for heading in ("platform", "device", "kind", "units", "memory", "version"):
        table.add_column(heading)
    for entry in entries:
        device = entry.cl
        cells = (
            entry.platform.name,
            " ".join(device.name.split()),
            entry.kind,
            str(device.max_compute_units),
        )
        table.add_row(
            *cells,
            f"{device.global_mem_size / 2**30:.1f} GiB",
            entry.platform.version.split(" Linux")[0],
        )
    Console(width=None if sys.stdout.isatty() else PIPED).print(table)
    cores = own_cores()
    for rank in range(ranks):
        taken = open_device(choice, rank)

        share = share_of_cores([cores] * ranks, rank)
        why = (
            "a GPU is preferred"
            if taken.kind == "gpu"
            else "no GPU here; Intel's runtime is the fastest for CPUs we know, PoCL the fallback"
        )
        reason = why if choice == "auto" else f"--device {choice}"
        held = f", cores {','.join(map(str, share))}" if taken.kind == "cpu" else ""
        print(f"local rank {rank} of {ranks}: {taken.name} ({taken.platform}){held}: {reason}")
