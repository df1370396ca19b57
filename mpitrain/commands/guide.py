"""What `--help` adds to the meaning of commands and options: headings, examples, and which words
complete."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "Train": ("train", "scaling", "tune"),
    "Use what was trained": ("evaluate", "predict", "demo", "export"),
    "Look before, meanwhile and after": ("devices", "summary", "watch", "report"),
    "On a cluster with SLURM": ("submit", "curve", "launcher", "requeue"),
}
"""Heading -> the commands under it, in this order."""
OPTIONS: Mapping[str, str] = {
    "config": "From a file",
    "data": "Data",
    "batch_size": "How many images, how often",
    "lr": "Learning",
    "exchange": "Between ranks",
    "device": "Devices",
    "augment": "Images",
    "out": "Checkpoints and evaluation",
    "seed": "To repeat and to compare",
    "on_failure": "When something fails",
    "quiet": "What is printed",
}
"""The option of training that a heading stands over, with those that are declared after it."""
TOP = """\
\b
The shortest way in:
  mpirun -n 2 mpitrain lenet       train on digits that ship along, a core a rank
  mpitrain demo runs/lenet-...     draw digits, and see what it takes them for
  mpitrain train --help            all options of training

NETWORK alone trains it: mpitrain lenet is mpitrain train lenet. docs/tutorial.md goes from a \
laptop to a cluster.

\b
The shell completes commands, networks, options and their values after
  eval "$(_MPITRAIN_COMPLETE=bash_source mpitrain)"      in ~/.bashrc
  eval "$(_MPITRAIN_COMPLETE=zsh_source mpitrain)"       in ~/.zshrc
  _MPITRAIN_COMPLETE=fish_source mpitrain | source       in fish's config.fish
"""
EXAMPLES: Mapping[str, str] = {
    "train": """\
  mpitrain lenet                                       one rank, digits that ship along
  mpirun -n 4 mpitrain resnet18 --data photos          four ranks, a folder of class folders
  mpirun -n 4 mpitrain resnet18 --data photos --augment resized,flip --lr 0.1 --schedule cosine
  mpirun -n 2 mpitrain lenet --out runs/one --resume   go on where runs/one was left
  mpirun -n 2 mpitrain --config runs/one --lr 0.005    as runs/one was, but for the rate""",
    "evaluate": """\
  mpitrain evaluate runs/one
  mpirun -n 2 mpitrain evaluate runs/one --per-class --confusion""",
    "predict": """\
  mpitrain predict runs/one cat.jpg holiday/ --top 3
  mpitrain predict resnet50.pth cat.jpg --network resnet50""",
    "demo": "  mpitrain demo runs/one",
    "export": """\
  mpitrain export runs/one lenet.onnx
  mpitrain export runs/one lenet.safetensors""",
    "summary": """\
  mpitrain summary resnet50 --batch-size 16 --ranks 8
  mpitrain summary lenet --toml > mine.toml            a network file to edit""",
    "tune": "  mpitrain tune resnet18 --data photos",
    "devices": "  mpitrain devices --ranks 2",
    "scaling": "  mpitrain scaling lenet --ranks 1,2 --epochs 1",
    "curve": "  mpitrain curve runs/scaling-20261129-001500",
    "report": """\
  mpitrain report runs/one
  mpitrain report runs/one runs/two --out both.html""",
    "watch": "  mpitrain watch runs/lenet-1234",
    "submit": """\
  mpitrain submit lenet --nodes 2 --time 10 --dry-run
  mpitrain submit resnet50 --nodes 4 --gpus-per-node 2 --ntasks-per-node 2 --data photos \\
      -- --constraint=a100""",
}
"""Command -> commands as one types them."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "data": ("digits", "synthetic", "mnist", "fashion-mnist", "cifar10"),
    "dense": ("auto", "whole", "split"),
    "device": ("auto", "cpu", "gpu"),
    "augment": ("crop", "resized", "flip", "jitter"),
}
"""Option -> words that complete, of options that also take others."""
FOLDERS = ("out", "outputs")
FILES = ("data", "config", "init", "resume", "setup")
"""Options whose values are paths."""


def examples(command: str) -> str | None:
    """What click prints below the options of a command; `\\b` keeps its lines."""
    found = EXAMPLES.get(command)
    return f"\b\nExamples:\n{found}" if found else None
