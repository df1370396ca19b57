"""`mpitrain watch RUN`: how a run goes that is computed elsewhere, as under SLURM."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mpitrain.commands.run_facts import in_seconds, lead, outcome
from mpitrain.commands.run_record import Record, number, read, read_on
from mpitrain.job.errors import DONE, FAILED, UserError
from mpitrain.job.plain import plain

ROWS = (
    "state", "steps", "to go", "training loss", "last test", "best top-1", "speed", "checkpoints",
    "lost ranks", "skipped images", "slow ranks",
)  # fmt: skip
"""What is shown, of what is known; "none" is not."""
RECENT = 50
"""Steps from whose median time the time to go follows."""
LOST_SECONDS = 30.0
"""A run whose log has no end, that no process of this host holds and that has been silent for so
long is given up."""


def watch(folder: Path, every: float, once: bool) -> int:
    """Show the run until it ends, or once; on a terminal in place, else what has changed.

    every: seconds between two looks. Returns the run's exit code where it has ended. Raises
    UserError where there is no run, with `once`; else waits for it.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    record = read(folder) if once else _when_there(folder, every, console)
    console.print(plain(lead(record, record.name)))
    if once:
        console.print(_table(facts(record, time.time())))
        return DONE
    return _follow(record, every, console)


def facts(record: Record, now: float) -> Mapping[str, str]:
    """The rows to show, by their names."""
    found = outcome(record, now)
    if left := _left(record):
        found["to go"] = left
    return {name: found[name] for name in ROWS if found.get(name, "none") != "none"}


def _when_there(folder: Path, every: float, console: Console) -> Record:
    """The run, as soon as its log has an event."""
    said = False
    while True:
        try:
            return read(folder)
        except UserError as error:
            if not said:
                words = str(error) if folder.exists() else f"{folder} is not there yet"
                console.print(plain(f"{words}; waiting for it (Ctrl-C ends this)"))
            said = True
        time.sleep(every)


def _follow(record: Record, every: float, console: Console) -> int:
    before: Mapping[str, str] = {}
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            now = facts(record, time.time())
            if console.is_terminal:
                live.update(_table(now), refresh=True)
            else:
                for name in now:
                    if name not in ("state", "to go", "speed") and now[name] != before.get(name):
                        console.print(plain(f"{name}: {now[name]}"))
            before = now
            if record.end is not None:
                code = record.end.get("exit")
                console.print(plain(now["state"]) if not console.is_terminal else "")
                return code if isinstance(code, int) else FAILED
            if record.holder == "" and time.time() - record.written > LOST_SECONDS:
                console.print(plain(now["state"]) if not console.is_terminal else "")
                return FAILED
            time.sleep(every)
            read_on(record)


def _left(record: Record) -> str:
    """The time until the last step, in words; empty where it is not known."""
    steps, planned = record.steps, number(record.start.get("steps"))
    recent = [each for each in steps["total"][-RECENT:] if each > 0]
    if record.end is not None or not recent or not planned > steps.step[-1]:
        return ""
    left = (planned - steps.step[-1]) * statistics.median(recent)
    share = 100 * steps.step[-1] / planned
    return f"about {in_seconds(left)} of computing; {share:.0f} % of {planned:,.0f} steps are done"


def _table(rows: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, plain(value))
    return table
