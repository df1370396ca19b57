"""What --trace writes: one file of all ranks that a viewer can read. The training is as without."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from launcher import Ended, Launch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROUNDING = 0.0025
"""Microseconds: times of the file are whole nanoseconds."""


class Read:
    """A trace, checked as it is read: spans lie within each other or side by side, messages have
    both ends, and none is here before it set out."""

    def __init__(self, path: Path, lost: bool = False) -> None:
        """lost: a rank has died, and with it ends of messages."""
        whole = json.loads(path.read_text())
        self.events: list[dict[str, Any]] = whole["traceEvents"]
        self.other: dict[str, Any] = whole["otherData"]
        self.spans = [event for event in self.events if event["ph"] == "X"]
        self.ranks = sorted({event["pid"] for event in self.spans})
        self.names = {
            (event["pid"], event["tid"]): event["args"]["name"]
            for event in self.events
            if event["ph"] == "M" and event["name"].endswith("_name")
        }
        self._check_nesting()
        self.flights = self._flights()
        spoken = sum(
            len(span["args"].get(way, ())) for span in self.spans for way in WAYS if "args" in span
        )
        assert lost or spoken == 2 * len(self.flights), "a message has one end only"

    def _check_nesting(self) -> None:
        rows = defaultdict(list)
        for span in self.spans:
            assert span["ts"] >= 0 and span["dur"] > 0, span
            rows[span["pid"], span["tid"]].append(span)
        assert rows.keys() <= self.names.keys()
        for spans in rows.values():
            ends: list[float] = []
            for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
                while ends and ends[-1] <= span["ts"] + ROUNDING:
                    ends.pop()
                end = span["ts"] + span["dur"]
                assert not ends or end <= ends[-1] + ROUNDING, span
                ends.append(end)

    def _flights(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The spans at both ends of each message."""
        ends: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
        for event in self.events:
            if event["ph"] in "sf":
                assert event["ph"] not in ends[event["id"]]
                ends[event["id"]][event["ph"]] = event
        errors = self.other["clock_error_us"]
        found = []
        for both in ends.values():
            sent, received = both["s"], both["f"]
            assert sent["pid"] != received["pid"]
            error = errors[str(sent["pid"])] + errors[str(received["pid"])]
            assert received["ts"] >= sent["ts"] - error - ROUNDING, both
            source, target = self._span_at(sent), self._span_at(received)
            to, came = source["args"]["bytes to rank"], target["args"]["bytes from rank"]
            assert source["name"] == target["name"]
            assert source["args"].get("bucket") == target["args"].get("bucket")
            assert to[str(received["pid"])] == came[str(sent["pid"])] > 0
            found.append((source, target))
        return found

    def _span_at(self, event: dict[str, Any]) -> dict[str, Any]:
        """The message's span, which begins where it sets out or ends where it is here."""

        def away(span: dict[str, Any]) -> float:
            end = span["dur"] if event["ph"] == "f" else 0
            return abs(span["ts"] + end - event["ts"])

        row = (event["pid"], event["tid"])
        found = min((span for span in self.spans if (span["pid"], span["tid"]) == row), key=away)
        assert away(found) <= ROUNDING, event
        return found

    def of(self, rank: int, row: str) -> list[dict[str, Any]]:
        """The spans in a row, by its name's beginning."""
        return [
            span
            for span in self.spans
            if span["pid"] == rank and self.names[rank, span["tid"]].startswith(row)
        ]


WAYS = ("bytes to rank", "bytes from rank")


def steps(found: Read, rank: int) -> list[str]:
    return [span["name"] for span in found.of(rank, "main") if span["name"].startswith("step")]


def phases(found: Read, rank: int) -> list[str]:
    """Those of the first step, in order."""
    (first, *_) = (span for span in found.of(rank, "main") if span["name"].startswith("step"))
    inner = [
        span for span in found.of(rank, "main")
        if first["ts"] <= span["ts"] < first["ts"] + first["dur"] and span is not first
    ]  # fmt: skip
    outermost = [inner[0]]
    for _, span in pairwise(inner):
        if span["ts"] >= outermost[-1]["ts"] + outermost[-1]["dur"] - ROUNDING:
            outermost.append(span)
    return [span["name"] for span in outermost]


def trained(launch: Launch, out: Path, ranks: int, *words: object) -> tuple[Ended, Read]:
    ended = launch.trains(
        "lenet", "--steps", 6, "--evaluate-every", 100, "--trace", 2, *words, ranks=ranks, out=out
    )
    return ended, Read(out / "trace.json")


@pytest.mark.parametrize(
    ("ranks", "words", "messages"),
    [
        (1, (), set()),
        (2, ("--exchange", "window"), set()),
        (
            2,
            ("--exchange", "dynamic8", "--device", "pocl", "--engine", "gpu"),
            {"gradients", "weights"},  # of buckets that are not coded
        ),
        (2, ("--exchange", "float32", "--no-streaming"), {"gradients", "weights"}),
        (
            3,
            ("--exchange", "dynamic8", "--clip-norm", 1),
            {"codes of gradients", "codes of means", "codes of changes of weights"},
        ),
        (
            3,
            ("--exchange", "lowrank", "--dense", "split:1000"),
            {"activations", "left factors or gradients", "sums of right factors"},
        ),
    ],
)
def test_a_trace_has_every_rank_and_both_ends_of_every_message(
    ranks: int, words: tuple[object, ...], messages: set[str], launch: Launch, tmp_path: Path
) -> None:
    ended, found = trained(launch, tmp_path / "run", ranks, *words)
    assert found.ranks == list(range(ranks))
    assert found.other["steps"] == [3, 4]
    for rank in range(ranks):
        assert steps(found, rank) == ["step 3", "step 4"]
        assert phases(found, rank) == ["data", "forward", "backward", "wait", "agree"]
        layers = [span["name"] for span in found.of(rank, "device")]
        for name in ("conv1 forward", "conv1 backward", "fc2 forward", "loss backward"):
            assert layers.count(name) == 2, name
    assert any(span["name"] == "update" for span in found.of(0, "device"))
    named = {source["name"] for source, _ in found.flights}
    assert named >= messages | ({"images"} if ranks > 1 else set())
    (event,) = ended.events("trace")
    assert event["path"] == str(tmp_path / "run" / "trace.json")
    assert event["steps"] == [3, 4] and 0 <= event["clock_error"] < 1


def test_means_of_running_statistics_are_no_buckets_messages(
    small_network: Path, small_data: Path, launch: Launch, tmp_path: Path
) -> None:
    words = ("--data", small_data, "--steps", 6, "--evaluate-every", 1, "--trace", 2)
    launch.trains(small_network, *words, "--exchange", "dynamic8", ranks=3, out=tmp_path / "run")
    found = Read(tmp_path / "run" / "trace.json")
    by_name = {sent["name"]: "bucket" in sent["args"] for sent, _ in found.flights}
    assert by_name == {
        "images": False, "gradients": True, "weights": True, "sum": False, "gather": False
    }  # fmt: skip


@pytest.fixture(scope="module")
def traced(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    out = tmp_path_factory.mktemp("traced") / "run"
    words = ("lenet", "--steps", 6, "--exchange", "dynamic8", "--trace")
    return launch.trains(*words, ranks=2, out=out)


def test_the_weights_are_those_without_a_trace(
    traced: Ended, launch: Launch, tmp_path: Path
) -> None:
    words = ("lenet", "--steps", 6, "--exchange", "dynamic8")
    plain = launch.trains(*words, ranks=2, out=tmp_path / "plain")
    assert not (tmp_path / "plain" / "trace.json").exists()
    assert traced.weights == plain.weights
    assert "steps 3 to 6 are in" in traced.out


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_a_step_of_it(traced: Ended, launch: Launch, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    launch("report", traced.folder, out=page)
    ended = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    _, heading, step = ended.stdout.partition("One step on all ranks")
    picture, closed, _ = step.partition("</svg></div></figure>")
    assert heading and closed, ended.stdout
    for words in ("rank 1: ", "exchange thread", "conv2 backward, ", "codes of gradients, "):
        assert words in picture
    assert "CONSOLE" not in ended.stderr, ended.stderr


def test_a_rank_that_dies_leaves_a_file_that_says_why_it_is_empty(
    launch: Launch, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    fault = ("--inject", "kind=kill,rank=1,step=3,phase=forward")
    ended = launch("lenet", "--steps", 9, "--trace", *fault, ranks=2, out=out)
    assert ended.code != 0
    whole = json.loads((out / "trace.json").read_text())
    assert whole["otherData"]["state"] == (
        "nothing is here: the run ended before steps 3 to 7 were done"
    )


def test_those_that_go_on_without_a_rank_leave_a_trace_of_theirs(
    launch: Launch, tmp_path: Path
) -> None:
    if launch.exact:
        pytest.skip("MPICH ends a job when a rank dies: this needs Open MPI 5")
    words = ("lenet", "--steps", 9, "--trace", "--exchange", "dynamic8")
    fault = ("--on-failure", "continue", "--inject", "kind=kill,rank=1,step=4,phase=exchange")
    launch(*words, *fault, ranks=3, out=tmp_path / "run", flags=("--with-ft", "ulfm"))
    found = Read(tmp_path / "run" / "trace.json", lost=True)
    assert found.ranks == [0, 2] and found.other["ranks_at_start"] == 3
    assert steps(found, 2)[-1] == "step 7"
    assert {target["pid"] for _, target in found.flights} == {0, 2}
    weights = [sent["args"] for sent, _ in found.flights if sent["name"] == "broadcast"]
    assert weights and not any("bucket" in facts for facts in weights), "these are no bucket's"


def test_a_signal_ends_the_trace_where_the_run_ends(launch: Launch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fault = ("--inject", "kind=term,rank=1,step=4,phase=forward")
    ended = launch("lenet", "--steps", 90, "--trace", 50, *fault, ranks=2, out=out)
    launch.ends_with(ended, 75)
    last = int(ended.end["step"])
    assert Read(out / "trace.json").other["steps"] == [3, last]
    events = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert events.index("checkpoint") < events.index("trace"), "a signal leaves little time"


def test_a_run_that_stops_early_leaves_its_trace(launch: Launch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    early = ("--lr", 1e-12, "--patience", 4, "--evaluate-every", 1)
    ended = launch.trains("lenet", "--steps", 30, "--trace", 20, *early, out=out)
    assert Read(out / "trace.json").other["steps"] == [3, ended.end["step"]]
    assert 3 < ended.end["step"] < 10


def test_a_run_of_one_step_has_nothing_to_trace(launch: Launch, tmp_path: Path) -> None:
    ended = launch.trains("lenet", "--steps", 1, "--trace", out=tmp_path / "run")
    assert "--trace: the run ended before anything was traced" in ended.out
    assert not (tmp_path / "run" / "trace.json").exists()


def test_a_disk_that_takes_no_trace_does_not_end_the_run(launch: Launch, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "trace.json" / "in the way").mkdir(parents=True)
    ended = launch.trains("lenet", "--steps", 4, "--trace", out=out)
    assert "trace.json cannot be written: Is a directory" in ended.out
    shutil.rmtree(out)
