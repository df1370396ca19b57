"""The page of a run says what its log says; of a run that goes on, or was cut short, too."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mpitrain.commands.report import report
from mpitrain.commands.run_facts import in_seconds
from mpitrain.commands.run_record import read

VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page as a reader has it: its words, and its tables as {heading: {label: cells}}."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: dict[str, dict[str, list[str]]] = {}
        self.tags: list[str] = []
        self.links: list[str] = []
        self.captions: list[str] = []
        self.curves: list[int] = []
        self._heading, self._row = "", [""]
        self.feed(path.read_text())
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            self._row.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "polyline":
            self.curves.append(len((dict(attrs)["points"] or "").split()))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows.setdefault(self._heading, {})[self._row[0]] = self._row[1:]

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] in ("h2", "summary"):
            self._heading = data
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self._row[-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpitrain", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=200,
    )


def start(**more: Any) -> dict[str, Any]:
    return {
        "event": "start",
        "time": 1e9,
        "network": "lenet",
        "parameters": 431080,
        "ranks": 2,
        "devices": ["Some CPU (Some OpenCL), cores 0", "Some CPU (Some OpenCL), cores 1"],
        "batch_size": 64,
        "exchange": "window",
        "update": "root",
        "versions": {"mpitrain": "0.1.0", "mpi": "MPICH 5"},
        "step": 0,
        "restarts": 0,
        **more,
    }


def step(number: int, loss: float = 0.5, total: float = 0.1, **more: Any) -> dict[str, Any]:
    seconds = {"total": total, "compute": 0.6 * total, "exchange": 0.3 * total, "wait": 0.1 * total}
    return {
        "event": "step",
        "time": 1e9 + number,
        "step": number,
        "epoch": 0,
        "loss": loss,
        "lr": 0.01,
        "images": 64,
        "images_per_second": 64 / total,
        "seconds": {**seconds, "host": 0.2 * total},
        "bytes_sent": 3 * 2**20,
        **more,
    }


END = {
    "event": "end",
    "step": 3,
    "seconds": 1.5,
    "weights_sha256": ["ab" * 32, "ab" * 32],
    "peak_memory": 2**30,
    "exit": 0,
}


def write(folder: Path, events: Sequence[Any], config: str | None = None) -> Path:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    config = '[run]\ndata = "digits"\nlr = 0.01\n' if config is None else config
    (folder / "config.toml").write_text(config)
    (folder / ".lock").touch()
    return folder


def page(*runs: Path) -> Page:
    return Page(report(runs, None))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command itself."""
    folder = tmp_path_factory.mktemp("real") / "run"
    ended = command("lenet", "--steps", "30", "--evaluate-every", "10", "--out", folder, "--quiet")
    assert ended.returncode == 0, ended.stderr
    return folder


def test_the_page_says_what_a_real_runs_log_says(real: Path) -> None:
    said = command("report", real)
    assert (said.returncode, said.stdout, said.stderr) == (0, f"{real}/report.html\n", "")
    found = Page(real / "report.html")
    events = [json.loads(line) for line in (real / "log.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "evaluate"][-1]
    went, what = found.rows["How it went"], found.rows["What was trained on what"]
    assert went["state"] == ["done after step 30 (exit code 0)"]
    assert went["last test"] == [
        f"top-1 {100 * last['top1']:.2f} %, top-5 {100 * last['top5']:.2f} %, "
        f"loss {last['loss']:.4f} after step 30 (360 images)"
    ]
    assert events[-1]["weights_sha256"][0][:12] in went["weights"][0]
    assert "step-00000030.safetensors" in went["checkpoints"][0]
    assert what["network"] == ["lenet, 431,080 parameters"]
    assert what["data"] == ["digits"]
    assert what["devices"] == ["1 × " + events[0]["devices"][0].partition(", cores")[0]]
    assert what["MPI"] == [events[0]["versions"]["mpi"]]
    assert found.rows["All settings"]["momentum"] == ["0.9"]
    assert len(found.captions) == 4
    assert 30 in found.curves and 3 in found.curves


def test_the_page_needs_nothing_from_elsewhere(real: Path) -> None:
    path = report([real], None)
    found = Page(path)
    assert not found.links
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "http" not in path.read_text() and "url(" not in path.read_text()


def test_neither_opencl_nor_mpi_is_imported(real: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pyopencl', 'mpi4py', 'matplotlib')));"
        "from mpitrain.commands.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "report", str(real)]
    assert subprocess.run(words, timeout=60).returncode == 0


def test_decoding_is_shown_where_there_was_any(tmp_path: Path) -> None:
    steps = [step(1), step(2), step(3)]
    for each in steps:
        each["seconds"]["data"] = 0.012
    photos = write(tmp_path / "a", [start(), *steps, END])
    arrays = write(tmp_path / "b", [start(), step(1), step(2), END])
    label, title = "decoding beside it, CPU time", "Where a step's time went"
    assert page(photos).rows[title][label] == ["12.0 ms"]
    assert label not in page(arrays).rows[title]
    both = page(photos, arrays)
    assert both.rows[title][label] == ["12.0 ms", "–"]
    assert both.rows[title]["waiting for images"] == ["10.0 ms (10.0 %)"] * 2
    assert [speed.partition(" (")[0] for speed in both.rows["How it went"]["speed"]] == (
        ["640 images/s"] * 2
    )


def test_shares_leave_out_the_first_step_of_each_start(tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), step(1, total=9.0), step(2), step(3), END])
    found = page(run).rows["Where a step's time went"]
    assert found["computing"] == ["60.0 ms (60.0 %)"]
    assert found["exchange that no computing hid"] == ["30.0 ms (30.0 %)"]
    assert found["waiting for images"] == ["10.0 ms (10.0 %)"]
    assert found["a whole step"] == ["100 ms"]
    went = page(run).rows["How it went"]
    assert went["speed"] == ["640 images/s (median of steps; slowest 640, fastest 640)"]
    assert went["sent a step"] == ["3.00 MiB by rank 0 (mean)"]
    assert went["peak memory"] == ["1.00 GiB, all ranks together"]


def test_two_runs_share_each_picture_and_begin_with_what_differs(tmp_path: Path) -> None:
    test = {"event": "evaluate", "step": 3, "loss": 0.4, "top1": 0.5, "top5": 0.9, "images": 9}
    a = write(tmp_path / "a", [start(), step(1), step(2), step(3), test, END])
    b = write(
        tmp_path / "b",
        [start(exchange="dynamic8"), step(1), step(2), test],
        '[run]\ndata = "digits"\nlr = 0.03\nnesterov = true\n',
    )
    found = page(a, b)
    assert found.rows["Settings that differ"] == {
        "": ["a", "b"],
        "lr": ["0.01", "0.03"],
        "nesterov": ["–", "yes"],
        "exchange": ["window", "dynamic8"],
    }
    assert found.text.index("Settings that differ") < found.text.index("How it went")
    assert found.captions == ["Loss", "Test accuracy, %", "Speed, images/s", "Learning rate"]
    for label in ("a: training", "b: training", "a: test", "b: test", "b: top-5"):
        assert label in found.text
    assert found.rows["How it went"]["state"][0] == "done after step 3 (exit code 0)"


def test_a_run_that_goes_on_is_said_to_run(tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), step(1), step(2)])
    with (run / ".lock").open("a") as lock:
        lock.write("process 12 on here\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = page(run).rows["How it went"]["state"][0]
    assert state.startswith("still running, at step 2 (process 12 on here); last event ")


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (f"process 12 on {os.uname().nodename}\n", "cut short at step 2: there is no end"),
        ("process 12 on another-host\n", "which stops at step 2: cut short, or running elsewhere"),
        (None, "which stops at step 2: cut short, or running elsewhere"),
    ],
)
def test_a_run_without_an_end_is_said_to_be_cut_short(
    lock: str | None, words: str, tmp_path: Path
) -> None:
    run = write(tmp_path / "a", [start(), step(1), step(2)])
    (run / ".lock").unlink() if lock is None else (run / ".lock").write_text(lock)
    assert words in page(run).rows["How it went"]["state"][0]


@pytest.mark.parametrize(
    ("code", "words"),
    [(75, "stopped by a signal at step 3 (exit code 75); --resume"), (1, "failed at step 3")],
)
def test_other_ends_are_told(code: int, words: str, tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), step(3), {**END, "exit": code}])
    assert words in page(run).rows["How it went"]["state"][0]


def test_a_run_that_ended_early_says_why(tmp_path: Path) -> None:
    early = {"event": "early", "time": 0.0, "step": 3, "best_step": 1, "best_top1": 0.5}
    run = write(tmp_path / "a", [start(), step(3), early, {**END, "step": 3, "exit": 0}])
    assert page(run).rows["How it went"]["state"] == [
        "done after step 3 (exit code 0); no score after step 1 was better (--patience)"
    ]


def test_steps_done_twice_count_once(tmp_path: Path) -> None:
    """A run that was killed after step 4 goes on from the checkpoint of step 2."""
    first = [start(), *(step(number) for number in range(1, 5))]
    again = [start(step=2, restarts=1), step(3, loss=0.25), step(4), step(5)]
    run = write(tmp_path / "a", first + again)
    record = read(run)
    assert list(record.steps.step) == [1, 2, 3, 4, 5]
    assert record.steps["loss"][2] == 0.25
    assert list(record.steps["first"]) == [1, 0, 1, 0, 0]
    assert "went on after step 2 by SLURM" in page(run).text


def test_what_happened_on_the_way_is_told(tmp_path: Path) -> None:
    skip = {"event": "skip", "images": 2, "names": ["x.png", "y.png"]}
    lost = {"event": "lost", "step": 1, "ranks": [3], "left": 3}
    slow = {"event": "balance", "step": 2, "straggler": 1, "cost": 0.23}
    events = [start(), skip, step(1), lost, step(2), slow, skip]
    went = page(write(tmp_path / "a", events)).rows["How it went"]
    assert went["skipped images"] == ["2: x.png, y.png"]
    assert went["lost ranks"] == ["rank 3 after step 1, the other 3 went on"]
    assert went["slow ranks"] == [
        "rank 1 held the others up at step 2, by 23 % of a step; 1 notice in all"
    ]


def test_half_a_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), step(1), step(2), step(3)])
    whole = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(whole[:-40])
    found = page(run)
    assert "last line of log.jsonl is incomplete" in found.text
    assert found.rows["How it went"]["steps"] == ["2, in epoch 1"]


def test_damaged_lines_and_odd_values_are_left_out_and_said(tmp_path: Path) -> None:
    odd = [
        step(2, loss=float("nan")),
        {**step(3), "seconds": 7, "loss": "low", "images_per_second": 10**400, "bytes_sent": None},
        ["no", "event"],
        {**step(4), "step": "four"},
        {**step(5), "step": -1},
        {"event": "evaluate", "step": 3},
        {"event": "checkpoint"},
        {"event": "balance", "straggler": [], "cost": {}},
        {"event": "skip", "names": 3},
        {"event": "end"},
    ]
    run = write(tmp_path / "a", [start(devices=3, versions=[], time="now"), step(1), *odd], "= odd")
    with (run / "log.jsonl").open("ab") as log:
        log.write(b"\xff\xfe{\n\n" + b"[" * 100_000 + b"\n")
    found = page(run)
    assert "5 lines of log.jsonl cannot be read" in found.text
    assert "not a finite number in 2 steps, first in step 2" in found.text
    assert "config.toml cannot be read" in found.text
    assert "nan" not in found.text.lower()


def test_only_a_start_makes_a_page_without_curves(tmp_path: Path) -> None:
    found = page(write(tmp_path / "a", [start()]))
    assert "No step is logged yet." in found.text
    assert found.rows["What was trained on what"]["ranks"] == ["2"]


def test_text_from_a_run_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    config = f"[run]\ndata = '{bad}'\n'{bad}' = '{bad}'\n[ranks]\nhosts = ['{bad}']\n"
    skip = {"event": "skip", "names": [bad, "\ud800\x00\x1b[2J"]}
    run = write(tmp_path / "<b>", [start(network=bad, devices=[bad]), step(1), skip], config)
    found = page(run)
    assert not {"script", "b"} & set(found.tags)
    assert bad in found.text
    assert "\x1b" not in found.text and "\x00" not in found.text


def test_a_long_run_makes_a_small_page(tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), *(step(number) for number in range(1, 20_001))])
    path = report([run], None)
    assert max(Page(path).curves) <= 1000
    assert path.stat().st_size < 200_000


def test_where_nothing_can_be_shown_a_sentence_says_why(tmp_path: Path) -> None:
    run = write(tmp_path / "a", [start(), step(1)])
    empty = write(tmp_path / "empty", [])
    bare = tmp_path / "bare"
    bare.mkdir()
    for words, said in (
        ([tmp_path / "nowhere"], "nowhere: no such folder; expected a run directory"),
        ([run / "log.jsonl"], "no such folder; expected a run directory"),
        ([bare], "no run directory, there is no log.jsonl in it"),
        ([empty], "no event of a run in it yet"),
        ([run, bare], "no run directory"),
        ([run, run], "is given twice"),
        ([run, empty, bare], "3 runs; a page shows one, or two"),
        ([run, "--out", run / "log.jsonl"], "expected a name that ends in .html"),
        ([run, "--out", bare / "no" / "page.html"], "cannot be written: No such file"),
    ):
        ended = command("report", *words)
        assert ended.returncode == 2
        assert said in ended.stderr and len(ended.stderr.splitlines()) == 1
        assert not ended.stdout
    assert not list(tmp_path.rglob("*.html"))


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [start(), step(1)])
    (tmp_path / "other").mkdir()
    other = Path(shutil.copytree(run, tmp_path / "other" / "run"))
    found = page(run, other)
    assert found.rows["How it went"][""] == [str(run), str(other)]
    assert "Settings that differ None." in " ".join(found.text.split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 ms"),
        (0.026, "26.0 ms"),
        (0.1, "100 ms"),
        (0.9996, "1.00 s"),
        (75, "75.0 s"),
        (3600, "60 min"),
        (7500, "2:05 h"),
        (float("nan"), "–"),
    ],
)
def test_seconds_have_the_unit_that_a_person_would_choose(seconds: float, words: str) -> None:
    assert in_seconds(seconds) == words
