"""All tests, those of one process and those of several ranks, with one summary: what `make test`
runs.

    python tests/every.py [--ranks 1,2,3,4] [folders of tests]

Tests of one process run side by side, except drills and jobs under SLURM.

Rank 0's pytest prints as it goes; what another rank's printed is shown where something failed on
it. A test counts once, however many parts ran it: as failed if it failed in one, as skipped if no
part ran it. The exit code is 0 if every part ended well on every rank.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("record.py")
QUIET = ("-qq", "--no-header", "--no-summary")
SEVERAL = ("tests/exchange", "tests/mpi", "tests/training")
"""Where tests are that run on any number of ranks."""
JOBS = tuple(Path(__file__).resolve().with_name(name) for name in ("drills", "jobs"))
"""Where tests start ranks on all cores, and look at times: these run one at a time."""
WORKERS = min(len(os.sched_getaffinity(0)), 4)
"""Tests side by side. Each keeps a core busy, mainly by compiling, and takes up to 2 GB."""


@dataclass
class Start:
    """A start of pytest."""

    name: str
    options: list[str]
    ranks: int = 0
    """0: without mpirun."""


@dataclass
class Part:
    """What became of one start of pytest, on all of its ranks."""

    start: Start
    seconds: float
    outcomes: dict[str, str] = field(default_factory=dict)
    """By test: the first of WORST_FIRST that a rank says."""
    reasons: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Sentences: what failed on which rank."""

    def add(self, rank: int, lines: list[dict[str, Any]]) -> bool:
        """Take what a rank has recorded; whether it ended well."""
        where = f" (rank {rank}, {self.start.name})" if self.start.ranks else ""
        failed = [line["test"] for line in lines if line.get("outcome") == "failed"]
        for line in lines:
            if line.get("outcome") in WORST_FIRST:
                test, outcome = line["test"], line["outcome"]
                self.outcomes[test] = worse(outcome, self.outcomes.get(test, outcome))
                if outcome == "skipped":
                    self.reasons[test] = line["reason"]
        self.failures += [f"{test}{where}" for test in dict.fromkeys(failed)]
        code = lines[-1].get("exit") if lines else None  # None: pytest has not ended
        if code is None:
            test = next((line["test"] for line in reversed(lines) if "test" in line), "the start")
            self.failures.append(f"{test}{where}: the process ended")
            self.outcomes[test] = "failed"
        elif code and not failed:
            self.failures.append(f"pytest ended with {code}{where}")
        return code == 0


WORST_FIRST = ("failed", "passed", "skipped")


def worse(one: str, other: str) -> str:
    return min(one, other, key=WORST_FIRST.index)


def starts(words: list[str], several: list[int]) -> Iterator[Start]:
    """Those for tests in some folders (none: all of them), on several numbers of ranks."""
    places = {word: Path(word.partition("::")[0]).resolve() for word in words or ["tests"]}
    within = [word for word, place in places.items() if any(map(place.is_relative_to, JOBS))]
    rest = [word for word in places if word not in within]
    above = [places[word] for word in rest]
    jobs = [*within, *(str(job) for job in JOBS if any(map(job.is_relative_to, above)))]
    if rest:
        apart = [f"--ignore={job}" for job in jobs]
        beside = ["-n", str(WORKERS), "--dist", "loadfile"] if WORKERS > 1 else []
        yield Start("1 process", [*rest, *apart, *beside])
    if jobs:
        yield Start("jobs", jobs)
    for ranks in several:
        name = f"{ranks} rank{'s' * (ranks > 1)}"
        yield Start(name, [*(words or SEVERAL), "--only-mpi"], ranks)


def run(start: Start, folder: Path) -> tuple[Part, bool]:
    """Run pytest; what became of it, and whether it was well."""
    name, ranks = start.name, start.ranks
    folder = folder / name
    folder.mkdir()
    words = [sys.executable, str(RECORD), str(folder), *QUIET, *start.options]
    if ranks:
        words = [mpirun(), "-n", str(ranks), *words]
    print(f"== {name}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(words)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # pytest has it, too, and ends
        code = process.wait()
    part = Part(start, time.monotonic() - began)
    well = code == 0
    for rank in range(max(ranks, 1)):
        record, printed = folder / f"{rank}.jsonl", folder / f"{rank}.txt"
        text = record.read_text() if record.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        if not part.add(rank, lines):
            well = False
            if printed.exists():
                print(f"-- rank {rank}, {name}\n{printed.read_text()}", flush=True)
    if not well and not part.failures:
        part.failures.append(f"{name}: {Path(words[0]).name} ended with {code}")
    return part, well


def mpirun() -> str:
    """The launcher beside this Python, or else PATH's."""
    return shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun"


def summary(parts: list[Part], missing: list[str]) -> str:
    """The one summary of all parts.

    missing: parts that were not run, because one before them failed.
    """
    outcomes: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for part in parts:
        for test, outcome in part.outcomes.items():
            outcomes[test] = worse(outcome, outcomes.get(test, outcome))
        reasons.update(part.reasons)
    count = Counter(outcomes.values())
    skipped = Counter(
        (group(test), reasons[test]) for test, outcome in outcomes.items() if outcome == "skipped"
    )
    seconds = sum(part.seconds for part in parts)
    found = ", ".join(f"{count[outcome]:,} {outcome}" for outcome in WORST_FIRST if count[outcome])
    lines = [f"{len(outcomes):,} tests in {seconds:,.0f} s: {found}"]
    for part in parts:
        ran = sum(outcome != "skipped" for outcome in part.outcomes.values())
        lines.append(f"  {part.start.name:9} {ran:6,} tests, {part.seconds:,.0f} s")
    lines += [f"  {name:9} not run" for name in missing]
    if skipped:
        lines.append("skipped")
        wide = max(len(where) for where, _ in skipped)
        for (where, why), times in sorted(skipped.items()):
            lines.append(f"  {times:6,}  {where:{wide}}  {' '.join(why.split())}")
    failures = [failure for part in parts for failure in part.failures]
    if failures:
        lines += ["failed", *(f"  {failure}" for failure in failures)]
    return "\n".join(lines)


def group(test: str) -> str:
    """The room that a test stands in: the folder of its file."""
    path = Path(test.partition("::")[0])
    return path.parent.name if len(path.parts) > 2 else path.name


def main(words: list[str]) -> int:
    several = [1, 2, 3, 4]
    if words[:1] == ["--ranks"]:
        several, words = [int(text) for text in words[1].split(",")], words[2:]
    todo = list(starts(words, several))
    parts: list[Part] = []
    well = True
    with tempfile.TemporaryDirectory() as folder:
        while todo and well:
            part, well = run(todo.pop(0), Path(folder))
            parts.append(part)
    print(f"\n{summary(parts, [start.name for start in todo])}")
    return 0 if well else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
