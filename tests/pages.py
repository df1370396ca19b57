"""Pages as their readers use them: the blocks between fences, the commands in them, and whether a
command has a form that the real command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mpitrain.commands import cli
from mpitrain.job.config import Run
from mpitrain.network import models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?"
    r"^(?P<in> *)```(?P<kind>\w*)\n(?P<text>.*?)^(?P=in)```$",
    re.MULTILINE | re.DOTALL,
)
HEREDOC = re.compile(r"^(.*)<<'(\w+)'(.*)\n(?:.*\n)*?\2\n", re.MULTILINE)
KINDS = ("sh", "text", "python", "toml")
"""What a fence says that it holds: commands, what they print, a program, a file."""
SIMPLE = {
    "cat", "cd", "echo", "env", "eval", "export", "git", "grep", "ls", "rm", "scancel", "source",
    "squeue", "tail",
}  # fmt: skip
"""Programs of which nothing is checked."""
PROGRAMS = {
    *SIMPLE, "bash", "make", "mpirun", "mpitrain", "pip", "python", "python3", "sbatch", "srun",
    "taskset",
}  # fmt: skip
PLACEHOLDERS = {"N": "1", "S": "1", "CODE": "0", "SECONDS": "1"}
"""Words that stand for a number."""
MPIRUN = {"-n": 1, "--with-ft": 1, "--bind-to": 1}
"""The launcher's options on pages, and how many words follow each."""


@dataclass(frozen=True)
class Block:
    """What stands between fences."""

    kind: str
    text: str
    line: int
    mark: str
    """What a comment in the line before says; the tutorial's test knows what it means."""


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            found["kind"],
            re.sub(rf"^{found['in']}", "", found["text"], flags=re.MULTILINE),
            text.count("\n", 0, found.start("text")) + 1,
            found["mark"] or "",
        )
        for found in FENCE.finditer(text)
    ]


def inline(page: Path) -> list[str]:
    """Commands within sentences and tables, as `mpitrain devices`."""
    text = FENCE.sub("", page.read_text())
    if page.name == "troubleshooting.md":
        text = re.sub(r"^\| `.+?` \|", "|", text, flags=re.MULTILINE)  # messages
    spans = re.findall(r"`([^`\n]+)`", text)
    return [span.replace("\\|", "|") for span in spans if first_word(span) in PROGRAMS]


def first_word(line: str) -> str:
    """The program of a command, behind variables that are set for it."""
    words = line.split()
    while len(words) > 1 and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words[0] if words else ""


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell's text, without comments, pipes and what goes to a
    file."""
    text = HEREDOC.sub(r"\1\3\n", text).replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        command: list[str] = []
        words, aside = list(lexer), False
        for word in (*words, ";"):
            if set(word) <= set(";&|"):
                if command:
                    yield command
                command, aside = [], False
            elif set(word) <= set("<>"):
                aside = True
            elif not aside:
                command.append(word)


def check(words: Sequence[str], whole: bool = True) -> None:
    """Fail unless the command exists and takes these options and values; nothing is run.

    whole: that arguments are missing is a failure, too.
    """
    words = [word.removesuffix("...") for word in words if word not in ("...", "[options]")]
    words = [PLACEHOLDERS.get(word, re.sub(r"^\[(\w+)\]$", r"\1", word)) for word in words]
    while len(words) > 1 and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    program, *rest = words
    assert program in PROGRAMS, f"{program}: not a program that pages have; see tests/pages.py"
    if program == "mpirun" and rest:
        for part in " ".join(map(shlex.quote, rest)).split(" : "):
            check(without_launcher(shlex.split(part)) or ["ls"], whole)
    elif program == "srun":
        while rest and rest[0].startswith("--"):
            del rest[0]
        check(rest or ["ls"], whole)
    elif program == "taskset":
        check(rest[2:], whole)
    elif program == "mpitrain" and rest:
        check_mpitrain(rest, whole)
    elif program in ("python", "python3"):
        check_python(rest)
    elif program in ("sbatch", "bash"):
        check_job(rest)
    elif program == "make" and rest:
        known = re.findall(r"^([\w-]+)(?::| \?=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word.partition("=")[0] for word in rest} <= set(known), rest
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert all(f"\n{name} = [" in project for name in extra.split(",")), extra


def without_launcher(words: list[str]) -> list[str]:
    """The command that mpirun starts."""
    while words and words[0].startswith("-"):
        assert words[0] in MPIRUN or words[0] == "-verbose", words[0]
        words = words[1 + MPIRUN.get(words[0], 0) :]
    return words


def check_mpitrain(words: list[str], whole: bool) -> None:
    """Parse the words behind `mpitrain` as the command does, and check them as it does."""
    if words[0] in ("-h", "--help", "--version") or (len(words) == 1 and not whole):
        name = words[0]
        assert name in cli.commands.commands or name[0] == "-" or is_network(name), name
        return
    name, rest = (words[0], words[1:]) if words[0] in cli.commands.commands else ("train", words)
    if "--config" in rest:  # the file is not here
        place = rest.index("--config")
        rest = [*rest[:place], *rest[place + 2 :]]
        rest = rest if rest and rest[0][0] != "-" else ["lenet", *rest]
    command = cli.commands.commands[name]
    try:
        asked = command.make_context(f"mpitrain {name}", list(rest)).params
    except click.exceptions.Exit:
        return  # --help
    except click.MissingParameter:
        assert not whole, f"{words}: an argument is missing"
        return
    network = str(asked.get("network") or "lenet")
    assert is_network(network), network
    if name in ("submit", "scaling"):
        asked = cli.train.make_context("mpitrain train", [network, *asked["options"]]).params
        Run(**asked)
    elif name == "train":
        Run(**asked)


def is_network(name: str) -> bool:
    """A network's name, a network file, or a word in capitals that stands for one."""
    return name in models.NAMES or name.endswith(".toml") or name.isupper()


def check_python(words: Sequence[str]) -> None:
    """Of a script of ours: it is there and knows these options."""
    if words[:1] == ["-W"]:
        words = words[2:]
    if words[:1] == ["-m"] or not words or words[0] in ("-", "-c"):
        return
    path = ROOT / words[0]
    assert path.exists(), path
    near = "".join(each.read_text() for each in path.parent.glob("*.py"))
    for word in words[1:]:
        if word.startswith("-"):
            assert f'"{word}"' in near, f"{words[0]} has no {word}"


def check_job(words: Sequence[str]) -> None:
    """A job script, with options of sbatch's before its name and ours behind it."""
    scripts = [nth for nth, word in enumerate(words) if word.startswith("jobs/")]
    assert len(scripts) == 1, words
    path, behind = ROOT / words[scripts[0]], list(words[scripts[0] + 1 :])
    assert path.exists(), path
    if path.suffix == ".sh":
        place = behind.index("--") if "--" in behind else len(behind)
        behind, path = behind[place + 1 :], path.with_suffix(".sbatch")
    network = re.findall(r"^\$\{LAUNCH:\?\} mpitrain (\w+)", path.read_text(), re.MULTILINE)[0]
    check_mpitrain([network, *behind], whole=True)
