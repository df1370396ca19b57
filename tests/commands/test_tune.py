"""`mpitrain tune` measures every candidate, throws out wrong ones and those that die, and training
takes its choice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mpitrain.commands import tune
from mpitrain.commands.tune_worker import measure
from mpitrain.engine.engine import Engine
from mpitrain.engine.registry import open_device
from mpitrain.layers import Convolution
from mpitrain.layers.conv.choice import candidates
from mpitrain.layers.conv.geometry import Geometry
from mpitrain.layers.conv.registry import FAMILIES
from mpitrain.network import models
from mpitrain.runtime.platforms import cache_folder

SMALL = Geometry(20, 12, 12, 50, 3, 3, 12, 12, (1, 1), (1, 1), 1)
GROUPS = Geometry(2, 9, 8, 4, 3, 3, 5, 4, (2, 2), (1, 1), 6)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices of its own, beside the compiled kernels of all tests."""
    everyones = cache_folder().parent
    for name in ("mpitrain/programs", "mpitrain/vendors", "pocl"):
        (everyones / name).mkdir(exist_ok=True)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(everyones / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_network_is_tuned_and_the_choice_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    tune.tune("lenet", None, 2, "intel", again=False)
    said = capsys.readouterr().out
    assert "forward" in said and "direct" in said and "implicit" in said and "kept in" in said
    device = open_device("intel")
    problems = tune.problems_of("lenet", models.load("lenet"))
    assert [each.what for each in problems].count("backward data") == 1, "images have no gradient"
    for each in problems:
        entry = device.tuned.entry(str(each), 2)
        assert entry and set(entry["measured"]) == {"direct", "implicit"}
    # Training takes what is remembered, whatever it is.
    first = problems[0]
    device.tuned.keep(str(first), 16, "implicit", {})
    layer = Convolution(first.geometry.k, 5)
    layer.build(device, (1, 28, 28))
    assert layer.algorithms["forward"] == "implicit"


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device("intel")
    for each in tune.problems_of("lenet", models.load("lenet")):
        device.tuned.keep(str(each), 2, "direct", {"direct": {"seconds": 1.0, "error": 0.0}})
    monkeypatch.setattr(tune.Worker, "measure", lambda *_: pytest.fail("measured again"))
    tune.tune("lenet", None, 2, "intel", again=False)


@pytest.mark.parametrize(
    ("now", "winograd4", "direct", "taken"),
    [
        (None, 1.0, 0.96, "winograd4"),  # a count of the work favours it
        (None, 1.0, 0.94, "direct"),
        ("direct", 1.0, 1.04, "direct"),
        ("direct", 1.0, 1.07, "winograd4"),
        ("direct", 1.0, None, "winograd4"),  # it fails now
        ("gone", 1.0, 0.99, "winograd4"),
    ],
)
def test_what_is_faster_by_less_than_the_noise_changes_no_choice(
    monkeypatch: pytest.MonkeyPatch,
    now: str | None,
    winograd4: float,
    direct: float | None,
    taken: str,
) -> None:
    seconds = {"winograd4": winograd4, "direct": direct}
    network = models.load("vgg11")
    problem = next(each for each in tune.problems_of("vgg11", network) if each.geometry.c == 512)
    monkeypatch.setattr(tune, "problems_of", lambda *_: [problem])
    both = dict.fromkeys(seconds, FAMILIES["winograd"]) | {"direct": FAMILIES["direct"]}
    monkeypatch.setattr(tune, "candidates", lambda *_: both)
    monkeypatch.setattr(
        tune.Worker,
        "measure",
        lambda _, problem, way, images: (
            {"seconds": s, "error": 0.0} if (s := seconds[way]) else {"failed": "broken"}
        ),
    )
    if now:
        open_device("intel").tuned.keep(str(problem), 2, now, {now: {"seconds": 1.0, "error": 0.0}})
    tune.tune("vgg11", None, 2, "intel", again=True)
    assert open_device("intel").tuned.choice(str(problem), 2) == taken


@pytest.mark.parametrize("geometry", [SMALL, GROUPS], ids=str)
def test_the_worker_finds_errors_small_for_every_algorithm(
    device: Engine, geometry: Geometry
) -> None:
    for what in ("forward", "backward data", "backward filter"):
        for way in candidates(device, geometry, what):
            assert measure(device, what, geometry, way, 2)["error"] < tune.BOUND, (what, way)


def test_an_algorithm_that_is_too_inexact_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "BOUND", 1e-9)
    worker = tune.Worker("intel")
    try:
        found = worker.measure(tune.Problem("forward", SMALL, 1), "winograd4", 2)
    finally:
        worker.close()
    assert "is off by" in found["failed"]


def test_a_candidate_that_takes_its_process_down_costs_only_itself() -> None:
    worker = tune.Worker("intel")
    good = list(worker._command)
    worker._command = [sys.executable, "-c", "import os; input(); os.abort()"]
    problem = tune.Problem("forward", SMALL, 1)
    try:
        assert worker.measure(problem, "direct", 2)["failed"] == "took its process down"
        worker._command = good
        assert worker.measure(problem, "direct", 2)["seconds"] > 0
    finally:
        worker.close()


def test_a_candidate_that_hangs_is_stopped() -> None:
    worker = tune.Worker("intel", limit=0.5)
    worker._command = [sys.executable, "-c", "import time; time.sleep(60)"]
    try:
        found = worker.measure(tune.Problem("forward", SMALL, 1), "direct", 2)
    finally:
        worker.close()
    assert found["failed"] == "took more than 0.5 s"
