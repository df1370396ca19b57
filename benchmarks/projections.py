"""What a step takes with more ranks and faster links than there are here: docs/scaling.md.

    python benchmarks/projections.py            writes the page's tables and the picture
    python benchmarks/projections.py --measure  measures the CPU time of exchanges before

The model is mpitrain/commands/step_model.py, its bytes those of mpitrain/commands/traffic.py, its
constants come from benchmarks/results/. Every figure there that it can speak of is compared with
what it says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from measure import HERE, circumstances, spread

from mpitrain.commands.curve import COMPUTE, PAPER, star_seconds
from mpitrain.commands.step_model import Computing, Constants, exchange_seconds, step_seconds
from mpitrain.commands.traffic import Traffic, activations, traffic
from mpitrain.job.config import LARGE_DENSE
from mpitrain.layers.layer import Parameter
from mpitrain.network import models
from mpitrain.network.graph import parameters_of
from mpitrain.network.memory import infer_shapes
from mpitrain.network.parameters import Layout
from mpitrain.network.split import large_layers

RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "scaling.md"
FIGURE = "scaling-vgg16.json"
"""The paper's curve, measured again."""
PICTURE, WORK = RESULTS / "projections.png", RESULTS / "exchange-work.json"
NETWORKS = ("vgg16", "resnet50", "resnet152")
EXCHANGES = (
    "star-float32", "star-dynamic8", "float32", "float16", "dynamic8", "lowrank", "lowrank8"
)  # fmt: skip
SPLIT = ("float32", "dynamic8", "lowrank8")
"""Exchanges that are shown together with --dense split."""
RANKS = (8, 32, 128, 1024)
LINKS = (1, 10, 100)
"""Gbit/s."""
IMAGES = 32
"""Of a rank."""
STRONG_RANKS, STRONG_BATCH = (4, 8, 16, 32, 64), 256
GBIT = 125e6
"""Bytes a second."""
LINK_BOUND = (100, 300)
"""Mbit/s of lab links that messages, not cores, keep busy."""
LONG = 1 << 24
"""Bytes of a float32 vector from which on the start of an exchange does not count."""
MEASURED_NETWORK, MEASURED_RANKS, MEASURED_STEPS, WARM = "resnet18", 4, 12, 2
KINDS = ("float32", "float16", "dynamic8", "lowrank", "lowrank8")


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


# -- constants
# --------------------------------------------------------------------------------------------------


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


def measure_work() -> None:
    """Write CPU nanoseconds a value and rank of each exchange, minimum, median and maximum."""
    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                str(Path(sys.executable).parent / "mpirun"), "-n", str(MEASURED_RANKS),
                str(Path(sys.executable).parent / "mpitrain"), MEASURED_NETWORK,
                "--data", "synthetic:64", "--batch-size", "16", "--steps", str(MEASURED_STEPS),
                "--compute-seconds", "0", "--exchange", kind, "--quiet", "--out", f"{folder}/run",
            ]  # fmt: skip
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
            log = Path(folder, "run", "log.jsonl").read_text().splitlines()
        start, *events = [json.loads(line) for line in log]
        steps = [each for each in events if each["event"] == "step"][WARM:]
        scale = 1e9 / MEASURED_RANKS / start["parameters"]
        found[kind] = spread([each["cpu_seconds"] * scale for each in steps])
        print(kind, found[kind], flush=True)
    facts = circumstances(MEASURED_STEPS - WARM)
    WORK.write_text(json.dumps({**facts, "nanoseconds": found}, indent=1) + "\n")


# -- what the model says
# --------------------------------------------------------------------------------------------------


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


# -- against what was measured
# --------------------------------------------------------------------------------------------------

LAB_CORES = 2
"""Of the machine, for all lab hosts."""
NOT_STREAMED = {4: 7.5, 8: 11.0}
"""Seconds, in docs/results.md, of a step's exchange after the backward pass, by ranks."""
BYTES = (
    ("vgg16", "dynamic8", 8, 32, False, 260.0),
    ("vgg16", "dynamic8", 8, 32, True, 51.6),
    ("vgg16", "float32", 4, 4, False, 553.4),
    ("vgg16", "float32", 4, 4, True, 60.6),
)
"""Network, exchange, ranks, images of a rank, whether split, and MB that rank 0 sends a step, in
docs/results.md."""


@dataclass(frozen=True)
class Check:
    """A measured point, and what the model says of it."""

    what: str
    source: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def checks() -> list[Check]:
    """All points of single vectors from 16 MiB on, of scaling.py and of ddp.py."""
    known, _ = constants()
    found = []
    for name in ("exchange-lab.json", "exchange-lab-ranks.json", "exchange-two-a-host.json",
                 "exchange-lab-1g.json"):  # fmt: skip
        for rate, hosts, row in lab_rows(name):
            kind = row["method"]
            if row["bytes"] < LONG or kind not in ("float32", "float16", "dynamic8"):
                continue
            moved = vector_traffic(kind, row["bytes"], hosts)
            # A bare allreduce codes and decodes, and updates nothing.
            bare = replace(known, value_seconds={kind: codec_seconds() * (kind != "float32")})
            values = row["bytes"] // 4
            link, work = exchange_seconds(moved, values, kind, rate / 1000 * GBIT, bare, hosts)
            found.append(
                Check(
                    f"{row['bytes'] >> 20} MiB, {kind}, {hosts} hosts, {rate:,} Mbit/s",
                    name,
                    row["seconds"][1],
                    max(link, work * hosts / LAB_CORES),
                )
            )
    scaling = load(FIGURE)
    for kind, points in scaling["curves"].items():
        for point in points:
            ranks = point["ranks"]
            computing = Computing(scaling["compute_seconds_a_batch"] / ranks)
            said = predicted("vgg16", kind, ranks, 1, computing, STRONG_BATCH / ranks)
            words = f"VGG16, slept, {kind}, {ranks} ranks, 1 Gbit/s"
            found.append(Check(words, FIGURE, point["seconds"][1], said))
    for ranks, seconds in NOT_STREAMED.items():  # sleeping takes no core: it is all the exchange
        idle = Computing(0.0, LAB_CORES)
        said = predicted("vgg16", "dynamic8", ranks, 1, idle, 0, False, ranks, streamed=False)
        words = f"VGG16, slept, dynamic8, {ranks} ranks, 1 Gbit/s, --no-streaming: exchange alone"
        found.append(Check(words, "results.md", seconds, said))
    ranks, batch = 4, 16
    for row in load("ddp-vgg16.json")["rows"]:
        side, kind = row["method"].split(" ")
        if side != "mpitrain" or "seconds" not in row:
            continue
        kind, _, dense = kind.partition("+")
        gbit = float(row["link"].removesuffix("gbit")) if "gbit" in row["link"] else 0.1
        said = predicted(
            "vgg16", kind, ranks, gbit, Computing(batch / 11.1, LAB_CORES), batch / ranks,
            bool(dense), ranks,
        )  # fmt: skip
        words = (
            f"VGG16, batch {batch}, {row['method'].split(' ')[1]}, {ranks} ranks, {gbit:g} Gbit/s"
        )
        found.append(Check(words, "ddp-vgg16.json", row["seconds"][1], said))
    return found


# -- the page
# --------------------------------------------------------------------------------------------------


def tables() -> dict[str, str]:
    """What stands on the page between `<!-- NAME -->` and `<!-- end -->`."""
    rows = ["| constant | value | source |", "|---|---|---|"]
    rows += [f"| {' | '.join(each)} |" for each in constants()[1]]
    found = {"constants": "\n".join(rows)}
    every = checks()
    rows = ["| point | measured, s | model, s | error | source |", "|---|---|---|---|---|"]
    rows += [
        f"| {one.what} | {one.measured:.3g} | {one.predicted:.3g} | {one.error:+.0%} | "
        f"`{one.source}` |"
        for one in every
    ]
    sizes = sorted(abs(one.error) for one in every)
    rows.append(
        f"\nOf {len(every)} points the error is {statistics.median(sizes):.0%} in the middle and "
        f"{sizes[-1]:.0%} at most; {sum(size <= 0.25 for size in sizes)} lie within 25 %."
    )
    found["checks"] = "\n".join(rows)
    rows = ["| point | measured, MB | model, MB |", "|---|---|---|"]
    for network, kind, ranks, images, split, sent in BYTES:
        layout, of_image = layouts(network, ranks, split)
        said = (traffic(kind, layout, ranks).first + images * of_image.first) / 1e6
        rows.append(
            f"| {network}, {_named(kind, split)}, {ranks} ranks with {images} images each | "
            f"{sent:.1f} | {said:.1f} |"
        )
    found["bytes"] = "\n".join(rows)
    heads = " | ".join(str(ranks) for ranks in STRONG_RANKS)
    rows = [f"| exchange | {heads} |", "|---" * (1 + len(STRONG_RANKS)) + "|"]
    paper = PAPER["vgg16"].measured
    rows.append(
        "| the paper, measured | "
        + " | ".join(f"{paper[n]}x" if n in paper else "" for n in STRONG_RANKS) + " |"
    )  # fmt: skip
    rows.append("| the paper's model | " + " | ".join(
        _cell(star_seconds(n), COMPUTE) for n in STRONG_RANKS) + " |")  # fmt: skip
    for kind, split in _methods():
        cells = " | ".join(_cell(strong(kind, n, split), COMPUTE) for n in STRONG_RANKS)
        rows.append(f"| {_named(kind, split)} | {cells} |")
    found["paper"] = "\n".join(rows)
    for number, device in enumerate(devices()):
        for network in NETWORKS:
            found[f"{network} {number}"] = _projected(device, network)
    return found


def _projected(device: Device, network: str) -> str:
    one = IMAGES * device.image_seconds[network]
    heads = " | ".join(f"{ranks:,}" for ranks in RANKS)
    rows = [f"| Gbit/s | exchange | {heads} |", "|---" * (2 + len(RANKS)) + "|"]
    for gbit in LINKS:
        for kind, split in _methods():
            cells = []
            for ranks in RANKS:
                seconds = weak(device, network, kind, ranks, gbit, split)
                cells.append(_cell(seconds, ranks * one))
            rows.append(f"| {gbit} | {_named(kind, split)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _methods() -> list[tuple[str, bool]]:
    return [*((kind, False) for kind in EXCHANGES), *((kind, True) for kind in SPLIT)]


def _named(kind: str, split: bool) -> str:
    return f"{kind}, split" if split else kind


def _cell(seconds: float, alone: float) -> str:
    """Seconds a step, and how many times as many images a second as one rank."""
    speed_up = alone / seconds
    return f"{_digits(seconds)} s, {_digits(speed_up)}x"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def filled(page: str) -> str:
    """The page with its tables."""
    for name, table in tables().items():
        head, found, rest = page.partition(f"<!-- {name} -->\n")
        if not found:
            raise SystemExit(f"{PAGE.name} has no place for {name}")
        _, end, tail = rest.partition("<!-- end -->")
        page = f"{head}{found}{table}\n{end}{tail}"
    return page


def draw() -> None:
    """Speed-up by ranks: with the paper's devices and batch; and with many images on an H200."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = [2**power for power in range(1, 9)]
    left.plot([1, *every], [1, *every], color="0.7", linestyle="--", label="linear")
    left.plot(every, [star_seconds(1) / star_seconds(n) for n in every], "k:",
              label="the paper's model")  # fmt: skip
    left.plot(*zip(*PAPER["vgg16"].measured.items(), strict=True), "ks", label="the paper")
    shown = [("star-dynamic8", False), ("float32", False), ("dynamic8", False), ("lowrank", False),
             ("lowrank8", False), ("dynamic8", True)]  # fmt: skip
    for color, (kind, split) in enumerate(shown):
        left.plot(every, [COMPUTE / strong(kind, n, split) for n in every], f"C{color}-",
                  linewidth=1.2, label=f"{_named(kind, split)}, model")  # fmt: skip
    scaling = load(FIGURE)
    base = scaling["compute_seconds_a_batch"]
    for color, kind in ((0, "star-dynamic8"), (2, "dynamic8")):
        points = {each["ranks"]: base / each["seconds"][1] for each in scaling["curves"][kind]}
        left.plot(points.keys(), points.values(), f"C{color}o", label=f"{kind}, measured")
    left.set(title=f"VGG16, batch {STRONG_BATCH}, {COMPUTE:g} s of computing, 1 Gbit/s")
    device, some = devices()[1], [2**power for power in range(1, 11)]
    one = IMAGES * device.image_seconds["resnet50"]
    right.plot([1, *some], [1, *some], color="0.7", linestyle="--", label="linear")
    for color, kind in enumerate(("float32", "dynamic8", "lowrank8"), 1):
        for gbit, style in zip(LINKS, (":", "--", "-"), strict=True):
            speed = [n * one / weak(device, "resnet50", kind, n, gbit, False) for n in some]
            right.plot(
                some, speed, f"C{color}{style}", linewidth=1.2, label=f"{kind}, {gbit} Gbit/s"
            )
    right.set(title=f"ResNet50, {IMAGES} images a rank on {device.name}")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set(xlabel="ranks", ylabel="speed-up")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure_work()
    PAGE.write_text(filled(PAGE.read_text()))
    draw()
    print(tables()["checks"])


if __name__ == "__main__":
    main()
