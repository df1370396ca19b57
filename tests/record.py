"""pytest on one rank, with what became of each test written to a file: what tests/every.py starts.

    [mpirun -n N] python tests/record.py FOLDER [options of pytest]

FOLDER/RANK.jsonl has a line when a test starts, a line for each of its outcomes, and at the end
pytest's exit code. What pytest prints on ranks other than 0 goes to FOLDER/RANK.txt. A failure is
printed when it happens, not at the end, which a rank may not see.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")


class Recorder:
    """A plugin of pytest that writes a JSON line for each event, at once: a rank may die."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._terminal: TerminalReporter | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._terminal = session.config.pluginmanager.get_plugin("terminalreporter")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep pytest-mpi from its page about MPI, which every rank would print."""
        plugins = session.config.pluginmanager
        for plugin in plugins.get_plugins():
            if type(plugin).__name__ == "MPIPlugin":
                plugins.unregister(plugin)

    def write(self, **facts: Any) -> None:
        self._file.write(json.dumps(facts) + "\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(test=nodeid, outcome="started")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.write(test=report.nodeid, outcome=report.outcome, reason=reason(report))
            self._show(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(test=report.nodeid, outcome="failed", reason="")
            self._show(report)

    def _show(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """What pytest's own summary says of a failure."""
        if report.failed and self._terminal:
            self._terminal.ensure_newline()
            self._terminal.write_sep("_", report.nodeid, red=True, bold=True)
            self._terminal.write_line(report.longreprtext)
            for title, text in report.sections:
                self._terminal.write_sep("-", title)
                self._terminal.write(text)


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped; nothing for other outcomes."""
    if not report.skipped:
        return ""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def main(folder: Path, options: list[str]) -> int:
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
    if rank != "0":
        os.dup2(os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    recorder = Recorder(folder / f"{rank}.jsonl")
    # Of its own: in pytest's numbered folders ranks that clear old ones away disturb each other.
    with tempfile.TemporaryDirectory(prefix="tests-", ignore_cleanup_errors=True) as base:
        options = [*options, f"--basetemp={base}/{rank}"]
        code = int(pytest.main(options, plugins=[recorder]))
    recorder.write(exit=code)
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # as `python -m pytest` does
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
