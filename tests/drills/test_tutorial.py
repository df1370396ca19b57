"""The tutorial as a newcomer follows it: each block of commands in order, in one folder, and what
it prints; and what README.md shows of the first command and of the library.

A comment in the line before a block says what else is to be done with it. `until Ctrl-C` ends it so
once it has printed its first line, and `exit 1` expects that code. `run by FILE` names who runs it,
and `not run: REASON` leaves it to tests/test_pages.py, which looks at its form.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launcher import OPEN_MPI, Ended, Launch
from pages import ROOT, Block, blocks

TUTORIAL, README = ROOT / "docs/tutorial.md", ROOT / "README.md"
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
MARKS = re.compile(r"|until Ctrl-C|exit \d+|not run: .+|run by (?P<file>\S+)")
AT_TIMES = r"(?:(?:{})\n)*".format(
    "|".join((
        "", "Train: .*", "step 0: rank .* longer; .*", "compiling kernels .*", "PoCL computes, .*",
        r"\[\S+\] .*",
    ))
)  # fmt: skip
"""Lines that a run may print as well: by how long its steps take, by what is installed, and Open
MPI's own."""
SECONDS = 120
"""For one block, on cores that others use as well."""
LIBRARY = """
import mpitrain
from mpi4py import MPI
import numpy as np
images, vector, comm = np.zeros((2, 1, 28, 28), np.uint8), np.ones(5, np.float32), MPI.COMM_WORLD
{block}
assert probabilities.shape == (2, 10) and (mean == 1).all() and result.exit_code == 0
"""


def environment(launch: Launch) -> dict[str, str]:
    """The shell's, with the programs of this Python ahead, as in an activated environment."""
    path = f"{Path(sys.executable).parent}:{Path(launch.mpirun).parent}:{os.environ['PATH']}"
    return {**os.environ, **OPEN_MPI, "PATH": path, "TERM": "dumb", "COLUMNS": "120"}


def form(line: str) -> str:
    """A line with its numbers made alike, and without the time that is left, if any."""
    return NUMBER.sub("0", " ".join(re.sub(r" \S+ left$", "", line).split()))


def shown(expected: str, printed: str) -> str | None:
    """The first line of a page's text that a command did not print, or None.

    `...` stands for any words, and alone for any lines; numbers are not compared.
    """
    text = "".join(form(line) + "\n" for line in printed.splitlines())
    pattern = "(?:.*\n)*?"
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += "(?:.*\n)*?"
        else:
            pattern += AT_TIMES + ".*".join(map(re.escape, form(line).split("..."))) + "\n"
        if not re.match(pattern, text):
            return line
    return None


def run(block: Block, folder: Path, variables: dict[str, str]) -> str:
    """What a block prints, on stdout and stderr."""
    text = block.text
    if block.mark == "until Ctrl-C":
        return interrupted(text.strip(), folder, variables)
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=variables, timeout=SECONDS, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    code = int(block.mark.removeprefix("exit ") or 0)
    launchers = {code} if code == 0 else set(range(1, 256))
    assert done.returncode in launchers, f"line {block.line}: {done.returncode}: {done.stdout}"
    return done.stdout


def _can_stop() -> None:
    """A shell's background jobs, and so tests that run in one, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(command: str, folder: Path, variables: dict[str, str]) -> str:
    """The first line of a command that goes on until Ctrl-C; a page of its own port, unseen."""
    words = [*command.split(), "--no-browser", "--port", "0"]
    with subprocess.Popen(
        words, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, preexec_fn=_can_stop
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    return line


@pytest.mark.timeout(600)
def test_every_command_of_the_tutorial_works_and_prints_what_it_says(
    launch: Launch, tmp_path: Path
) -> None:
    variables = environment(launch)
    page = blocks(TUTORIAL)
    ran = 0
    for number, block in enumerate(page):
        mark = MARKS.fullmatch(block.mark)
        assert mark, f"line {block.line}: {block.mark}"
        assert not mark["file"] or (ROOT / mark["file"]).exists(), block.mark
        if block.kind != "sh" or block.mark.startswith(("run by", "not run")):
            continue
        printed, ran = run(block, tmp_path, variables), ran + 1
        behind = page[number + 1] if number + 1 < len(page) else block
        if behind.kind == "text" and not behind.mark:
            missing = shown(behind.text, printed)
            assert missing is None, f"line {block.line} did not print {missing!r}:\n{printed}"
    assert ran > 12
    assert (tmp_path / "both.html").stat().st_size > 10_000
    assert (tmp_path / "runs/scaling/curve.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "lenet.onnx").exists()


def test_the_first_page_shows_what_the_first_command_prints(digits_run: Ended) -> None:
    (text,) = [each.text for each in blocks(README) if each.text.startswith("mpitrain 0")]
    machine = r"AMD.*OpenCL\)|MPICH.*|(?<=sha256 )\w+|run in.*"
    assert shown(re.sub(machine, "...", text), digits_run.out) is None


def test_the_library_works_as_the_first_page_has_it(digits_run: Ended, tmp_path: Path) -> None:
    (text,) = [each.text for each in blocks(README) if each.kind == "python"]
    assert digits_run.folder is not None
    (path,) = re.findall(r'"(runs/[^"]+)/checkpoints', text)
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).symlink_to(digits_run.folder)
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY.format(block=text)], cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_line_that_is_not_printed_is_found() -> None:
    said = "a 1\nTrain: 3\nb 2.5 s\nc\nd (e)\n"
    assert shown("a 7\nb 3 s\n", said) is None
    assert shown("...\nd (...)\n", said) is None and shown("a 1\n...\nd ...\n", said) is None
    assert shown("a 1\nc\n", said) == "c"
    assert shown("b 1 s\na 1\n", said) == "a 1"
    assert shown("b x\n", said) == "b x"
