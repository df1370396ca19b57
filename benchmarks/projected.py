"""What the model of a step says of a network on many ranks, with constants from
benchmarks/results/: for projections.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from measure import HERE
from step_model import Computing, Constants, exchange_seconds, step_seconds

from mpitrain.commands.curve import COMPUTE
from mpitrain.commands.traffic import KINDS, Traffic, activations, traffic
from mpitrain.job.config import LARGE_DENSE
from mpitrain.layers.layer import Parameter
from mpitrain.network import models
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.parameters import Layout
from mpitrain.network.split import large_layers

RESULTS = HERE / "results"
WORK = RESULTS / "exchange-work.json"
"""CPU time of exchanges, as projections.py measures it."""
MEASURED_NETWORK, MEASURED_RANKS = "resnet18", 4
IMAGES = 32
"""Of a rank, with many ranks."""
STRONG_BATCH = 256
"""Of all ranks, with the paper's devices."""
GBIT = 125e6
"""Bytes a second."""
LINK_BOUND = (100, 300)
"""Mbit/s of lab links that messages, not cores, keep busy."""
LONG = 1 << 24
"""Bytes of a float32 vector from which on the start of an exchange does not count."""


@dataclass(frozen=True)
class Device:
    """What computes a rank's images."""

    name: str
    source: str
    image_seconds: dict[str, float]
    """By network."""
    cores: float
    """That compute, and carry the exchange, too. 0: messages are the network card's work, and codes
    the GPU's, and neither takes time in the model."""


@cache
def layouts(network: str, ranks: int, split: bool) -> tuple[Layout, Traffic]:
    """Of what is exchanged; and an image's activations, if dense layers are split."""
    net = models.load(network)
    shapes = infer_shapes(net)
    parameters: dict[str, Parameter] = dict(parameters_of(net, shapes))
    if not split:
        return Layout(parameters), Traffic()
    large = large_layers(net, shapes, LARGE_DENSE, ranks)
    for node in large:
        parameters.pop(f"{node.name}.weight")
    return Layout(parameters), activations(large, shapes, 1, ranks)


@cache
def moved_by(network: str, kind: str, ranks: int, split: bool) -> Traffic:
    return traffic(kind, layouts(network, ranks, split)[0], ranks)


@cache
def flops(network: str) -> float:
    """Of an image, forward."""
    net = models.load(network)
    shapes = infer_shapes(net)
    return sum(node.layer.flops(*(shapes[each] for each in node.inputs)) for node in net.nodes)


def load(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def lab_rows(name: str = "exchange-lab.json") -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Mbit/s, hosts and row of each measurement of single vectors on lab hosts."""
    for run in load(name)["runs"]:
        text = run["link"]
        rate = int(float(text.removesuffix("gbit")) * 1000) if "gbit" in text else int(text[:-4])
        for row in run["rows"]:
            yield rate, run["ranks"] // run.get("ranks_per_host", 1), row


def vector_traffic(kind: str, nbytes: int, ranks: int) -> Traffic:
    """Of one vector of which every rank gets the mean: shards go to their owners, and their means
    to all. Two ranks that code swap whole vectors."""
    each = {"float32": 4.0, "float16": 2.0, "dynamic8": 513 / 512}[kind] * nbytes / 4
    one_way = each * (ranks - 1) / ranks
    both = each if ranks == 2 and kind != "float32" else 2 * one_way
    return Traffic(out=both, into=both, everyone=both * ranks, messages=4 * (ranks - 1))


@cache
def coded_cpu() -> dict[str, float]:
    """CPU seconds a value and rank of a coded allreduce on four hosts, by codec."""
    return {
        row["method"]: row["cpu_seconds_all_ranks"] / hosts / (row["bytes"] / 4)
        for rate, hosts, row in lab_rows()
        if rate == 1000 and row["bytes"] == 1 << 26 and row["method"] in ("float16", "dynamic8")
    }


def byte_seconds() -> float:
    """A value costs its codec and, on four hosts, 1.5 times its bytes; float16 has one more."""
    return (coded_cpu()["float16"] - coded_cpu()["dynamic8"]) / (1.5 * (2 - 513 / 512))


def codec_seconds() -> float:
    """What is left of that for a value: coding and adding up, without an update."""
    return coded_cpu()["dynamic8"] - 1.5 * 513 / 512 * byte_seconds()


@cache
def constants() -> tuple[Constants, list[tuple[str, str, str]]]:
    """What the model needs; and for the page name, value and source of each."""
    shares = []
    for rate, hosts, row in lab_rows():
        if rate in LINK_BOUND and row["bytes"] >= LONG and row["method"] in KINDS:
            moved = vector_traffic(row["method"], row["bytes"], hosts)
            shares.append(moved.out / (rate / 1000 * GBIT) / row["seconds"][1])
    byte = byte_seconds()
    (short,) = (
        row for rate, _, row in lab_rows()
        if rate == 1000 and row["bytes"] == 1024 and row["method"] == "MPI float32"
    )  # fmt: skip
    message = short["cpu_seconds_all_ranks"] / (4 * 4)  # four ranks send two and receive two
    work = load(WORK.name)
    values = {kind: work["nanoseconds"][kind][1] * 1e-9 for kind in KINDS}
    found = Constants(statistics.median(shares), byte, message, values)
    words = [
        ("part of a link's rate that an exchange reaches", f"{found.link_share:.2f}",
         f"`exchange-lab.json`, four hosts, 100 and 300 Mbit/s, from 16 MiB: median of "
         f"{len(shares)} rows ({min(shares):.2f} to {max(shares):.2f})"),
        ("CPU time to send and receive a byte", f"{byte * 1e9:.1f} ns",
         "`exchange-lab.json`, four hosts, 1 Gbit/s, 64 MiB: float16 less dynamic8"),
        ("CPU time of a message", f"{message * 1e6:.0f} us",
         f"`exchange-lab.json`, four hosts, 1 Gbit/s, 1 KiB, n = {short['n']}"),
        *(
            (f"CPU time of a value with `{kind}`, update included", f"{seconds * 1e9:.1f} ns",
             f"`exchange-work.json`, {MEASURED_NETWORK}, {MEASURED_RANKS} ranks of one host, "
             f"n = {work['n']}")
            for kind, seconds in values.items()
        ),
    ]  # fmt: skip
    return found, words


def devices() -> list[Device]:
    """Those whose steps were measured; ResNet50's are ResNet152's by their operations."""
    small = flops("resnet50") / flops("resnet152")
    found = []
    for name, source, batches, cores in (
        ("two cores of an EPYC", "steps-intel.json", {"vgg16": 16, "resnet152": 8}, 2),
        ("an H200 in bf16", "steps-nvidia.json", {"vgg16": 32, "resnet152": 32}, 0),
    ):
        times = {
            row["network"]: 1 / row["ours"]["images_per_second"][1]
            for row in load(source)["rows"]
            if row["batch"] == batches.get(row["network"])
            and row.get("ranks", 1) == 1
            and row.get("precision", "bf16") == "bf16"
        }
        times["resnet50"] = times["resnet152"] * small
        found.append(Device(name, source, times, cores))
    return found


def predicted(
    network: str, kind: str, ranks: int, gbit: float, computing: Computing, images: float,
    split: bool = False, shared_by: int = 1, offloaded: bool = False, streamed: bool = True,
) -> float:  # fmt: skip
    """Seconds a step.

    images: of a rank. shared_by: how many ranks' exchanges the computing's cores carry. offloaded:
    these take no CPU time.
    """
    known, _ = constants()
    if offloaded:
        known = Constants(known.link_share, 0.0, 0.0, dict.fromkeys(known.value_seconds, 0.0))
    layout, of_image = layouts(network, ranks, split)
    moved = moved_by(network, kind, ranks, split)
    streamed = streamed and not kind.startswith("star")
    link, work = exchange_seconds(
        moved, layout.count, kind, gbit * GBIT, known, ranks if shared_by > 1 else 1, streamed
    )
    before = images * of_image.out / (gbit * GBIT * known.link_share) if split else 0.0
    work += images * of_image.out * known.byte_seconds
    return step_seconds(computing, link, work * shared_by, before, streamed)


def weak(device: Device, network: str, kind: str, ranks: int, gbit: float, split: bool) -> float:
    computing = Computing(IMAGES * device.image_seconds[network], device.cores)
    gpu = not device.cores
    return predicted(network, kind, ranks, gbit, computing, IMAGES, split, offloaded=gpu)


def strong(kind: str, ranks: int, split: bool = False, gbit: float = 1.0) -> float:
    """VGG16 with the paper's devices and batch."""
    images = STRONG_BATCH / ranks
    return predicted("vgg16", kind, ranks, gbit, Computing(COMPUTE / ranks), images, split)
