"""The loop: every step once, hooks after each, a signal, and a hook that is one class and one line
of the registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpitrain
from mpitrain.layers.layer import Pass
from mpitrain.mpi.wait import Lost
from mpitrain.network.graph import Graph
from mpitrain.training import loop
from mpitrain.training.hooks import registry
from mpitrain.training.plan import Plan, Progress
from mpitrain.training.world import World

MakeWorld = Callable[..., World]


class Seen:
    """A hook that notes the steps after which it ran, and does something at one of them."""

    def __init__(
        self,
        plan: Plan | None = None,
        at: int = -1,
        then: Callable[[World], Any] = id,
        name: str = "seen",
    ) -> None:
        self.name = name
        self.steps: list[int] = []
        self._at, self._then = at, then

    def due(self, progress: Progress) -> bool:
        return True

    def run(self, world: World, progress: Progress) -> Progress:
        self.steps.append(progress.step)
        if progress.step == self._at:
            self._then(world)
        return progress


def ask_for_the_end(world: World) -> None:
    world.local.stop.asked = True


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_step_is_done_once_and_hooks_run_after_each(make_world: MakeWorld) -> None:
    world, seen = make_world(steps=4), Seen()
    _, progress = loop.run(world, Progress(0), [seen])
    assert seen.steps == [1, 2, 3, 4]
    assert (progress.step, progress.settled, progress.stop) == (4, True, False)
    assert progress.last is not None
    assert progress.loss == progress.last.loss


BEGINS = {"an evaluation between": {"evaluate_every": "3"}, "an average": {"ema": 0.9}}
WAITS = {
    "clipping": {"clip_norm": 1.0},
    "mixup": {"mixup": 0.2},
    "pieces": {"strict": True},
    "sub-batches": {"sub_batch": 5},
}


@pytest.mark.parametrize("case", [*BEGINS, *WAITS])
def test_one_rank_queues_a_gpus_next_forward_pass_before_it_waits(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    """Where all of it is queued; whatever comes between, weights are those of a run that waits."""
    begun: list[int] = []
    begin, weights = Graph.begin, []

    def noted(self: Graph, run: Pass, *more: Any) -> None:
        begun.append(run.seed)
        begin(self, run, *more)

    monkeypatch.setattr(Graph, "begin", noted)
    for way in ("begins", "waits"):
        if way == "waits":
            monkeypatch.setattr(Graph, "can_begin", False)
        more = BEGINS.get(case) or WAITS[case]
        world = make_world(
            steps=4,
            batch_size=8,
            device="pocl",
            engine="gpu",
            **{"out": str(tmp_path / way), **more},
        )
        loop.run(world, Progress(0), registry.make_hooks(world.plan))
        weights.append(world.local.graph.weights.download())
    assert begun == ([1, 2, 3] if case in BEGINS else [])
    np.testing.assert_array_equal(*weights)


def test_a_signal_ends_the_run_after_the_step_that_hears_it(make_world: MakeWorld) -> None:
    world = make_world(steps=9)
    seen = Seen(at=2, then=ask_for_the_end)
    _, progress = loop.run(world, Progress(0), [*registry.make_hooks(world.plan), seen])
    world.local.log.close()
    assert seen.steps == [1, 2, 3]
    assert progress.stop
    names = [event["event"] for event in events(world.plan.folder)]
    assert names == ["step", "step", "step", "checkpoint", "end"]
    assert (world.plan.folder / "checkpoints" / "step-00000003.safetensors").exists()


def test_no_steps_leave_a_checkpoint_and_no_score(make_world: MakeWorld) -> None:
    world = make_world(steps=0)
    _, progress = loop.run(world, Progress(0), registry.make_hooks(world.plan))
    world.local.log.close()
    assert [event["event"] for event in events(world.plan.folder)] == ["checkpoint", "end"]
    assert progress.scores is None


def test_a_hook_that_ran_after_a_step_does_not_run_after_it_again(make_world: MakeWorld) -> None:
    """When a rank dies among the hooks of a step, those that have run do not run again."""
    world, seen = make_world(steps=2), Seen()
    done = loop.one_step(world, Progress(0))

    def die(world: World) -> None:
        raise Lost("rank 1 is dead")

    progress = done
    with pytest.raises(Lost):
        for settled in loop.settle(world, done, [seen, Seen(at=1, then=die, name="dies")]):
            progress = settled
    assert not progress.settled
    assert list(loop.settle(world, progress, [seen]))[-1].settled
    assert seen.steps == [1]


def test_steps_are_logged_in_order_and_before_what_follows_them(make_world: MakeWorld) -> None:
    world = make_world(steps=4, evaluate_every="2", checkpoint_every="3")
    loop.run(world, Progress(0), registry.make_hooks(world.plan))
    world.local.log.close()
    found = [(event["event"], event["step"]) for event in events(world.plan.folder)]
    assert found == [
        ("step", 1),
        ("step", 2),
        ("evaluate", 2),
        ("step", 3),
        ("checkpoint", 3),
        ("step", 4),
        ("evaluate", 4),
        ("checkpoint", 4),
        ("end", 4),
    ]


def test_the_end_has_the_hash_of_the_weights(make_world: MakeWorld) -> None:
    world = make_world(steps=1)
    _, progress = loop.run(world, Progress(0), registry.make_hooks(world.plan))
    assert progress.hashes == (world.state.sha256(),)


def test_a_world_that_resumes_goes_on_after_the_checkpoint(make_world: MakeWorld) -> None:
    first = make_world(steps=3)
    _, straight = loop.run(first, Progress(0), registry.make_hooks(first.plan))
    (first.plan.folder / "checkpoints" / "step-00000003.safetensors").unlink()
    again = make_world(steps=2, out=str(first.plan.folder.with_name("other")))
    loop.run(again, Progress(0), registry.make_hooks(again.plan))
    resumed = make_world(steps=3, out=str(again.plan.folder), resume="newest")
    seen = Seen()
    _, progress = loop.run(
        resumed, Progress(resumed.plan.begun), [*registry.make_hooks(resumed.plan), seen]
    )
    assert seen.steps == [3]
    assert progress.hashes == straight.hashes


def test_a_hook_is_one_class_and_one_line_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Seen] = []

    def make(plan: Plan) -> Seen:
        made.append(Seen(plan))
        return made[-1]

    monkeypatch.setattr(registry, "HOOKS", [*registry.HOOKS, make])
    result = mpitrain.train(mpitrain.Run("lenet", steps=2, out=str(tmp_path / "run"), quiet=True))
    assert result.exit_code == 0
    assert [hook.steps for hook in made] == [[1, 2]]


def test_other_ranks_take_rank_0s_progress_but_keep_their_own_report(make_world: MakeWorld) -> None:
    world = make_world(steps=3, evaluate_every="1")
    _, progress = loop.run(world, Progress(0), registry.make_hooks(world.plan))
    mine = Progress(2, last=progress.last)
    taken = mine.as_first_rank(json.loads(json.dumps(progress.as_json())))
    assert taken == replace(progress, notes={}, done=dict(progress.done))
