"""Every fault in every phase, for real: `python tests/drills/reliability.py` with the Python of the
MPI that is to be tried.

Writes what was seen to benchmarks/results/reliability-MPI.json, and docs/reliability.md from the
results of every MPI tried so far. Takes four to eight minutes an MPI. With the word `machines`
behind it: what befalls hosts, links, disks and memory, as root, to machines-MPI.json, in five more.
Exit code 1 if a cell is not as it should be.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import _pytest.outcomes
from hosts import Hosts, signal_ranks
from launcher import LONG, Job, Launch
from machine import fail, failing, fill, memory, mounted, unmount

from mpitrain.job.checkpoint import newest

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "reliability.md"
RANKS, LIMIT, SPARE = 3, 6, 10
FAULTS = {
    "kill": "kill -9",
    "segv": "segmentation fault",
    "stop": "SIGSTOP",
    "memory": "out of memory",
}
PHASES = ("compile", "scatter", "forward", "exchange", "update", "checkpoint", "evaluate")
RUN = (
    "lenet",
    "--exchange",
    "dynamic8",
    "--steps",
    4,
    "--checkpoint-every",
    1,
    "--evaluate-every",
    2,
    "--quiet",
    "--stall-seconds",
    LIMIT,
)
HEAD = """# What happens when a rank dies

LeNet on the digits, {ranks} ranks on one host, `--exchange dynamic8 --stall-seconds {limit}
--checkpoint-every 1`. A fault strikes rank 1 in its third step (while updating: rank 0, which alone
updates; while compiling: before the first). `python tests/drills/reliability.py` makes this page;
its cells are single runs.

- *kill -9*: the rank sends itself SIGKILL, which is what the system's out-of-memory killer does,
  too. *Segmentation fault*: it reads address 0. *SIGSTOP*: it stops itself. *Out of memory*: its
  address space is limited to 8 MiB more than it has, and it asks for memory until it gets none.
- Each cell: seconds from the fault to the end of the launcher, and the launcher's exit code. A
  stopped rank is noticed after {limit} s, `--stall-seconds` (600 if you do not say otherwise). All
  others are noticed at once.
- Buckets of the gradient are exchanged and applied beside the backward pass, so a fault there is
  named as *backward* or *exchange*, which is what the rank was doing.
- **!** marks a cell that took more than {spare} s beyond that, or in which no line named rank,
  phase and step of the fault, or after which the newest whole checkpoint was older than one step,
  or a process stayed behind. {wrong}

The line that names the cause comes from the rank itself, or, where it is dead or stopped, from a
process beside it (`mpitrain/watch/witness.py`), as

```text
mpitrain: rank 1 of 3, forward at step 2: died without a word: killed, or at fault in native code
mpitrain: rank 1 of 3, forward at step 2: stopped (SIGSTOP), the others waited for it
mpitrain: rank 1 of 3, forward at step 2: MemoryError
```

with ` on HOST` behind the number of ranks where there are several hosts. It is the last line of
mpitrain's but for a stopped rank, where other ranks' watchdogs may speak after it; launchers add
words of their own after ours. With several hosts processes beside the ranks ask each other, so that
only the first is named.
"""

TIMES = 3
ENDLESS = (*LONG, "--quiet", "--stall-seconds", LIMIT)
MACHINES = {
    "link": (
        "another host's link is cut",
        "no progress .*no answer from rank 1 of 3 on .*link is cut",
    ),
    "own link": (
        "the link of mpirun's host is cut",
        "no progress .*no answer from rank 1 of 3 on .*, rank 2 of 3 on ",
    ),
    "ranks": ("both ranks of a host are killed", "rank [12] of 4 on .*died without a word"),
    "host": ("all processes of a host are killed", "rank 1 of 3 on "),
    "stop": (
        "a rank that is alone on its host is stopped",
        "no progress .*rank 1 of 3 on .*stopped .SIGSTOP.; ending",
    ),
    "full": ("the disk fills up", "rank 0 of 2, .*cannot be written: No space left on device"),
    "error": (
        "the disk turns read-only",
        "rank 0 of 2, .*cannot be written: (Read-only file system|Input/output error)",
    ),
    "gone": ("the disk is unmounted", "rank 0 of 2, .*is not there any more"),
    "memory": (
        "the system kills a rank for want of memory",
        "rank 1 of 3, .*has just killed for want of memory",
    ),
}
"""What befalls, in words, and what the last line of mpitrain's must say."""
SECOND = """
## What happens when a host, a link, a disk or memory fails

LeNet on the digits, three lab hosts (network namespaces on one machine, links of 100 Mbit/s) with a
rank each, or two on the second; for disks two ranks on one host, for memory three with 2 GiB
together. `--exchange dynamic8 --stall-seconds {limit} --checkpoint-every 5`. A fault strikes after
the seventh step, {times} times: seconds from the fault to the end of the launcher, and its exit
code. `python tests/drills/reliability.py machines` makes this table.
**!** marks a cell that took more than {spare} s, and {limit} where nothing moves, or whose last
line of mpitrain's is not the cause with rank, phase and step, or after which no whole checkpoint of
step 5 or later was there, or a process stayed behind on a host. {wrong} Where the launcher's daemon
is killed with its host, launchers end at once with words of their own, and drop ours; Open MPI's
even with exit code 0. The log tells all the same: it has no `end`.
"""

BY_HAND = "\n## Going on without the dead\n"
"""Where the part of the page begins that is not this program's."""


def main() -> int:
    launch = Launch(lambda name: Path(tempfile.mkdtemp(prefix=name)))
    name = "mpich" if launch.exact else "openmpi"
    version = next(line.strip() for line in version_of(launch).splitlines() if line.strip())
    if sys.argv[1:] == ["machines"]:
        seen = [befall(launch, what) for what in MACHINES]
        facts = {"mpi": name, "launcher": version, "limit": LIMIT, "times": TIMES, "cells": seen}
        (RESULTS / f"machines-{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
        write_page()
        return int(any(cell["wrong"] for cell in seen))
    plain = launch(
        *RUN, ranks=RANKS, out=Path(tempfile.mkdtemp()) / "run"
    )  # compiles, if nobody has
    assert plain.code == 0, plain.err
    found: list[dict[str, Any]] = []
    for fault in FAULTS:
        for phase in PHASES:
            found.append(strike(launch, fault, phase))
            print(json.dumps(found[-1]), flush=True)
    facts = {
        "mpi": name,
        "launcher": version,
        "ranks": RANKS,
        "limit": LIMIT,
        "python": platform.python_version(),
        "cells": found,
    }
    (RESULTS / f"reliability-{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    write_page()
    return int(any(cell["wrong"] for cell in found))


def version_of(launch: Launch) -> str:
    said = subprocess.run(
        [launch.mpirun, "--version"], capture_output=True, text=True, check=False
    ).stdout
    version = re.search(r"Version:\s*(\S+)", said)
    return f"MPICH {version[1]}" if version else said


def strike(launch: Launch, fault: str, phase: str) -> dict[str, Any]:
    rank, step = (0 if phase == "update" else 1), (0 if phase == "compile" else 2)
    out = Path(tempfile.mkdtemp()) / "run"
    cell: dict[str, Any] = {"fault": fault, "phase": phase, "rank": rank, "step": step}
    try:
        ended = launch(
            *RUN,
            "--inject",
            f"kind={fault},rank={rank},step={step},phase={phase}",
            ranks=RANKS,
            out=out,
        )
    except (AssertionError, _pytest.outcomes.Failed) as error:
        return cell | {"wrong": [str(error)[:2000]]}
    struck = re.search(r"fault at ([\d.]+)", ended.err)
    said = [line for line in ended.sentences if f"rank {rank} of {RANKS}" in line]
    whole = newest(out)
    wrong = []
    if struck is None:
        wrong.append("the fault did not strike")
    seconds = round(ended.finished - float(struck[1]), 1) if struck else ended.seconds
    if seconds > SPARE + LIMIT * (fault == "stop"):
        wrong.append("late")
    # Buckets are exchanged and applied by a thread beside the backward pass: the rank says what its
    # main thread does.
    phases = ("backward", "exchange") if phase in ("exchange", "update") else (phase,)
    if not any(f"{each} at step {step}" in line for line in said for each in phases):
        wrong.append("rank, phase and step are not named")
    if fault != "stop" and ended.sentences and ended.sentences[-1] not in said:
        wrong.append("another line comes last")
    if step and (whole is None or int(whole.path.stem[5:]) < step - 1):
        wrong.append(f"newest whole checkpoint: {whole and whole.path.name}")
    if ended.code == 0:
        wrong.append("exit code 0")
    return cell | {"seconds": seconds, "exit": ended.code, "said": ended.sentences, "wrong": wrong}


def befall(launch: Launch, what: str) -> dict[str, Any]:
    """The same fault so many times: all that was seen."""
    cell: dict[str, Any] = {"fault": what, "seconds": [], "exit": [], "said": [], "wrong": []}
    for _ in range(TIMES):
        try:
            code, seconds, said, wrong = once(launch, what)
        except (AssertionError, _pytest.outcomes.Failed) as error:
            cell["wrong"].append(str(error)[:2000])
            continue
        cell["seconds"].append(round(seconds, 1))
        cell["exit"].append(code)
        cell["said"].append(said)
        cell["wrong"] += wrong
    print(json.dumps(cell), flush=True)
    return cell


def once(launch: Launch, what: str) -> tuple[int, float, list[str], list[str]]:
    """Exit code, seconds from the fault to the end, what mpitrain said, and what is wrong with
    that."""
    struck = 0.0
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp())
        home, words, ranks = place, list[object](), 2
        fault: Callable[[Job], object]
        if what in ("full", "gone"):
            home = stack.enter_context(mounted(place))
            fault = (lambda _: fill(home)) if what == "full" else (lambda _: unmount(home))
        elif what == "error":
            home = stack.enter_context(failing(place))
            fault = lambda _: fail(home)  # noqa: E731
        elif what == "memory":
            group, ranks = stack.enter_context(memory(2048)), 3
            words = [
                "sh",
                "-c",
                f'echo 0 > {group} && exec "$@"',
                "sh",
                launch.mpirun,
                "-n",
                3,
                *launch.mpitrain,
            ]
            fault = lambda _: None  # noqa: E731
        else:
            hosts = stack.enter_context(Hosts(3))
            words = [*hosts.program(launch, (1, 2, 1) if what == "ranks" else (1, 1, 1))]
            fault = {
                "link": lambda _: hosts.cut(1),
                "own link": lambda _: hosts.cut(0),
                "ranks": lambda job: signal_ranks(job, (1, 2), signal.SIGKILL),
                "host": lambda _: [
                    os.kill(process, signal.SIGKILL) for process in hosts.processes(1)
                ],
                "stop": lambda job: signal_ranks(job, (1,), signal.SIGSTOP),
            }[what]

        def meanwhile(job: Job) -> None:
            nonlocal struck
            job.wait_for_step(7)
            struck = time.time()
            fault(job)

        inject = ("--inject", "kind=oom,rank=1,step=7,phase=forward") if what == "memory" else ()
        more: dict[str, Any] = {"program": words} if words else {"ranks": ranks}
        ended = launch(*ENDLESS, *inject, out=home / "run", meanwhile=meanwhile, **more)
        whole = newest((place / "disk" if what == "gone" else home) / "run")
        if found := re.search(r"fault at ([\d.]+)", ended.err):
            struck = float(found[1])
        seconds = ended.finished - struck
        last = ended.sentences[-1] if ended.sentences else "nothing"
        wrong = []
        if seconds > SPARE + LIMIT * (what in ("link", "own link", "stop")):
            wrong.append("late")
        if not re.search(MACHINES[what][1], last) or " at step " not in last:
            wrong.append(f"said last: {last}")
        if whole is None or whole.settings["step"] < 5:
            wrong.append(f"newest whole checkpoint: {whole and whole.path.name}")
        if ended.code == 0:
            wrong.append("exit code 0")
        # As a shell tells a signal; hosts and folders by names that do not change.
        code = ended.code if ended.code >= 0 else 128 - ended.code
        said = [
            re.sub(r"\bd\d+h(\d)", r"host\1", line).replace(f"{place}/", "")
            for line in ended.sentences
        ]
        return code, seconds, said, wrong


def machines() -> str:
    """The second table; nothing where none has been made."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("machines-*.json"))]
    if not runs:
        return ""
    wrong = [
        f"{run['launcher']}, {MACHINES[cell['fault']][0]}: {'; '.join(sorted(set(cell['wrong'])))}"
        for run in runs
        for cell in run["cells"]
        if cell["wrong"]
    ]
    text = SECOND.format(
        limit=LIMIT,
        times=TIMES,
        spare=SPARE,
        wrong=f"There are: {'. '.join(wrong)}." if wrong else "There is none.",
    )
    text += (
        f"\n| fault | {' | '.join(run['launcher'] for run in runs)} |\n|---|{'---|' * len(runs)}\n"
    )
    cells = [{cell["fault"]: cell for cell in run["cells"]} for run in runs]
    for what, (words, _) in MACHINES.items():
        text += f"| {words} | {' | '.join(show_all(each[what]) for each in cells)} |\n"
    said = next((cell["said"][0][-1] for cell in runs[0]["cells"] if cell["fault"] == "link"), "")
    return text + f"\nThe last line after a cut link, for example:\n\n```text\n{said}\n```\n"


def show_all(cell: dict[str, Any]) -> str:
    mark = " **!**" if cell["wrong"] else ""
    if not cell["seconds"]:
        return f"did not end{mark}"
    codes = " or ".join(map(str, sorted(set(cell["exit"]))))
    times = " to ".join(
        f"{second:.1f}" for second in sorted({min(cell["seconds"]), max(cell["seconds"])})
    )
    return f"{times} s, {codes}{mark}"


def write_page() -> None:
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("reliability-*.json"))]
    wrong = [
        f"{run['launcher']}, {cell['fault']} in {cell['phase']}: {'; '.join(cell['wrong'])}"
        for run in runs
        for cell in run["cells"]
        if cell["wrong"]
    ]
    text = HEAD.format(
        ranks=RANKS, limit=LIMIT, spare=SPARE, wrong="There are:" if wrong else "There is none."
    )
    text = text.replace("There are:", f"There are: {'. '.join(wrong)}.")
    for run in runs:
        cells = {(cell["fault"], cell["phase"]): cell for cell in run["cells"]}
        text += f"\n## {run['launcher']}\n\n| fault | {' | '.join(PHASES)} |\n"
        text += f"|---|{'---|' * len(PHASES)}\n"
        for fault, words in FAULTS.items():
            shown = [show(cells[fault, phase]) for phase in PHASES]
            text += f"| {words} | {' | '.join(shown)} |\n"
    PAGE.write_text(text + machines() + BY_HAND + PAGE.read_text().partition(BY_HAND)[2])


def show(cell: dict[str, Any]) -> str:
    mark = " **!**" if cell["wrong"] else ""
    return (
        f"{cell['seconds']:.1f} s, {cell['exit']}{mark}" if "exit" in cell else f"did not end{mark}"
    )


if __name__ == "__main__":
    sys.exit(main())
