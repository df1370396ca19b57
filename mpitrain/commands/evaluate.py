"""`mpitrain evaluate`: a checkpoint's loss, top-1 and top-5."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mpitrain.data.bad import Bad
from mpitrain.data.source import Split, open_source
from mpitrain.job.config import is_made_up
from mpitrain.job.cut import parts
from mpitrain.job.errors import UserError
from mpitrain.job.plain import plain
from mpitrain.mpi.connect import abort, connect
from mpitrain.mpi.heartbeat import with_heartbeat
from mpitrain.network.model import load
from mpitrain.runtime.platforms import own_cores, prepare, share_of_cores
from mpitrain.training.hooks.evaluate import Scores, score
from mpitrain.watch.watchdog import Watchdog

STALL = 600.0
"""Seconds without progress after which an evaluation by itself is ended, as training's
--stall-seconds has it by default."""


def evaluate_checkpoint(
    path: Path, data: str | None, batch_size: int, device: str, as_json: bool, skip_bad: int = 0
) -> Scores:
    """Score a checkpoint on the test images of a source (the training images where it has no test
    split), and print it."""
    bad = Bad(skip_bad)
    wire = connect()
    # As in training; without it each rank would take all cores of its host.
    prepare(share_of_cores(wire.agree.neighbours(own_cores()), wire.ranks.local_rank))
    model = wire.agree.together(
        lambda: load(
            path,
            device,
            capacity=parts(batch_size, wire.ranks.size),
            local_rank=wire.ranks.local_rank,
        )
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
            layout=model.layout if spec.lower().endswith(".npz") else None,
            side=model.resize,
        )
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
        split = source.test or source.train
        return len(split)

    watch = Watchdog(wire.ranks.rank, STALL, abort)
    watch.at("evaluate")
    count = int(with_heartbeat(wire.agree, look, lambda: watch.at("evaluate")))
    found = score(wire, model.graph, split, count, lambda: watch.at("evaluate"))
    watch.stop()
    if wire.ranks.rank == 0:
        if as_json:
            print(json.dumps(asdict(found)))
        else:
            if bad.names:
                print(plain(f"--skip-bad {bad.most}: {bad}"))
            print(found.words(model.network.classes))
    return found


def _few(names: tuple[str, ...]) -> str:
    """Class names for a message."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
