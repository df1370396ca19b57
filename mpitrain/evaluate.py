"""Loss, top-1 and top-5 on test images, shared among ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mpitrain.config import is_made_up
from mpitrain.data.bad import Bad
from mpitrain.data.source import Split, open_source
from mpitrain.exchange.wire import Wire, connect
from mpitrain.graph import Graph
from mpitrain.layers.accuracy import Accuracy
from mpitrain.layers.layer import Pass
from mpitrain.model import load
from mpitrain.patience import patiently
from mpitrain.report import UserError
from mpitrain.runtime.platforms import own_cores, prepare, share_of_cores
from mpitrain.watchdog import Watchdog

STALL = 600.0
"""Seconds without progress after which an evaluation by itself is ended, as training's --stall-seconds has it by default."""


@dataclass(frozen=True)
class Scores:
    """Means over test images; top1 and top5 are shares of 1."""

    loss: float
    top1: float
    top5: float
    images: int


def score(
    wire: Wire, graph: Graph, split: Split | None, count: int, alive: Callable[[], None] = lambda: None
) -> Scores:
    """Collective. Rank 0 holds the split of `count` images and sends each rank its part, a graph's capacity at a time."""
    accuracy = Accuracy(graph.device, graph.network.classes)
    rank_of = graph.device.empty((graph.capacity,), np.int32)
    batch = min(wire.gather_facts(graph.capacity)) * wire.size
    shape = graph.network.input_shape
    dtype = np.dtype(wire.from_root(lambda: str(split.dtype) if split else ""))
    sums = np.zeros(3)
    for first in range(0, count, batch):
        total = min(batch, count - first)
        shares = [
            slice(total * rank // wire.size, total * (rank + 1) // wire.size) for rank in range(wire.size)
        ]
        batch_images, batch_labels = split.read(np.arange(first, first + total)) if split else (None, None)
        labels32 = None if batch_labels is None else batch_labels.astype(np.int32)
        images, labels = wire.scatter_parts(batch_images, labels32, shares, shape, dtype).wait()
        if len(images):
            run = Pass(len(images), training=False)
            graph.load(images, labels)
            graph.forward(run)
            accuracy(rank_of, graph.scores, graph.labels, len(images))
            found = rank_of.reshape((len(images),)).download()
            sums += graph.losses(len(images)).sum(dtype=np.float64), (found < 1).sum(), (found < 5).sum()
        alive()
    loss, top1, top5 = wire.sum(sums) / count
    return Scores(float(loss), float(top1), float(top5), count)


def evaluate_checkpoint(
    path: Path, data: str | None, batch_size: int, device: str, as_json: bool, skip_bad: int = 0
) -> Scores:
    """Score a checkpoint on the test images of a source (the training images where it has no test split), and print it."""
    bad = Bad(skip_bad)
    wire = connect()
    # As in training; without it each rank would take all cores of its host.
    prepare(share_of_cores(wire.neighbours(own_cores()), wire.local_rank))
    model = wire.together(
        lambda: load(path, device, capacity=-(-batch_size // wire.size), local_rank=wire.local_rank)
    )
    split: Split | None = None

    def look(beat: Callable[[], None]) -> int:
        nonlocal split
        bad.alive = beat
        spec = data or model.trained_on
        classes = model.network.classes
        c, h, w = model.network.input_shape
        source = open_source(
            spec,
            shape_hint=(c, h, w),
            classes=classes if is_made_up(spec) else None,
            seed=model.seed,
            bad=bad,
        )
        if source.shape != model.network.input_shape:
            raise UserError(
                f"--data {spec}: its images are {source.shape}, {path} was trained on {model.network.input_shape}"
            )
        if source.classes > classes:
            raise UserError(f"--data {spec}: it has {source.classes} classes, {path} knows {classes}")
        if source.class_names and model.class_names and source.class_names != model.class_names:
            raise UserError(
                f"--data {spec}: its classes are {_few(source.class_names)}, {path} knows {_few(model.class_names)}"
            )
        split = source.test or source.train
        return len(split)

    watch = Watchdog(wire.rank, STALL, wire.abort)
    watch.at("evaluate")
    count = int(patiently(wire, look, lambda: watch.at("evaluate")))
    found = score(wire, model.graph, split, count, lambda: watch.at("evaluate"))
    watch.stop()
    if wire.rank == 0:
        if as_json:
            print(json.dumps(asdict(found)))
        else:
            if bad.names:
                print(f"--skip-bad {bad.most}: {bad}")
            print(
                f"loss {found.loss:.4f}  top-1 {found.top1:.4f}  top-5 {found.top5:.4f}  ({found.images} images)"
            )
    return found


def _few(names: tuple[str, ...]) -> str:
    """Class names for a message."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
