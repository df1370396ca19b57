"""What README.md, CONTRIBUTING.md and docs/ say is there: options, commands, files and links; and
each command has a form that the command line takes. drills/test_tutorial.py runs the tutorial's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest
from pages import KINDS, PAGES, ROOT, Block, blocks, check, commands, first_word, inline

from mpitrain.commands import cli, guide
from mpitrain.job import recipe
from mpitrain.job.config import Run
from mpitrain.job.errors import MpitrainError
from mpitrain.network import models

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
        "--job-name",
        "--signal",
        "--me",
        "--kill-on-bad-exit",
        "--ntasks-per-node",
        "--output",
        "--exclusive",
    },
    "env of coreutils": {"--ignore-signal"},
    "pytest": {"--only-mpi", "--devices"},
    "benchmarks": {
        *("--exchanges", "--fashion", "--lab", "--limit", "--link", "--links", "--methods"),
        *("--more", "--name", "--per-host", "--seconds", "--torch-python"),
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


def blocks_of(kind: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.name}-{block.line}")
        for page in PAGES
        for block in blocks(page)
        if block.kind == kind
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_fence_says_what_it_holds(page: Path) -> None:
    found = blocks(page)
    assert len(found) == page.read_text().count("```") / 2
    assert {block.kind for block in found} <= set(KINDS)


@pytest.mark.parametrize("block", blocks_of("sh"))
def test_commands_of_a_block_can_be_typed_so(block: Block) -> None:
    found = list(commands(block.text))
    assert found
    for words in found:
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_can_be_typed_so(page: Path) -> None:
    for line in inline(page):
        for words in commands(line):
            check(words, whole=False)


@pytest.mark.parametrize("command", guide.EXAMPLES)
def test_examples_of_help_can_be_typed_so(command: str) -> None:
    text = re.sub(r"   +[a-z].*$", "", guide.EXAMPLES[command], flags=re.MULTILINE)
    for words in commands(text):
        assert command in words or command == "train", words
        check(words)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").iterdir()), ids=lambda path: path.name)
def test_commands_in_a_job_scripts_comments_can_be_typed_so(path: Path) -> None:
    lines = [line.strip("# ") for line in path.read_text().splitlines() if line.startswith("#  ")]
    found = [re.split("   +", line)[0] for line in lines if first_word(line) in ("sbatch", "bash")]
    assert found
    for line in found:
        for words in commands(line):
            check(words)


@pytest.mark.parametrize("block", blocks_of("python"))
def test_programs_of_a_page_are_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", blocks_of("toml"))
def test_files_of_a_page_are_taken(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "page.toml"
    path.write_text(block.text)
    if "[run]" in block.text:
        Run(**recipe.read(path))
    else:
        assert models.load(str(path)).nodes


@pytest.mark.parametrize(
    "wrong",
    [
        "mpitrain lenet --lerning-rate 1",
        "mpirun -n 2 mpitrain lenett",
        "mpirun -m 2 mpitrain lenet",
        "mpitrain lenet --epochs many",
        "mpitrain lenet --augment",
        "mpitrain predict runs/one",
        "mpitrain submit lenet --nodes 2 --lerning-rate 1",
        "sbatch jobs/vgg16.sbatch --batchsize 3",
        "sbatch jobs/vgg17.sbatch",
        "python benchmarks/compute.py steps --no-such",
        "python benchmarks/nothing.py",
        "make everything",
        "pip install -e '.[nothing]'",
        "mpitran lenet",
    ],
)
def test_a_command_that_cannot_be_typed_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, click.ClickException, MpitrainError)):
        for words in commands(wrong):
            check(words)
