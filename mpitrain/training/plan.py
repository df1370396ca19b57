"""What all ranks have agreed on before the first step (Plan), and how far a run is (Progress)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mpitrain.job.config import Run, interval, known
from mpitrain.network.network import Network
from mpitrain.training.hooks.evaluate import Best, Scores
from mpitrain.training.prepare import Prepared
from mpitrain.training.reading import Reading
from mpitrain.training.schedule import learning_rate
from mpitrain.training.step import StepReport


@dataclass(frozen=True)
class Resumed:
    """What all ranks must know of the checkpoint that a run goes on from."""

    path: str
    step: int
    refused: list[str]
    """Newer files that could not be used, and why."""
    exchange: str
    ranks: int
    sub_batch: int | None = None
    coded_from: int | None = None
    longest_bucket: int | None = None
    split: list[str] | None = None
    """Tensors of which each rank kept a slice."""
    speeds: list[float] | None = None
    best: dict[str, Any] | None = None
    waited: int | None = None


@dataclass(frozen=True)
class Plan:
    """All that ranks have agreed on. It never changes."""

    run: Run
    """With every option known."""
    prepared: Prepared
    network: Network
    exchange: str
    """The kind of exchange that was chosen."""
    reason: str
    coded_from: int
    """Values from which on a bucket is coded."""
    longest_bucket: int
    """Values of a bucket at most, on which the order depends in which residuals are kept."""
    sub_batch: int
    """Images a rank computes at a time at most. It decides in which order gradients are added."""
    reading: Reading
    resumed: Resumed | None = None

    @property
    def batch_size(self) -> int:
        """Images a step, all ranks together."""
        return int(known(self.run.batch_size))

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.prepared.steps

    @property
    def begun(self) -> int:
        """Steps that had been done when this job began."""
        return self.resumed.step if self.resumed else 0

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.prepared.folder)

    @property
    def by_speed(self) -> bool:
        """Whether batches are divided by speed."""
        return self.run.balance == "speed"

    @property
    def simulated(self) -> bool:
        """Whether computing is slept: nothing is learnt, scored or saved."""
        return self.run.compute_seconds is not None

    @property
    def continues(self) -> bool:
        """Whether the other ranks go on when one dies."""
        return self.run.on_failure == "continue"

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, .."""
        run = self.run
        per_epoch = self.prepared.per_epoch
        warmup = interval(run.warmup, per_epoch, "--warmup", least=0)
        name, _, argument = run.schedule.partition(":")
        return learning_rate(step, self.steps, run.lr, name, warmup, argument, per_epoch)

    def every(self, name: str) -> int:
        """Steps between two of what an option such as checkpoint_every sets."""
        text = getattr(self.run, name)
        return interval(text, self.prepared.per_epoch, "--" + name.replace("_", "-"))

    def is_over(self, progress: Progress) -> bool:
        """Whether no further step follows: all are done, or a signal has asked for the end."""
        return self.is_done(progress) or progress.stop

    def is_done(self, progress: Progress) -> bool:
        """Whether all steps are done, or further ones would bring no better score."""
        return progress.step >= self.steps or progress.early

    def first(self) -> Progress:
        """How far the run is before this job's first step."""
        found, patience = self.resumed, self.run.patience
        if found is None:
            return Progress(0)
        waited = found.waited or 0
        best = Best(**found.best) if found.best else None
        early = patience is not None and waited >= patience
        return Progress(found.step, best=best, waited=waited, early=early)


@dataclass(frozen=True)
class Progress:
    """How far a run is: replaced, never changed."""

    step: int
    """Steps that all ranks have done."""
    loss: float = math.nan
    """Mean over the batch of the last step."""
    stop: bool = False
    """Whether a signal has asked for the end."""
    settled: bool = True
    """Whether the hooks of this step have run."""
    done: Mapping[str, int] = field(default_factory=dict)
    """Hook -> the step after which it ran last."""
    scores: Scores | None = None
    """On the test images, when they were last scored."""
    best: Best | None = None
    """The best of all scores."""
    waited: int = 0
    """Evaluations since then."""
    early: bool = False
    """Whether the run ends because no better score came for long."""
    hashes: tuple[str, ...] = ()
    """Of each rank's weights, at the end."""
    last: StepReport | None = None
    """This rank's report of the last step of this job."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What hooks add to the last step's line in the log."""

    def after(self, report: StepReport) -> Progress:
        """One more step is done; its hooks have not run yet."""
        return replace(
            self,
            step=report.step,
            loss=report.loss,
            stop=report.stop,
            settled=False,
            last=report,
            notes={},
        )

    def ran(self, hook: str) -> Progress:
        """A hook has run after this step."""
        return replace(self, done={**self.done, hook: self.step})

    def as_json(self) -> dict[str, Any]:
        """What other ranks need of rank 0's progress."""
        return asdict(replace(self, last=None, notes={}))

    def as_first_rank(self, facts: dict[str, Any]) -> Progress:
        """Rank 0's progress, with this rank's own report of the last step."""
        scores, hashes = facts["scores"], tuple(facts["hashes"])
        best = Best(**facts["best"]) if facts["best"] else None
        scored = Scores(**scores) if scores else None
        told = {**facts, "scores": scored, "best": best, "hashes": hashes}
        return Progress(**{**told, "last": self.last, "notes": {}})
