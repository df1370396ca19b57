"""`mpitrain report RUN [RUN]`: one HTML page of a run, or of two side by side, that needs no
network; with --csv a table."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpitrain import __version__
from mpitrain.commands import steps_table, timeline
from mpitrain.commands.picture import Curve, draw
from mpitrain.commands.run_facts import (
    NONE,
    date,
    in_percent,
    in_seconds,
    known_or,
    lead,
    mean,
    mean_of,
    notes,
    outcome,
    places,
    settings,
    trained,
    value_of,
)
from mpitrain.commands.run_record import Record, read, table
from mpitrain.job.errors import UserError
from mpitrain.job.plain import plain

COLORS = ("#1f6fb4", "#d1622b")
"""Of the first and the second run."""
PARTS = {
    "compute": ("computing", "#4d6b88"),
    "exchange": ("exchange that no computing hid", "#c0392b"),
    "wait": ("waiting for images", "#d9b44a"),
}
"""Parts of a step's seconds, which add up to its total: in words, and the colour of the bar."""
OWN = ("out", "exchange_chosen", "exchange_reason")
"""Settings that two runs never share, or that another row tells."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 68rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; break-after: avoid; }
h1, td, th { overflow-wrap: anywhere; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th { font-weight: 600; width: 11rem; }
thead th { width: auto; }
thead td { width: 11rem; }
tbody th { font-weight: 400; color: #555; }
.note, .legend, footer { color: #555; font-size: .9em; }
.pictures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
figcaption { font-weight: 600; }
figure svg, .bar { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #555; }
.legend { margin: .2rem 0; }
.wide { overflow-x: auto; }
.wide svg { min-width: 44rem; }
.key { margin-right: 1rem; display: inline-block; }
figure .swatch, .swatch { width: 26px; height: 8px; display: inline; vertical-align: middle; }
.bar { height: 1.4rem; margin: .2rem 0 .8rem; }
summary { cursor: pointer; font-weight: 600; margin-top: 1rem; }
@media (max-width: 32rem) { tbody th, thead td { width: 6.5rem; } body { padding: .6rem; } }
@media print { body { font-size: 11px; padding: 0; } .pictures { grid-template-columns: 1fr 1fr; }
  details::details-content { content-visibility: visible; block-size: auto; } }
""".strip()


def report(runs: Sequence[Path], out: Path | None, csv: Path | None = None) -> Path:
    """Write the page of one or two run directories, or a table of any number, and return its path.

    out: the page; None: report.html in the first run directory. csv: the table, instead of a page.
    Raises UserError where a path is no run directory, or there is nothing to show, or the file
    cannot be written.
    """
    if len(set(resolved := [run.resolve() for run in runs])) < len(runs):
        twice = next(
            run for run, each in zip(runs, resolved, strict=True) if resolved.count(each) > 1
        )
        raise UserError(f"report: {twice} is given twice")
    if csv is not None:
        return _table_of(runs, out, csv)
    if len(runs) > 2:
        raise UserError(
            f"report: {len(runs)} runs; a page shows one, or two side by side, and --csv takes more"
        )
    path = out or runs[0] / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: expected a name that ends in .html")
    text = page([read(run) for run in runs], time.time())
    try:
        path.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror or error}") from None
    return path


def _table_of(runs: Sequence[Path], out: Path | None, csv: Path) -> Path:
    if out is not None:
        raise UserError(f"--out {out}: expected one of --out, for a page, and --csv, for a table")
    if csv.suffix.lower() != ".csv":
        raise UserError(f"--csv {csv}: expected a name that ends in .csv")
    records = [read(run) for run in runs]
    return steps_table.write(records, _names(records), csv)


def page(records: Sequence[Record], now: float) -> str:
    """The whole page as HTML. now: seconds since 1970."""
    names = _names(records)
    title = " and ".join(names)
    leads = [lead(each, name) for each, name in zip(records, names, strict=True)]
    went = _table("", [outcome(each, now) for each in records], names)
    what = _table("", [trained(each) for each in records], names)
    sections = [
        f"<h1>{_text(title)}</h1>",
        *(f"<p>{_text(words)}</p>" for words in leads),
        *(f'<p class="note">{_text(note)}</p>' for note in notes(records, names)),
        _differences(records, names) if len(records) == 2 else "",
        f"<h2>How it went</h2>{went}",
        f"<h2>Curves</h2>{_pictures(records, names)}",
        f"<h2>Where a step's time went</h2>{_time(records, names)}",
        _steps(records, names),
        f"<h2>What was trained on what</h2>{what}",
        _table("All settings", [settings(each) for each in records], names),
        _table("Device and host of each rank", [places(each) for each in records], names),
        f"<footer><p>mpitrain {__version__}, report of {date(now)}</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _differences(records: Sequence[Record], names: Sequence[str]) -> str:
    """The settings, versions and devices in which two runs differ."""
    sides = []
    for record in records:
        found = {name: text for name, text in settings(record).items() if name not in OWN}
        found |= {
            name: value_of(record.start.get(name))
            for name in ("network", "parameters", "ranks", "batch_size", "exchange", "update")
        }
        found["devices"] = trained(record)["devices"]
        versions = table(record.start.get("versions"))
        sides.append(found | {f"version of {name}": value_of(versions[name]) for name in versions})
    first, second = sides
    differ = [
        name
        for name in dict.fromkeys((*first, *second))
        if first.get(name, NONE) != second.get(name, NONE)
    ]
    rows = [{name: side.get(name, NONE) for name in differ} for side in sides]
    if not differ:
        return "<h2>Settings that differ</h2><p>None.</p>"
    return f"<h2>Settings that differ</h2>{_table('', rows, names)}"


def _pictures(records: Sequence[Record], names: Sequence[str]) -> str:
    if not any(len(record.steps) or len(record.tests) for record in records):
        return "<p>No step is logged yet.</p>"
    last = max(max([0, *each.steps.step[-1:], *each.tests.step[-1:]]) for each in records)
    loss: list[Curve] = []
    accuracy: list[Curve] = []
    speed: list[Curve] = []
    rate: list[Curve] = []
    for color, name, record in zip(COLORS, names, records, strict=False):
        of = f"{name}: " if len(records) > 1 else ""
        steps, tests = record.steps, record.tests
        each = "" if of or steps.window == 1 else "each step"
        smoothed = mean_of(steps.window)
        loss += [
            Curve(each and f"training, {each}", steps.points("loss"), color, thin=True),
            Curve(f"{of}training{smoothed and f', {smoothed}'}", steps.smoothed("loss"), color),
            Curve(f"{of}test", tests.points("loss"), color, dashed=True, marked=True),
        ]
        accuracy += [
            Curve(f"{of}top-1", tests.points("top1"), color, marked=True),
            Curve(f"{of}top-5", tests.points("top5"), color, dashed=True, marked=True),
        ]
        speed += [
            Curve(each, steps.points("images_per_second"), color, thin=True),
            Curve(
                f"{of}{smoothed}".rstrip(": "),
                steps.smoothed("images_per_second"),
                color,
            ),
        ]
        rate.append(Curve(name if of else "", steps.points("lr"), color))
    pictures = [
        draw("Loss", loss, last, logarithmic=True),
        draw("Test accuracy, %", accuracy, last, percent=True, zero=False)
        if any(curve.points for curve in accuracy)
        else "",
        draw("Speed, images/s", speed, last),
        draw("Learning rate", rate, last),
    ]
    return f'<div class="pictures">{"".join(pictures)}</div>'


def _time(records: Sequence[Record], names: Sequence[str]) -> str:
    """Mean seconds of a step by part, and their shares, as bars and as numbers."""
    bars, rows = [], []
    for record, name in zip(records, names, strict=True):
        means = {part: mean(record.usual(part)) for part in (*PARTS, "total", "host", "data")}
        whole = sum(known_or(means[part], 0.0) for part in PARTS)
        row = {label: _of(means[part], whole) for part, (label, _) in PARTS.items()}
        row["a whole step"] = in_seconds(means["total"])
        row["of it, rank 0's main thread"] = _of(means["host"], means["total"])
        if means["data"] > 0:
            row["decoding beside it, CPU time"] = in_seconds(means["data"])
        rows.append(row if len(record.steps) else {})
        if whole:
            label = f"<div>{_text(name)}</div>" if len(records) > 1 else ""
            bars.append(label + _bar({part: known_or(means[part], 0.0) / whole for part in PARTS}))
    if not any(rows):
        return "<p>No step is logged yet.</p>"
    keys = "".join(
        '<span class="key"><svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">'
        f'<rect width="26" height="8" fill="{color}"/></svg> {words}</span>'
        for words, color in PARTS.values()
    )
    note = (
        "Mean of rank 0's steps, without the first one of a start, which compiles kernels. Its "
        "main thread works while it waits neither for the device, nor for images, nor for ranks."
    )
    return (
        f'<p class="legend">{keys}</p>{"".join(bars)}{_table("", rows, names)}'
        f'<p class="note">{note}</p>'
    )


def _steps(records: Sequence[Record], names: Sequence[str]) -> str:
    """A step of each run that was traced."""
    found = []
    for record, name in zip(records, names, strict=True):
        trace = timeline.read(record.folder)
        whose = f"<p>{_text(name)}</p>" if len(records) > 1 else ""
        if isinstance(trace, str):
            found.append(f"{whose}<p>{_text(trace)}.</p>")
        elif trace is not None:
            found.append(whose + timeline.draw(trace))
    return f"<h2>One step on all ranks</h2>{''.join(found)}" if found else ""


def _of(seconds: float, whole: float) -> str:
    """Seconds, and their share of a step."""
    share = f" ({in_percent(seconds / whole)})" if whole > 0 and math.isfinite(seconds) else ""
    return in_seconds(seconds) + share


def _bar(shares: Mapping[str, float]) -> str:
    """Shares, which add up to 1, as one bar."""
    parts, at = [], 0.0
    for part, share in shares.items():
        parts.append(
            f'<rect x="{100 * at:.3f}" width="{100 * share:.3f}" height="4" fill="{PARTS[part][1]}"'
            f"><title>{PARTS[part][0]}: {in_percent(share)}</title></rect>"
        )
        at += share
    return f'<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none">{"".join(parts)}</svg>'


def _table(folded: str, columns: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """A row a label, a column a run. folded: the words that unfold it; empty: always open."""
    labels = list(dict.fromkeys(label for column in columns for label in column))
    if not labels:
        return ""
    head = ""
    if len(columns) > 1:
        cells = "".join(
            f'<th scope="col" style="color:{color}">{_text(name)}</th>'
            for color, name in zip(COLORS, names, strict=False)
        )
        head = f"<thead><tr><td></td>{cells}</tr></thead>"
    rows = "".join(
        f'<tr><th scope="row">{_text(label)}</th>'
        + "".join(f"<td>{_text(column.get(label, NONE))}</td>" for column in columns)
        + "</tr>"
        for label in labels
    )
    found = f"<table>{head}<tbody>{rows}</tbody></table>"
    return f"<details><summary>{_text(folded)}</summary>{found}</details>" if folded else found


def _text(words: str) -> str:
    """Words from anywhere as text of the page."""
    return html.escape(plain(words))


def _names(records: Sequence[Record]) -> list[str]:
    """The folders' names, or their whole paths where the names are alike."""
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        return [str(record.folder.resolve()) for record in records]
    return names
