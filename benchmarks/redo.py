"""The paper's experiments again: tables and figures of arXiv 1702.01846, its rows beside ours.

    python benchmarks/redo.py                    all of them (`make paper`): some 20 minutes
    python benchmarks/redo.py table1 -n 9        one
    python benchmarks/redo.py --small --out DIR  all in small sizes, to see that all works

Each task writes TASK.json, TASK.txt and TASK.png into benchmarks/results/paper, and its part of
docs/paper.md. One that fails is said, and the others go on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import report
from measure import HERE, SideError, circumstances
from paper import figure6_left, figure6_right, page, table1, table3, table4, table5
from paper.task import Found, Options, Task
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mpitrain.commands.curve import check_plots
from mpitrain.job.errors import MpitrainError

TASKS: dict[str, Task] = {
    "table1": table1,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "figure6-left": figure6_left,
    "figure6-right": figure6_right,
}
RESULTS = HERE / "results" / "paper"


def main() -> int:
    options, names, out, redraw = _options()
    try:
        check_plots()
    except MpitrainError as error:
        sys.exit(f"redo.py: {error}")
    if redraw:
        for path in (out / f"{name}.json" for name in names):
            if path.exists():
                write(path.stem, json.loads(path.read_text()), out)
        return 0
    commit = circumstances(options.n)["commit"]  # before the first results differ from it
    console, failed = Console(stderr=True), []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, redirect_stdout=False) as bar:
        whole = bar.add_task("tasks", total=len(names))
        for name in names:
            rows = bar.add_task(name, total=TASKS[name].count(options))

            def say(line: str, rows: object = rows, name: str = name) -> None:
                bar.console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)

            try:
                found = run(name, options, commit, out, say, partial(bar.advance, rows))
                for sentence in report.missing(found):
                    say(sentence)
            except (SideError, MpitrainError) as error:
                failed.append(name)
                say(f"failed: {error}")
            except Exception as error:
                failed.append(name)
                traceback.print_exc()
                say(f"failed: {type(error).__name__}: {error}")
            bar.update(rows, visible=False)
            bar.advance(whole)
    done = [name for name in names if name not in failed]
    print(f"written: {', '.join(done) or 'nothing'} (.json, .txt, .png) in {out.name}")
    if failed:
        print(f"redo.py: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(
    name: str,
    options: Options,
    commit: str,
    out: Path,
    say: Callable[[str], None],
    advance: Callable[[], None],
) -> Found:
    """One task: measured, and written once it is whole."""
    task = TASKS[name]
    facts = {**circumstances(options.n), "commit": commit}
    found: Found = {"task": name, "title": task.TITLE, **facts, "rows": []}
    for row in task.measure(options, found):
        found["rows"].append(row)
        say(task.brief(row))
        advance()
    write(name, found, out)
    return found


def write(name: str, found: Found, out: Path) -> None:
    """A task's files and, of results, its part of the page."""
    task = TASKS[name]
    report.write(out / f"{name}.json", found, [sheet.rich() for sheet in task.sheets(found)])
    task.draw(found, out / f"{name}.png")
    if out == RESULTS:
        page.PAGE.write_text(page.rewrite(page.PAGE.read_text(), {name: task}, RESULTS))


def _options() -> tuple[Options, list[str], Path, bool]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("-n", type=int, default=3, help="counted turns of each side (default 3)")
    parser.add_argument("--device", default="auto", help="as for mpitrain")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument(
        "--small", action="store_true", help="small sizes, whose figures say nothing; with --out"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing: texts, pictures and page from .json"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    typed = parser.parse_args()
    for name in typed.tasks:
        if name not in TASKS:
            parser.error(f"no task {name}; there are {', '.join(TASKS)}")
    if typed.n < 1:
        parser.error(f"-n {typed.n}: expected at least 1")
    if typed.small and typed.out == RESULTS:
        parser.error("--small needs --out: its figures are not results")
    options = Options(typed.n, typed.device, typed.torch_python, typed.small)
    names = list(dict.fromkeys(typed.tasks)) or list(TASKS)
    return options, names, typed.out, typed.redraw


if __name__ == "__main__":
    sys.exit(main())
