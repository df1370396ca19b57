"""Completion of words: what shells are offered, by click's protocol and by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from mpitrain.commands import cli, guide
from mpitrain.exchange.registry import REGISTRY
from mpitrain.network import known, models

COMMAND = [sys.executable, "-m", "mpitrain"]
RESNETS = [name for name in models.NAMES if name.startswith("resnet")]
HEAVY = ("mpi4py", "numpy", "pyopencl", "PIL", "rich", "safetensors")
IMPORTED = """
import sys
from mpitrain.commands.cli import main
try:
    main()
finally:
    print("imported", *sys.modules)
"""


def told(words: str, shell: str = "bash", command: list[str] = COMMAND) -> str:
    """What the command tells a shell when TAB is pressed behind these words."""
    last = words.rpartition(" ")[2]
    place = {"COMP_WORDS": words, "COMP_CWORD": last if shell == "fish" else str(words.count(" "))}
    done = subprocess.run(
        command, env={**os.environ, **place, cli.COMPLETE: f"{shell}_complete"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def offered(words: str) -> list[str]:
    """The same for bash, in this process."""
    before, _, last = words.rpartition(" ")
    shell = BashComplete(cli.commands, {}, "mpitrain", cli.COMPLETE)
    found = shell.get_completions(before.split(" ")[1:], last)
    return [item.value if item.type == "plain" else f"{item.type},{item.value}" for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mpitrain re", ["report", "requeue", *RESNETS]),
        ("mpitrain le", ["lenet"]),
        ("mpitrain train vgg", ["vgg11", "vgg13", "vgg16", "vgg19"]),
        ("mpitrain summary len", ["lenet"]),
        ("mpitrain lenet --check", ["--checkpoint-every"]),
        ("mpitrain resnet18 --keep 2 --patien", ["--patience"]),
        ("mpitrain lenet --exchange l", [name for name in REGISTRY if name[0] == "l"]),
        ("mpitrain lenet --exchange star-d", ["star-dynamic8"]),
        ("mpitrain lenet --update ", ["root", "replicated"]),
        ("mpitrain lenet --schedule co", ["constant", "cosine"]),
        ("mpitrain lenet --dense ", ["auto", "whole", "split"]),
        ("mpitrain lenet --data d", ["digits"]),
        ("mpitrain evaluate runs/one --data fash", ["fashion-mnist"]),
        ("mpitrain lenet --augment crop,f", ["crop,flip"]),
        ("mpitrain evaluate --per", ["--per-class"]),
        ("mpitrain submit lenet --gp", ["--gpus-per-node", "--gpus"]),
        ("mpitrain submit --mpi p", ["pmi2", "pmix"]),
        ("mpitrain submit lenet --mo", ["--momentum"]),
        ("mpitrain scaling lenet --o", ["--out", "--on-failure"]),
        ("mpitrain --inj", []),
        ("mpitrain lenet --inj", []),
        # where files and folders are the shell's
        ("mpitrain ./my", ["file,./my"]),
        ("mpitrain summary my.to", ["file,my.to"]),
        ("mpitrain lenet --data ph", ["file,ph"]),
        ("mpitrain lenet --init w", ["file,w"]),
        ("mpitrain lenet --out ru", ["dir,ru"]),
        ("mpitrain predict runs", ["file,runs"]),
    ],
)  # fmt: skip
def test_words_complete(words: str, expected: list[str]) -> None:
    assert offered(words) == expected


def test_every_command_option_and_choice_completes() -> None:
    assert offered("mpitrain ") == [*sorted(cli.commands.commands), *models.NAMES]
    shown = {name for option in cli.train.params for name in option.opts if name[:2] == "--"}
    assert set(offered("mpitrain lenet --")) == shown - {"--inject"} | {"--help"}


def test_the_names_of_networks_are_those_that_can_be_built() -> None:
    assert known.NAMES == models.NAMES


def test_the_command_answers_each_shell() -> None:
    assert told("mpitrain lenet --update ") == "plain,root\nplain,replicated\n"
    kind, word, meaning = told("mpitrain tu", "zsh").splitlines()
    assert (kind, word) == ("plain", "tune") and meaning.startswith("Measure which algorithm")
    assert told("mpitrain tu", "fish").startswith("plain")


def test_bash_completes(tmp_path: Path) -> None:
    """By the line that --help has, and the function that bash calls then."""
    command = tmp_path / "mpitrain"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mpitrain "$@"\n')
    command.chmod(0o755)
    (line,) = [line for line in guide.TOP.splitlines() if "bash_source" in line]
    text = f"""
        {line.partition("      in")[0]}
        complete -p mpitrain
        COMP_WORDS=(mpitrain lenet --update "") COMP_CWORD=3
        _mpitrain_completion mpitrain
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    registered, found = done.stdout.splitlines()
    assert registered == "complete -o nosort -F _mpitrain_completion mpitrain"
    assert found == "root replicated"


def test_completing_imports_nothing_that_takes_long() -> None:
    for words in ("mpitrain re", "mpitrain lenet --exchange d"):
        *found, modules = told(words, command=[sys.executable, "-c", IMPORTED]).splitlines()
        assert found and modules.startswith("imported ")
        names = {name.split(".")[0] for name in modules.split()}
        assert "click" in names and not names & set(HEAVY)


def test_a_word_that_completes_is_known() -> None:
    options = {
        option.name
        for command in (cli.train, cli.commands.commands["submit"])
        for option in command.params
    }
    assert {*guide.WORDS, *guide.FOLDERS, *guide.FILES} <= options


def test_headings_and_examples_name_what_is_there() -> None:
    listed = [name for names in guide.COMMANDS.values() for name in names]
    assert sorted(listed) == sorted(cli.commands.commands)
    assert set(guide.EXAMPLES) <= set(listed)
    assert set(guide.OPTIONS) <= {option.name for option in cli.train.params}
    assert cli.train.params[1].name == next(iter(guide.OPTIONS)), "the first option has a heading"
