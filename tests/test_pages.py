"""What README.md, CONTRIBUTING.md and docs/ say is there: options, commands, files and links."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from mpitrain.commands import cli
from mpitrain.network import models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = {
    name
    for command in cli.commands.commands.values()
    for option in command.params
    if isinstance(option, click.Option)
    for name in option.opts
} | {"--help", "--version"}
OTHERS = {
    "mpirun": {"--bind-to", "--with-ft"},
    "SLURM": {
        "--account",
        "--me",
        "--kill-on-bad-exit",
        "--ntasks-per-node",
        "--output",
        "--exclusive",
    },
    "env of coreutils": {"--ignore-signal"},
    "pytest": {"--only-mpi", "--devices"},
    "benchmarks": {
        "--exchanges",
        "--fashion",
        "--lab",
        "--limit",
        "--link",
        "--links",
        "--per-host",
    },
}
"""Options of other programs that pages name."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text()))
    assert named - OURS - set().union(*OTHERS.values()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_files_and_links_of_a_page_are_there(page: Path) -> None:
    text = page.read_text()
    for word in re.findall(r"`(?:mpirun [^`\n]*)?mpitrain ([a-z]\w*)", text):
        assert word in cli.commands.commands or word in models.NAMES, word
    for name in re.findall(
        r"\b((?:benchmarks|tests|jobs|docs)/[\w/-]+\.(?:py|md|sh|sbatch|txt))", text
    ):
        assert "NAME" in name or (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
