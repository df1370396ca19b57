"""An evaluation by itself shares its host as training does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpitrain.commands import evaluate
from mpitrain.job.errors import UserError


class Rank:
    """The second of two ranks on a host of four cores, as far as an evaluation asks before it
    computes."""

    ranks = SimpleNamespace(host="here/0", rank=1, local_rank=1, size=3)

    @property
    def agree(self) -> Rank:
        return self

    def neighbours(self, fact: Any) -> list[Any]:
        assert fact == [0, 1, 2, 3]
        return [fact, fact]

    def together(self, make: Callable[[], Any]) -> Any:
        return make()


def test_ranks_of_a_host_share_its_cores_before_a_device_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []

    def load(*_: Any, **more: Any) -> None:
        done.append(("load", more["local_rank"]))
        raise UserError("far enough")

    monkeypatch.setattr(evaluate, "connect", Rank)
    monkeypatch.setattr(evaluate, "own_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(evaluate, "prepare", lambda cores: done.append(("bind", cores)))
    monkeypatch.setattr(evaluate, "load", load)
    with pytest.raises(UserError, match="far enough"):
        evaluate.evaluate_checkpoint(Path("x"), None, 8, "cpu", as_json=False)
    assert done == [("bind", [2, 3]), ("load", 1)]
