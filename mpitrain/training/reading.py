"""Who reads the images of a run: rank 0 for all, or each rank its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpitrain.data.bad import Bad
from mpitrain.data.decoded import DecodedSplit
from mpitrain.data.fingerprint import fingerprint
from mpitrain.data.source import Dataset, open_source
from mpitrain.job.config import Run, is_made_up, known
from mpitrain.job.errors import MpitrainError, UserError, agreed
from mpitrain.mpi.ranks import Ranks
from mpitrain.mpi.wire import Wire
from mpitrain.network import models
from mpitrain.runtime.device import Device


@dataclass(frozen=True)
class Reading:
    """What ranks have agreed on."""

    local: bool
    """Whether each rank reads its own part."""
    why: str
    photos: bool
    """Whether images must be decoded."""
    asked: bool = True
    """Whether ranks have compared what they see."""

    def words(self, ranks: int) -> str:
        """For the header; nothing where there is nothing to choose."""
        if ranks == 1 or not (self.photos or self.asked):
            return ""
        who = "each rank reads its own images" if self.local else "rank 0 reads images for all"
        return f"{who} ({self.why})"


def choose(run: Run, wire: Wire, data: Dataset | None) -> tuple[Reading, Dataset | None]:
    """Who reads, and the data on the ranks that do. Collective. data: on rank 0.

    Raises UserError on every rank where --read local cannot be.
    """
    return settle(wire, data, run.read, run.skip_bad, str(run.data), lambda: _open(run))


def settle(
    wire: Wire,
    data: Dataset | None,
    read: str,
    skip_bad: int,
    source: str,
    open_again: Callable[[], Dataset],
) -> tuple[Reading, Dataset | None]:
    """As `choose`, of settings by themselves. source: as it is named to the user. open_again: opens
    it on another rank."""
    facts = wire.agree.from_root(
        lambda: [
            data is not None and isinstance(data.train, DecodedSplit),
            _reason_for_root(read, skip_bad, data, source, wire.ranks),
        ]
    )
    photos, reason = bool(facts[0]), str(facts[1])
    if wire.ranks.size == 1:
        return Reading(True, "there is one", photos), data
    if reason:
        return Reading(False, reason, photos, asked=False), data
    words = ""
    if data is None:
        try:
            data = open_again()
        except MpitrainError as error:
            words = str(error)
    mine = fingerprint(data) if data else ""
    found = wire.agree.gather_facts([mine, words, wire.ranks.host.partition("/")[0]])
    first = found[0][0]
    for rank, (theirs, said, host) in enumerate(found):
        if theirs != first:
            why = f"rank {rank} on {host}: {said or f'{source} has other images there'}"
            if read == "local":
                raise agreed(UserError(f"--read local: {why}"))
            return Reading(False, why, photos), data if wire.ranks.rank == 0 else None
    return Reading(True, "all see the same", photos), data


def _reason_for_root(
    read: str, skip_bad: int, data: Dataset | None, source: str, ranks: Ranks
) -> str:
    """Why rank 0 reads without asking the others; "" if they are asked.

    Images that need no decoding cost a host next to nothing to hand out to its own ranks, and as
    much memory again for each rank that opens a file.
    """
    if read == "root":
        return "--read root"
    if skip_bad:
        if read == "local":
            raise UserError(
                "--read local: --skip-bad counts images on one rank; expected one of them"
            )
        return "--skip-bad counts them there"
    photos = data is not None and isinstance(data.train, DecodedSplit)
    if photos or read == "local":
        return ""
    if ranks.one_host:
        return "nothing to decode, and no link to cross"
    small = ranks.hosts == ranks.size or source == "digits" or is_made_up(source)
    return "" if small else "nothing to decode, and each rank of a host would hold all of it"


def _open(run: Run) -> Dataset:
    """The data of a run whose settings rank 0 has completed."""
    first = models.load(run.network, None, run.classes, dropout=not run.no_dropout)
    c, h, w = first.input_shape
    return open_source(
        known(run.data),
        shape_hint=(c, h, w),
        classes=run.classes,
        seed=run.seed,
        bad=Bad(run.skip_bad),
        layout=run.layout,
        side=run.resize,
        may_fetch=False,
    )


def use_threads(data: Dataset | None, wanted: int | None, device: Device, cores: int) -> None:
    """Have the data decoded by so many threads; None: as this rank's share of cores has room
    for."""
    for split in (data.train, data.test) if data else ():
        if isinstance(split, DecodedSplit):
            split.use_threads(wanted or decoders(device.kind, cores))


def decoders(kind: str, cores: int) -> int:
    """Threads for a rank that computes on such a device and has so many cores.

    A GPU leaves them all but the one that feeds it. A CPU computes on all of them: half as many
    threads decode beside that, and what they take shows as `data` in the log.
    """
    return max(1, cores - 1 if kind == "gpu" else (cores + 1) // 2)
