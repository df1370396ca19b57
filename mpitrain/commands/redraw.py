"""Draw the curve of runs that are there already, such as the jobs of an array left them:
FOLDER/ranks-1, ranks-2, ..."""

from __future__ import annotations

import json
from pathlib import Path

from mpitrain.commands.curve import check_plots, csv_text, draw, table
from mpitrain.commands.scaling import read_point
from mpitrain.job.errors import RunError, UserError


def redraw(folder: Path) -> None:
    """Write curve.csv, curve.txt and curve.png beside the runs. Raises UserError where there are
    none, or runs of several networks.

    A run that failed, or has not ended, is left out and said.
    """
    check_plots()
    runs = sorted(folder.glob("ranks-*"))
    if not runs:
        raise UserError(
            f"{folder}: no runs in it; expected {folder}/ranks-1, {folder}/ranks-2 and so on"
        )
    names, points, out = set(), [], []
    for run in runs:
        try:
            point, first = read_point(run), (run / "log.jsonl").read_text().partition("\n")[0]
            names.add(json.loads(first)["network"])
            points.append(point)
        # A task that was killed may leave half a line.
        except (OSError, RunError, ValueError, KeyError) as error:
            out.append(f"left out: {run.name} ({error})")
    if len(names) != 1:
        raise UserError(
            f"{folder}: runs of one network are needed, found "
            f"{', '.join(sorted(names)) or 'none that ended'}"
        )
    (name,) = names
    points.sort(key=lambda one: one.ranks)
    text = table(name, points) + "".join(f"{line}\n" for line in out)
    (folder / "curve.csv").write_text(csv_text(name, points))
    (folder / "curve.txt").write_text(text)
    draw(name, points, folder / "curve.png")
    print(text + f"written: {folder}/curve.csv, curve.txt, curve.png")
