"""docs/paper.md from the JSON files: the part between each task's marks; the rest is by hand."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import report

from paper.task import Found, Task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "paper.md"


def rewrite(text: str, tasks: Mapping[str, Task], results: Path) -> str:
    """The page with the newest tables. A task without results keeps what stands there."""
    for name, task in tasks.items():
        path = results / f"{name}.json"
        if not path.exists():
            continue
        inside = section(task, json.loads(path.read_text()), _picture(path))
        marks = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        if not marks.search(text):
            raise ValueError(f"{PAGE.name} has no marks of {name}")
        text = marks.sub(lambda found, new=inside: f"{found[1]}{new}{found[2]}", text)
    return text


def _picture(path: Path) -> str:
    return os.path.relpath(path.with_suffix(".png"), PAGE.parent)


def section(task: Task, found: Found, picture: str) -> str:
    """What stands between the marks: circumstances, the picture, tables, and what is left out."""
    machine, more = found["machine"], ""
    if "ours" in found:
        ours = found["ours"]
        more = f"; {ours['device']} by {ours['platform']} ({ours['driver']})"
    if "numpy" in found:
        more += f"; NumPy {found['numpy']['numpy']} with {found['numpy']['blas']}"
    if "pytorch" in found:
        more += f"; PyTorch {found['pytorch']['torch']}, {found['pytorch']['threads']} threads"
    load = f" Load before: {found['load']}." if found.get("load") is not None else ""
    where = (
        f"`{found['command']}`, n = {found['n']}, {found['date'][:10]}, commit {found['commit']}; "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}{more}.{load}"
    )
    parts = [where, f"![{task.TITLE}]({picture})"]
    parts += [sheet.markdown() for sheet in task.sheets(found)]
    missing = "\n".join(f"- {sentence}" for sentence in report.missing(found))
    return "\n\n".join([*parts, *([missing] if missing else [])])
