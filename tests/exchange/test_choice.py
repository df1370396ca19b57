"""What `auto` means, and why."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mpitrain.exchange.choice import choose


@dataclass
class Ranks:
    size: int
    local_size: int

    @property
    def one_host(self) -> bool:
        return self.size == self.local_size


@pytest.mark.parametrize(
    ("kind", "ranks", "expected", "reason"),
    [
        ("auto", Ranks(1, 1), "float32", "one rank"),
        ("auto", Ranks(4, 4), "float32", "share a host"),
        ("auto", Ranks(4, 2), "dynamic8", "several hosts"),
        ("float16", Ranks(4, 4), "float16", "--exchange float16"),
    ],
)
def test_it_depends_on_where_the_ranks_are(kind: str, ranks: Ranks, expected: str, reason: str) -> None:
    found, why = choose(kind, ranks)
    assert found == expected
    assert reason in why
    assert "\n" not in why
