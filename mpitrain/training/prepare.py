"""What rank 0 finds out before a run begins, and every rank must know: the data's shape, the number
of steps, where files go."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpitrain.data import augment
from mpitrain.data.bad import Bad
from mpitrain.data.decoded import DecodedSplit
from mpitrain.data.order import steps_per_epoch
from mpitrain.data.source import Dataset, open_source
from mpitrain.data.well_known import KNOWN
from mpitrain.exchange.registry import find
from mpitrain.job import toml
from mpitrain.job.config import Run, is_made_up, kept, known, numbers
from mpitrain.job.errors import UserError
from mpitrain.job.plain import plain
from mpitrain.job.run_folder import Hold, make_new
from mpitrain.network import models
from mpitrain.network.memory import infer_shapes

ENDLESS = 1 << 62


@dataclass(frozen=True)
class Prepared:
    """Facts of a run that come from its data and its disk, small enough to tell every rank."""

    settings: dict[str, Any]
    """Options that were left to the network or the data, now known."""
    shape: tuple[int, int, int]
    classes: int
    dtype: str
    count: int
    """Training images."""
    identity: str
    """Of the training images."""
    tests: int
    """Test images, 0 for none."""
    mean: list[float]
    std: list[float]
    per_epoch: int
    """Steps in an epoch."""
    steps: int
    """Steps of the whole run."""
    folder: str
    """The run directory."""

    @classmethod
    def of_json(cls, facts: dict[str, Any]) -> Prepared:
        c, h, w = facts["shape"]
        return cls(**{**facts, "shape": (c, h, w)})

    def complete(self, run: Run) -> Run:
        """The run with everything said."""
        return replace(run, **self.settings)


def look(run: Run, ranks: int, alive: Callable[[], None], hold: Hold) -> tuple[Prepared, Dataset]:
    """Check a run against the network, the data and the disk, and call alive() meanwhile. From then
    on the run holds its directory.

    Raises UserError for one that cannot be; nothing is overwritten.
    """
    if run.exchange != "auto":
        find(run.exchange)  # refuses a name that is none
    first = models.load(run.network, None, run.classes, dropout=not run.no_dropout)
    run = run.completed(dict(first.defaults))
    ways = augment.parse(run.augment)
    c, h, w = first.input_shape
    bad = Bad(
        run.skip_bad,
        alive,
        lambda line: None if run.quiet or run.json else print(plain(line), flush=True),
    )
    data = open_source(
        known(run.data),
        shape_hint=(c, h, w),
        classes=run.classes,
        seed=run.seed,
        bad=bad,
        layout=run.layout,
        side=run.resize,
    )
    scored = f"--patience {run.patience}" if run.patience else f"--keep {run.keep}"
    if not data.test and (run.patience or kept(run.keep)[1]):
        raise UserError(f"{scored}: {known(run.data)} has no test images to score")
    check_looks(run, ways, data)
    batch_size = known(run.batch_size)
    if batch_size < ranks:
        raise UserError(f"--batch-size {batch_size}: {ranks} ranks need at least one image each")
    per_epoch = steps_per_epoch(len(data.train), batch_size)
    by_steps = ENDLESS if run.steps is None else run.steps
    by_epochs = ENDLESS if run.epochs is None else run.epochs * per_epoch
    infer_shapes(models.load(run.network, data.shape, data.classes, dropout=not run.no_dropout))
    found = Prepared(
        settings={
            "data": _absolute(known(run.data)),
            **{
                name: getattr(run, name)
                for name in ("batch_size", "weight_decay", "steps", "epochs")
            },
        },
        shape=data.shape,
        classes=data.classes,
        dtype=str(data.train.dtype),
        count=len(data.train),
        identity=data.train.identity(),
        tests=len(data.test) if data.test else 0,
        mean=numbers(run.mean, data.shape[0], "--mean") if run.mean else data.mean.tolist(),
        std=numbers(run.std, data.shape[0], "--std", above=0.0) if run.std else data.std.tolist(),
        per_epoch=per_epoch,
        steps=min(by_steps, by_epochs),
        folder=str(_folder(run, hold)),
    )
    return found, data


def check_looks(run: Run, ways: frozenset[str], data: Dataset) -> None:
    """Raise UserError for ways to look at images that these do not have."""
    if run.resize is not None:
        if not isinstance(data.train, DecodedSplit):
            raise UserError(
                f"--resize {run.resize}: only photos (a folder of class folders, shards) are "
                f"scaled, got {run.data}"
            )
        if run.resize < max(data.shape[1:]):
            raise UserError(
                f"--resize {run.resize}: expected at least {max(data.shape[1:])}, of which "
                f"{run.network} sees a part"
            )
    if "jitter" in ways and data.train.dtype != np.uint8:
        raise UserError("--augment jitter: expected uint8 images, which have a black and a white")


def _absolute(data: str) -> str:
    """Data as a checkpoint can name them: it may be looked at from another folder."""
    words = data == "digits" or data in KNOWN or is_made_up(data)
    return data if words else str(Path(data).absolute())


def _folder(run: Run, hold: Hold) -> Path:
    """The run directory, held: --out, that of the checkpoint to resume, or a new one named by
    network and time."""
    resumed = Path(run.resume).resolve() if run.resume and run.resume != "newest" else None
    if resumed and not resumed.is_file():
        raise UserError(f"--resume {resumed}: there is no such file")
    home = resumed.parent.parent if resumed and resumed.parent.name == "checkpoints" else None
    if run.out is None and run.resume and home is None:
        raise UserError(
            f"--resume {run.resume}: say with --out DIR in which run directory to go on"
        )
    try:
        if run.out is None and not run.resume:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            folder = make_new(Path("runs") / f"{Path(run.network).stem}-{stamp}")
        else:
            folder = Path(run.out) if run.out else known(home)
            _check_free(folder, home, run)
            folder.mkdir(parents=True, exist_ok=True)
        hold.take(folder)
        _check_free(folder, home, run)  # a run may have come and gone since
        hold.sign()
    except OSError as error:
        place = f"--out {run.out or error.filename}"
        raise UserError(f"{place} cannot be made: {error.strerror}") from None
    return folder


def _check_free(folder: Path, home: Path | None, run: Run) -> None:
    """Raise UserError if another run has left its log in `folder`.

    home: the run directory of the checkpoint to resume.
    """
    goes_on = (
        run.resume == "newest"
        or (home is not None and home == folder.resolve())
        or _branched(folder, run)
    )
    if (folder / "log.jsonl").exists() and not goes_on:
        raise UserError(
            f"--out {folder}: there is a run in it already; --resume goes on with it, another "
            "--out starts anew"
        )


def _branched(folder: Path, run: Run) -> bool:
    """Whether the run in `folder` began from the checkpoint that this one is told to resume: a job
    that is started again with the same words."""
    try:
        began = toml.parse((folder / "config.toml").read_text())["run"]["resume"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(began == run.resume)
