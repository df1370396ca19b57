"""What one device computes, against PyTorch and NumPy on the same cores, in turn in one run.

    python benchmarks/compute.py steps --device gpu -n 3       the command in each precision
    python benchmarks/compute.py steps --network vgg16 --device intel
                                                  steps of the command, on one and on two ranks
    python benchmarks/compute.py ranks --device nvidia --ranks 2 -n 3
                                                  the same on several GPUs, and on one
    python benchmarks/compute.py layers           every layer, a pass at a time
    python benchmarks/compute.py products -n 15   matrix products
    python benchmarks/compute.py                  steps, layers and products

Each part writes PART-PLATFORM.json and .txt into benchmarks/results. PyTorch may live in another
Python: --torch-python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gemm
import gpu_ranks
import gpu_steps
import layers
import report
import steps
from measure import HERE, Side, SideError, circumstances
from rich.console import Console
from rich.table import Table

NETWORKS = {
    "steps": tuple(steps.BATCHES),
    "layers": tuple(steps.BATCHES),
    "products": (),
    "ranks": tuple(gpu_steps.CASES),
}
"""Parts, and the networks each knows."""
ASKED_FOR = ("ranks",)
"""Parts that are not done unless they are named."""
TABLES: dict[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "steps": steps.tables,
    "layers": layers.tables,
    "products": gemm.tables,
    "ranks": gpu_ranks.tables,
}
GPUS = ("gpu", "nvidia")
"""What --device starts with where the steps are those of gpu_steps.py."""


def main() -> None:
    options = _options()
    for part in options.parts or (each for each in NETWORKS if each not in ASKED_FOR):
        known = [each for each in NETWORKS[part] if each in gpu_steps.CASES or not _is_gpu(options)]
        networks = [each for each in known if each in options.network or not options.network]
        if known and not networks:
            print(f"{part}: does not do {', '.join(options.network)}", file=sys.stderr)
            continue
        try:
            measure(part, networks, options)
        except SideError as error:
            sys.exit(f"compute.py: {error}")


def measure(part: str, networks: Sequence[str], options: argparse.Namespace) -> None:
    """One part: measured, shown and written. What there is is kept after each row, so that a run
    that is cut short was not in vain."""
    found: dict[str, Any] = {"part": part, **circumstances(options.n)}
    with ExitStack() as sides:
        ours = sides.enter_context(Side(sys.executable, "side_mpitrain.py"))
        found["ours"] = ours("open", device=options.device)
        theirs = _peer(part, options, sides, found)
        found["peak"] = {"gflops": options.peak, "source": "given"} if options.peak else _peak(ours)
        peak = found["peak"]["gflops"]
        rows: Iterator[dict[str, Any]]
        gpu = _is_gpu(options)
        if part == "steps":
            sides.close()  # fresh ones for each network
            asked = (networks, options.device, options.torch_python, options.n)
            rows = (
                gpu_steps.rows(*asked, options.precision or tuple(gpu_steps.PEERS), options.batch)
                if gpu
                else steps.rows(*asked)
            )
        elif part == "ranks":
            sides.close()
            asked_ranks = options.n, options.ranks, options.exchange
            precisions = options.precision or (gpu_ranks.PRECISION,)
            rows = gpu_ranks.rows(networks, options.device, *asked_ranks, precisions, options.batch)
        elif part == "layers":
            size = (lambda each: gpu_steps.CASES[each][0]) if gpu else steps.BATCHES.__getitem__
            batches = {each: size(each) for each in networks}
            precisions = (options.precision or tuple(gpu_steps.PEERS)) if gpu else ()
            rows = layers.rows(batches, precisions, options.device, theirs, options.n, peak)
        else:
            rows = gemm.rows(ours, theirs, options.n, peak)
        found["rows"] = []
        path = options.out / f"{part}-{platform_word(found['ours'])}.json"
        for row in rows:
            found["rows"].append(row)
            report.write(path, found, _tables(found))
            print(f"{part}: {brief(row)}", file=sys.stderr, flush=True)
    console = Console(width=max(Console().width, report.WIDTH))
    report.show(console, found, _tables(found))
    print(f"written to {path} and {path.with_suffix('.txt').name}")


def _peer(
    part: str, options: argparse.Namespace, sides: ExitStack, found: dict[str, Any]
) -> Side | None:
    """The other side, which is written into what was found; none of the part ranks."""
    if part == "ranks":
        return None
    numpy = part == "products"
    peer = (
        Side(sys.executable, "side_numpy.py")
        if numpy
        else Side(options.torch_python, "side_pytorch.py")
    )
    theirs = sides.enter_context(peer)
    found["numpy" if numpy else "pytorch"] = theirs("open")
    return theirs


def _peak(ours: Side) -> dict[str, Any]:
    return {"gflops": round(ours("peak"), 1), "source": "multiply-adds on registers, best of ten"}


def _is_gpu(options: argparse.Namespace) -> bool:
    return str(options.device).startswith(GPUS)


def platform_word(device: Mapping[str, Any]) -> str:
    """ "intel" for Intel(R) OpenCL: a file's name."""
    return str(device["platform"]).split("(")[0].split()[0].lower()


def brief(row: Mapping[str, Any]) -> str:
    """A row while one waits for the next."""
    where = row.get("what") or " ".join(
        str(row[key]) for key in ("network", "node", "pass", "precision", "exchange") if key in row
    )
    if "ranks" in row:
        where += f", {row['ranks']} ranks"
    ours = row["ours"]
    if "images_per_second" in ours:
        speed = "{:.4g} img/s".format(ours["images_per_second"][1])
    elif "gbytes_per_second" in ours:
        return "{}: {:.4g} GB/s, {:.3g} of copies".format(
            where, ours["gbytes_per_second"][1], row["ratio"][1]
        )
    else:
        speed = "{:.4g} GFLOPS".format(ours["gflops"][1])
    peer = "one rank" if "alone" in row else "the peer"
    return f"{where}: {speed}, {row['ratio'][1]:.3g} times {peer}"


def _tables(found: Mapping[str, Any]) -> list[Table]:
    on_gpu = found["part"] == "steps" and found["rows"] and "precision" in found["rows"][0]
    shown = gpu_steps.tables if on_gpu else TABLES[found["part"]]
    return shown(found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="steps|layers|products|ranks", help="default: the first three"
    )
    parser.add_argument(
        "--network",
        type=_names,
        default=(),
        help=f"of {','.join(steps.BATCHES)}; default: all that a part knows",
    )
    parser.add_argument("--device", default="auto", help="as for mpitrain")
    parser.add_argument(
        "--precision",
        type=lambda text: tuple(text.split(",")),
        default=(),
        help=f"on GPUs; default: {','.join(gpu_steps.PEERS)}, of ranks {gpu_ranks.PRECISION}",
    )
    parser.add_argument("--ranks", type=_positive, default=2, help="of the part ranks (default 2)")
    parser.add_argument(
        "--exchange",
        type=lambda text: tuple(text.split(",")),
        default=gpu_ranks.KINDS,
        help=f"of the part ranks; default: {','.join(gpu_ranks.KINDS)}",
    )
    parser.add_argument(
        "--batch", type=int, action="append", default=[], help="on GPUs, this batch alone"
    )
    parser.add_argument(
        "-n", type=_positive, default=5, help="counted turns of each side (default 5)"
    )
    parser.add_argument(
        "--peak", type=float, help="GFLOPS the device can do; default: measured with multiply-adds"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the files")
    options = parser.parse_args()
    for part in options.parts:
        if part not in NETWORKS:
            parser.error(f"no part {part}; there are {', '.join(NETWORKS)}")
    return options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in steps.BATCHES:
            raise argparse.ArgumentTypeError(
                f"no network {name}; there are {', '.join(steps.BATCHES)}"
            )
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    main()
