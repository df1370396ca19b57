"""Every fault in every phase, for real: `python tests/drills/reliability.py` with the Python of the MPI that is to be tried.

Writes what was seen to benchmarks/results/reliability-MPI.json, and docs/reliability.md from the results of every MPI tried so far.
Takes four to eight minutes an MPI. Exit code 1 if a cell is not as it should be.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _pytest.outcomes
from launcher import Launch

from mpitrain.checkpoint import newest

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "reliability.md"
RANKS, LIMIT, SPARE = 3, 6, 10
FAULTS = {"kill": "kill -9", "segv": "segmentation fault", "stop": "SIGSTOP", "memory": "out of memory"}
PHASES = ("compile", "scatter", "forward", "exchange", "update", "checkpoint", "evaluate")
RUN = ("lenet", "--exchange", "dynamic8", "--steps", 4, "--checkpoint-every", 1, "--evaluate-every", 2, "--quiet", "--stall-seconds", LIMIT)  # fmt: skip
HEAD = """# What happens when a rank dies

LeNet on the digits, {ranks} ranks on one host, `--exchange dynamic8 --stall-seconds {limit} --checkpoint-every 1`. A fault strikes rank 1 in its third step (while
updating: rank 0, which alone updates; while compiling: before the first). `python tests/drills/reliability.py` makes this page; its cells are single runs.

- *kill -9*: the rank sends itself SIGKILL, which is what the system's out-of-memory killer does, too. *Segmentation fault*: it reads address 0.
  *SIGSTOP*: it stops itself. *Out of memory*: its address space is limited to 8 MiB more than it has, and it asks for memory until it gets none.
- Each cell: seconds from the fault to the end of the launcher, and the launcher's exit code. A stopped rank is noticed after {limit} s, `--stall-seconds`
  (600 if you do not say otherwise). All others are noticed at once.
- Buckets of the gradient are exchanged and applied beside the backward pass, so a fault there is named as *backward* or *exchange*, which is what
  the rank was doing.
- **!** marks a cell that took more than {spare} s beyond that, or in which no line named rank, phase and step of the fault, or after which the newest
  whole checkpoint was older than one step, or a process stayed behind. {wrong}

The line that names the cause comes from the rank itself, or, where it is dead or stopped, from a process beside it (`mpitrain/witness.py`), as

```
mpitrain: rank 1 of 3, forward at step 2: died without a word: killed, or at fault in native code
mpitrain: rank 1 of 3, forward at step 2: stopped (SIGSTOP), the others waited for it
mpitrain: rank 1 of 3, forward at step 2: MemoryError
```

with ` on HOST` behind the number of ranks where there are several hosts. It is the last line of mpitrain's but for a stopped rank, where other ranks' watchdogs may speak
after it; launchers add words of their own after ours. With several hosts processes beside the ranks ask each other, so that only the first is named.
"""

TAIL = """
## Spoilt bytes

`python tests/hostile.py message 1000000` and `python tests/hostile.py files 100000`: messages, checkpoints, IDX, CIFAR and .npz files, images of six
formats and network files, cut, flipped, repeated and with odd numbers in them, the same bytes every time, in 4 GiB of address space. Seen: none
crashed; 995,674 messages and 86,838 files were refused in a sentence. The messages and checkpoints that were taken had come out as they were; in the
other files pixels, labels or words had changed, which nothing protects. `make test` runs 150 of each kind.
"""


def main() -> int:
    launch = Launch(lambda name: Path(tempfile.mkdtemp(prefix=name)))
    name = "mpich" if launch.exact else "openmpi"
    plain = launch(*RUN, ranks=RANKS, out=Path(tempfile.mkdtemp()) / "run")  # compiles, if nobody has
    assert plain.code == 0, plain.err
    found: list[dict[str, Any]] = []
    for fault in FAULTS:
        for phase in PHASES:
            found.append(strike(launch, fault, phase))
            print(json.dumps(found[-1]), flush=True)
    version = next(line.strip() for line in version_of(launch).splitlines() if line.strip())
    facts = {"mpi": name, "launcher": version, "ranks": RANKS, "limit": LIMIT, "python": platform.python_version(), "cells": found}  # fmt: skip
    (RESULTS / f"reliability-{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    write_page()
    return int(any(cell["wrong"] for cell in found))


def version_of(launch: Launch) -> str:
    said = subprocess.run([launch.mpirun, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Version:\s*(\S+)", said)
    return f"MPICH {version[1]}" if version else said


def strike(launch: Launch, fault: str, phase: str) -> dict[str, Any]:
    rank, step = (0 if phase == "update" else 1), (0 if phase == "compile" else 2)
    out = Path(tempfile.mkdtemp()) / "run"
    cell: dict[str, Any] = {"fault": fault, "phase": phase, "rank": rank, "step": step}
    try:
        ended = launch(*RUN, "--inject", f"kind={fault},rank={rank},step={step},phase={phase}", ranks=RANKS, out=out)  # fmt: skip
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
    # Buckets are exchanged and applied by a thread beside the backward pass: the rank says what its main thread does.
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


def write_page() -> None:
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("reliability-*.json"))]
    wrong = [f"{run['launcher']}, {cell['fault']} in {cell['phase']}: {'; '.join(cell['wrong'])}" for run in runs for cell in run["cells"] if cell["wrong"]]  # fmt: skip
    text = HEAD.format(
        ranks=RANKS, limit=LIMIT, spare=SPARE, wrong="There are:" if wrong else "There is none."
    )
    text = text.replace("There are:", f"There are: {'. '.join(wrong)}.")
    for run in runs:
        cells = {(cell["fault"], cell["phase"]): cell for cell in run["cells"]}
        text += f"\n## {run['launcher']}\n\n| fault | {' | '.join(PHASES)} |\n|---|{'---|' * len(PHASES)}\n"
        for fault, words in FAULTS.items():
            shown = [show(cells[fault, phase]) for phase in PHASES]
            text += f"| {words} | {' | '.join(shown)} |\n"
    PAGE.write_text(text + TAIL)


def show(cell: dict[str, Any]) -> str:
    mark = " **!**" if cell["wrong"] else ""
    return f"{cell['seconds']:.1f} s, {cell['exit']}{mark}" if "exit" in cell else f"did not end{mark}"


if __name__ == "__main__":
    sys.exit(main())
