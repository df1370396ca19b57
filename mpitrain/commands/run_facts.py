"""The facts of a run in words: how it went, what was trained on what, and what to know of its
log."""

from __future__ import annotations

import collections
import datetime
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpitrain.commands.run_record import Record, number, table, words
from mpitrain.job.errors import DONE, STOPPED

NAMED = 20
"""Names of images that a page shows at most."""
NONE = "–"
"""What is not known, or not set."""


def lead(record: Record, name: str) -> str:
    """The run in one sentence."""
    start = record.start
    if not start:
        return f"{name}: a run whose start is not in the log."
    ranks = number(start.get("ranks"))
    data = record.setting("data") or "unknown data"
    return (
        f"{name}: {start.get('network', NONE)} on {data}, "
        f"{NONE if math.isnan(ranks) else _many(int(ranks), 'rank')}, exchange "
        f"{value_of(start.get('exchange'))}."
    )


def outcome(record: Record, now: float) -> dict[str, str]:
    steps, tests = record.steps, record.tests
    facts = {"state": _state(record, now)}
    if len(steps):
        epoch = steps["epoch"][-1] + 1
        facts["steps"] = f"{steps.step[-1]:,}" + (
            "" if math.isnan(epoch) else f", in epoch {epoch:.0f}"
        )
        smooth = steps.smoothed("loss")
        if smooth:
            facts["training loss"] = f"{smooth[-1][1]:.4f} ({mean_of(steps.window) or 'last step'})"
    if len(tests):
        images = tests["images"][-1]
        of = "" if math.isnan(images) else f" ({images:,.0f} images)"
        facts["last test"] = _test(record, len(tests) - 1) + of
        best = max(range(len(tests)), key=lambda place: known_or(tests["top1"][place], -math.inf))
        facts["best top-1"] = _test(record, best)
    speeds = record.usual("images_per_second")
    if speeds:
        facts["speed"] = (
            f"{statistics.median(speeds):,.{_digits(speeds)}f} images/s (median of steps; slowest "
            f"{min(speeds):,.{_digits(speeds)}f}, fastest {max(speeds):,.{_digits(speeds)}f})"
        )
    totals = record.usual("total")
    if totals:
        facts["a step took"] = f"{in_seconds(statistics.median(totals))} (median)"
    sent = record.usual("bytes_sent")
    if sent:
        facts["sent a step"] = f"{_bytes(statistics.fmean(sent))} by rank 0 (mean)"
    end = record.end or {}
    peak = number(end.get("peak_memory"))
    facts["peak memory"] = NONE if math.isnan(peak) else f"{_bytes(peak)}, all ranks together"
    took = number(end.get("seconds"))
    if not math.isnan(took):
        facts["time"] = in_seconds(took) + " after the last start" * (len(record.starts) > 1)
    hashes = words(end.get("weights_sha256"))
    if hashes:
        facts["weights"] = (
            f"the same on all ranks (sha256 {hashes[0][:12]})"
            if len(set(hashes)) == 1
            else "not the same on all ranks"
        )
    return facts | _events(record)


def _events(record: Record) -> dict[str, str]:
    """What happened on the way."""
    facts = {"checkpoints": "none"}
    if record.checkpoints:
        last = record.checkpoints[-1]
        took = number(last.get("seconds"))
        facts["checkpoints"] = (
            f"{len(record.checkpoints)} written, the last one after step {last['step']:,}"
            + ("" if math.isnan(took) else f" in {in_seconds(took)}")
            + f": {Path(str(last.get('path'))).name}"
        )
    facts["lost ranks"] = "none"
    if record.lost:
        facts["lost ranks"] = "; ".join(
            f"rank{'s' * (len(who := words(each.get('ranks'))) > 1)} {', '.join(who)} after step "
            f"{each.get('step', 0):,}, the other {each.get('left')} went on"
            for each in record.lost
        )
    facts["skipped images"] = "none"
    if record.skipped:
        named = ", ".join(list(record.skipped)[:NAMED])
        more = ", ..." * (len(record.skipped) > NAMED)
        facts["skipped images"] = f"{len(record.skipped):,}: {named}{more}"
    if record.stragglers:
        last = record.stragglers[-1]
        cost = number(last.get("cost"))
        facts["slow ranks"] = (
            f"rank {last['straggler']} held the others up at step {last.get('step', 0):,}"
            + ("" if math.isnan(cost) else f", by {100 * cost:.0f} % of a step")
            + f"; {_many(len(record.stragglers), 'notice')} in all"
        )
    return facts


def _state(record: Record, now: float) -> str:
    """How the run ended, or that it has not."""
    steps = record.steps.step
    at = f"step {steps[-1]:,}" if steps else f"step {record.start.get('step', 0):,}"
    if record.end is not None:
        step, code = record.end.get("step", 0), record.end.get("exit")
        said = {DONE: f"done after step {step:,}", STOPPED: f"stopped by a signal at step {step:,}"}
        goes_on = "; --resume goes on from its checkpoint" if code == STOPPED else ""
        if code == DONE and record.early:
            best = record.early.get("best_step")
            goes_on = f"; no score after step {best} was better (--patience)"
        if not isinstance(code, int):
            return f"ended at step {step:,}"
        return f"{said.get(code, f'failed at step {step:,}')} (exit code {code}){goes_on}"
    ago = "" if math.isnan(record.written) else f"; last event {date(record.written)}"
    if record.holder:
        seconds = max(now - record.written, 0)
        ago = "" if math.isnan(seconds) else f"; last event {in_seconds(seconds)} ago"
        return f"still running, at {at} ({record.holder}){ago}"
    if record.holder is None:
        return f"no end in the log, which stops at {at}: cut short, or running elsewhere{ago}"
    return f"cut short at {at}: there is no end in the log, and no process is in the folder{ago}"


def trained(record: Record) -> dict[str, str]:
    start, setting = record.start, record.setting
    devices = words(start.get("devices"))
    kinds = collections.Counter(device.partition(", cores ")[0] for device in devices)
    hosts = {host.partition("/")[0] for host in words(record.config.get("ranks", {}).get("hosts"))}
    versions = table(start.get("versions"))
    parameters = number(start.get("parameters"))
    count = "" if math.isnan(parameters) else f", {parameters:,.0f} parameters"
    why = setting("exchange_reason")
    return {
        "network": f"{start.get('network', NONE)}{count}",
        "data": value_of(setting("data")),
        "batch": f"{value_of(start.get('batch_size'))} images a step, all ranks together",
        "ranks": value_of(start.get("ranks"))
        + (f", on {_many(len(hosts), 'host')}: {', '.join(sorted(hosts))}" if hosts else ""),
        "devices": "; ".join(f"{count} × {kind}" for kind, count in kinds.items()) or NONE,
        "MPI": value_of(versions.get("mpi")),
        "exchange": value_of(start.get("exchange")) + (f" ({why})" if why else ""),
        "update": value_of(start.get("update")),
        "versions": ", ".join(
            f"{name} {version}" for name, version in versions.items() if name != "mpi"
        )
        or NONE,
        "started": _began(record),
    }


def _began(record: Record) -> str:
    times = [number(start.get("time")) for start in record.starts]
    if not times or math.isnan(times[0]):
        return NONE
    again = [
        f"after step {start.get('step', 0):,}" + " by SLURM" * bool(start.get("restarts"))
        for start in record.starts[1:]
    ]
    return date(times[0]) + (f"; went on {', '.join(again)}" if again else "")


def settings(record: Record) -> dict[str, str]:
    return {name: value_of(value) for name, value in record.config.get("run", {}).items()}


def places(record: Record) -> dict[str, str]:
    devices = words(record.start.get("devices"))
    hosts = words(record.config.get("ranks", {}).get("hosts"))
    hosts += [""] * (len(devices) - len(hosts))
    return {
        f"rank {rank}": device + (f" on {host.partition('/')[0]}" if host else "")
        for rank, (device, host) in enumerate(zip(devices, hosts, strict=False))
    }


def notes(records: Sequence[Record], names: Sequence[str]) -> Iterator[str]:
    """What a reader should know of the log itself."""
    for record, name in zip(records, names, strict=True):
        if not record.config:
            yield f"{name}: config.toml cannot be read, so settings are not shown."
        if not record.starts:
            yield f"{name}: the log has no start, so what was trained on what is not known."
        if record.damaged:
            lines = _many(record.damaged, "line")
            yield f"{name}: {lines} of log.jsonl cannot be read and were left out."
        if record.cut_short:
            yield f"{name}: the last line of log.jsonl is incomplete and was left out."
        wrong = [
            step
            for step, loss in zip(record.steps.step, record.steps["loss"], strict=True)
            if math.isnan(loss)
        ]
        if wrong:
            yield (
                f"{name}: the training loss is not a finite number in "
                f"{_many(len(wrong), 'step')}, first in step {wrong[0]:,}."
            )


# -- numbers and words
# --------------------------------------------------------------------------------------------------


def mean_of(window: int) -> str:
    """What a point of a smoothed curve is; empty where it is a single step."""
    return f"mean of {window:,} steps" if window > 1 else ""


def _test(record: Record, place: int) -> str:
    tests = record.tests
    found = [
        say(tests[column][place])
        for column, say in SCORES.items()
        if not math.isnan(tests[column][place])
    ]
    return f"{', '.join(found)} after step {tests.step[place]:,}"


SCORES: Mapping[str, Callable[[float], str]] = {
    "top1": lambda value: f"top-1 {100 * value:.2f} %",
    "top5": lambda value: f"top-5 {100 * value:.2f} %",
    "loss": lambda value: f"loss {value:.4f}",
}


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def known_or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _digits(values: Sequence[float]) -> int:
    """Decimals with which images/s of this size are shown."""
    return 0 if statistics.median(values) >= 100 else 1


def in_percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def in_seconds(seconds: float) -> str:
    """Seconds with a unit that a person would choose: 3.42 ms, 12.1 s, 2:05 h."""
    if math.isnan(seconds):
        return NONE
    if seconds < 1e-6:
        return "0 ms"
    if seconds < 0.9995:
        return f"{1000 * seconds:#.3g}".rstrip(".") + " ms"
    if seconds < 120:
        return f"{seconds:#.3g}".rstrip(".") + " s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,}:{minutes % 60:02d} h"


def _bytes(count: float) -> str:
    if not count:
        return "nothing"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            digits = 2 if count < 10 * size else 1 if count < 100 * size else 0
            return f"{count / size:,.{digits}f} {unit}"
    return f"{count:,.0f} bytes"


def date(seconds: float) -> str:
    """A time since 1970 in this computer's time zone."""
    try:
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return NONE


def value_of(value: Any) -> str:
    """A setting in words."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
