"""The best checkpoint stays, also over a resumption; and a run whose scores no longer rise ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpitrain.job.checkpoint import BEST, Reader, file_of
from mpitrain.job.errors import UserError
from mpitrain.training import loop
from mpitrain.training.hooks import registry
from mpitrain.training.hooks.evaluate import Best, Scores
from mpitrain.training.plan import Progress
from mpitrain.training.world import World

MakeWorld = Callable[..., World]
STILL: dict[str, Any] = {"lr": 1e-30, "evaluate_every": "1", "checkpoint_every": "1"}
"""Weights that do not move, so that the first score stays the best."""


def trained(world: World) -> Progress:
    progress = loop.run(world, world.plan.first(), registry.make_hooks(world.plan))[1]
    world.local.log.close()
    return progress


def files(world: World) -> list[str]:
    return sorted(path.name for path in (world.plan.folder / "checkpoints").iterdir())


def names(*steps: int) -> list[str]:
    return [f"step-{step:08d}.safetensors" for step in steps]


def test_the_best_one_and_the_newest_stay(make_world: MakeWorld) -> None:
    world = make_world(steps=4, keep="best,2", **STILL)
    progress = trained(world)
    assert progress.best and progress.best.step == 1
    assert files(world) == [BEST, *names(1, 3, 4)]
    with Reader(file_of(world.plan.folder / "checkpoints" / BEST)) as reader:
        assert reader.settings()["step"] == 1
    assert trained(make_world(steps=6, keep="best,2", resume="newest", **STILL)).best == (
        progress.best
    )
    assert files(world) == [BEST, *names(1, 5, 6)]


def test_a_best_one_is_written_when_it_is_found(make_world: MakeWorld) -> None:
    world = make_world(
        steps=5, keep="best,1", **{**STILL, "checkpoint_every": "100", "evaluate_every": "2"}
    )
    trained(world)
    assert files(world) == [BEST, *names(2, 5)]


def test_where_links_are_refused_the_best_one_is_copied(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links on this disk")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    world = make_world(steps=2, keep="best,1", **STILL)
    trained(world)
    folder = world.plan.folder / "checkpoints"
    assert files(world) == [BEST, *names(1, 2)] and not (folder / BEST).is_symlink()
    assert (folder / BEST).read_bytes() == (folder / names(1)[0]).read_bytes()


def test_as_many_as_asked_for_stay_without_the_best(make_world: MakeWorld) -> None:
    world = make_world(steps=4, keep="2", **STILL)
    trained(world)
    assert files(world) == names(3, 4)


def test_a_run_ends_when_its_patience_is_over(make_world: MakeWorld) -> None:
    world = make_world(steps=9, patience=2, **STILL)
    progress = trained(world)
    assert (progress.step, progress.early, progress.waited) == (3, True, 2)
    assert world.plan.is_done(progress)
    log = [json.loads(line) for line in (world.plan.folder / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in log][-4:] == ["evaluate", "early", "checkpoint", "end"]
    assert log[-1]["exit"] == 0 and log[-3]["best_step"] == 1
    assert trained(make_world(steps=9, patience=2, resume="newest", **STILL)).step == 3
    assert trained(make_world(steps=9, patience=4, resume="newest", **STILL)).step == 5


def test_a_better_score_is_a_higher_top1_or_a_lower_loss() -> None:
    best = Best(1, top1=0.5, loss=1.0)
    assert best.is_beaten_by(Scores(2.0, 0.6, 1.0, 9))
    assert best.is_beaten_by(Scores(0.9, 0.5, 1.0, 9))
    assert not best.is_beaten_by(Scores(1.0, 0.5, 1.0, 9))
    assert not best.is_beaten_by(Scores(0.1, 0.4, 1.0, 9))


def test_other_ranks_take_rank_0s_best(make_world: MakeWorld) -> None:
    progress = trained(make_world(steps=2, keep="best,1", **STILL))
    told = json.loads(json.dumps(progress.as_json()))
    assert Progress(2).as_first_rank(told).best == progress.best


@pytest.mark.parametrize("options", [{"patience": 3}, {"keep": "best,3"}])
def test_without_test_images_there_is_no_best(
    make_world: MakeWorld, tmp_path: Path, options: dict[str, Any]
) -> None:
    images = np.zeros((8, 1, 28, 28), np.uint8)
    images[::2] = 255
    np.savez(tmp_path / "only.npz", images=images, labels=np.arange(8) % 2)
    (name, value), *_ = options.items()
    with pytest.raises(UserError, match=rf"--{name} {value}: .*only.npz has no test images"):
        make_world(steps=1, data=str(tmp_path / "only.npz"), batch_size=4, **options)
