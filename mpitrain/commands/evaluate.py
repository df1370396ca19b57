"""`mpitrain evaluate`: a checkpoint's loss, top-1 and top-5, and how each class fares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpitrain.data.bad import Bad
from mpitrain.data.source import Dataset, Split, open_source
from mpitrain.job.config import is_made_up
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError
from mpitrain.job.plain import plain
from mpitrain.mpi.connect import abort, connect
from mpitrain.mpi.heartbeat import with_heartbeat
from mpitrain.network.model import Model, load
from mpitrain.runtime.platforms import own_cores, prepare, share_of_cores
from mpitrain.training.confusion import Confusion
from mpitrain.training.hooks.evaluate import Scores, score
from mpitrain.training.reading import settle, use_threads
from mpitrain.watch.watchdog import Watchdog

MOST_COLUMNS = 20
"""Classes of which a matrix is printed; of more, the most frequent mistakes."""
MOST_MISTAKES = 20
STALL = 600.0
"""Seconds without progress after which an evaluation by itself is ended, as training's
--stall-seconds has it by default."""


def evaluate_checkpoint(
    path: Path,
    data: str | None,
    batch_size: int,
    device: str,
    as_json: bool,
    skip_bad: int = 0,
    raw: bool = False,
    per_class: bool = False,
    matrix: bool = False,
    read: str = "auto",
) -> Scores:
    """Score a checkpoint on the test images of a source (the training images where it has no test
    split), and print it. read: as in training."""
    bad = Bad(skip_bad)
    wire = connect()
    # As in training; without it each rank would take all cores of its host.
    cores = share_of_cores(wire.agree.neighbours(own_cores()), wire.ranks.local_rank)
    prepare(cores)
    model = wire.agree.together(
        lambda: load(
            path,
            device,
            capacity=parts(batch_size, wire.ranks.size),
            local_rank=wire.ranks.local_rank,
            averaged=not raw,
        )
    )
    spec, classes = data or model.trained_on, model.network.classes
    dataset: Dataset | None = None

    def open_data(may_fetch: bool) -> Dataset:
        c, h, w = model.network.input_shape
        return open_source(
            spec,
            shape_hint=(c, h, w),
            classes=classes if is_made_up(spec) else None,
            seed=model.seed,
            bad=bad,
            layout=model.layout if spec.lower().endswith(".npz") else None,
            side=model.resize,
            may_fetch=may_fetch,
        )

    def look(beat: Callable[[], None]) -> int:
        nonlocal dataset
        bad.alive = beat
        dataset = source = open_data(may_fetch=True)
        if source.shape != model.network.input_shape:
            raise UserError(
                f"--data {spec}: its images are {source.shape}, {path} was trained on "
                f"{model.network.input_shape}"
            )
        if source.classes > classes:
            raise UserError(
                f"--data {spec}: it has {source.classes} classes, {path} knows {classes}"
            )
        if source.class_names and model.class_names and source.class_names != model.class_names:
            raise UserError(
                f"--data {spec}: its classes are {_few(source.class_names)}, {path} knows "
                f"{_few(model.class_names)}"
            )
        return len(_scored(source))

    watch = Watchdog(wire.ranks.rank, STALL, abort)
    watch.at("evaluate")
    count = int(with_heartbeat(wire.agree, look, lambda: watch.at("evaluate")))
    reading, dataset = settle(wire, dataset, read, skip_bad, spec, lambda: open_data(False))
    use_threads(dataset, None, model.graph.device, len(cores))
    split = None if dataset is None else _scored(dataset)
    confusion = Confusion(classes) if per_class or matrix else None
    found = score(
        wire,
        model.graph,
        split,
        count,
        lambda: watch.at("evaluate"),
        confusion,
        local=reading.local,
    )
    watch.stop()
    if wire.ranks.rank == 0:
        if as_json:
            print(json.dumps(asdict(found) | _as_json(model, confusion, per_class, matrix)))
        else:
            if bad.names:
                print(plain(f"--skip-bad {bad.most}: {bad}"))
            print(found.words(model.network.classes))
            for line in _lines(model, confusion, per_class, matrix):
                print(plain(line))
    return found


def _scored(dataset: Dataset) -> Split:
    return dataset.test or dataset.train


def _as_json(
    model: Model, confusion: Confusion | None, per_class: bool, matrix: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if confusion and per_class:
        each = [asdict(score) for score in confusion.classes()]
        names = _names(model)
        found["per_class"] = [
            {"class": name, **facts} for name, facts in zip(names, each, strict=True)
        ]
    if confusion and matrix:
        found["confusion"] = confusion.counts.tolist()
    return found


def _lines(
    model: Model, confusion: Confusion | None, per_class: bool, matrix: bool
) -> Iterator[str]:
    """What is printed below the scores."""
    names = _names(model)
    wide = max(map(len, (*names, "class")))
    if confusion and per_class:
        yield f"{'class':{wide}}  images  top-1   precision"
        for name, score in zip(names, confusion.classes(), strict=True):
            yield (
                f"{name:{wide}}  {score.images:6d}  {_number(score.top1)}  "
                f"{_number(score.precision)}"
            )
    if confusion and matrix and len(names) > MOST_COLUMNS:
        yield f"the {MOST_MISTAKES} most frequent mistakes:"
        for count, true, found in confusion.mistakes(MOST_MISTAKES):
            yield f"{count:6d}  {names[true]} taken for {names[found]}"
    elif confusion and matrix:
        digits = max(len(str(confusion.counts.max())), *map(len, names[:MOST_COLUMNS]))
        yield f"{'':{wide}}  " + " ".join(f"{name:>{digits}}" for name in names)
        for name, row in zip(names, confusion.counts.tolist(), strict=True):
            yield f"{name:{wide}}  " + " ".join(f"{count:{digits}d}" for count in row)


def _number(share: float | None) -> str:
    return "-     " if share is None else f"{share:.4f}"


def _names(model: Model) -> list[str]:
    """Of all classes: numbers where they have no names."""
    known = model.class_names
    return [known[k] if k < len(known) else str(k) for k in range(model.network.classes)]


def _few(names: tuple[str, ...]) -> str:
    """Class names for a message."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
