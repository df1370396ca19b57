"""What `auto` means, and why."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mpitrain.exchange.choice import LOSSY_TIME_MAX, candidates, choose, coded_from, quickest


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
def test_it_depends_on_where_the_ranks_are(
    kind: str, ranks: Ranks, expected: str, reason: str
) -> None:
    found, why = choose(kind, ranks)
    assert found == expected
    assert reason in why
    assert "\n" not in why


ONE, SEVERAL = Ranks(4, 4), Ranks(4, 2)


@pytest.mark.parametrize(
    ("ranks", "seconds", "expected"),
    [
        (ONE, {"float32": 0.010, "window": 0.002}, "window"),
        (ONE, {"float32": 0.010, "window": 0.015}, "window"),  # a busy host, not slow memory
        (ONE, {"float32": 0.010, "window": 0.030}, "float32"),
        (ONE, {"float32": 0.010}, "float32"),
        (SEVERAL, {"float32": 0.400, "dynamic8": 0.110}, "dynamic8"),
        (SEVERAL, {"float32": 0.010, "dynamic8": 0.009}, "float32"),  # exact, and as fast
        (SEVERAL, {"float32": 0.010, "dynamic8": 0.050}, "float32"),
    ],
)
def test_what_was_measured_decides(ranks: Ranks, seconds: dict[str, float], expected: str) -> None:
    found, why = choose("auto", ranks, seconds)
    assert found == expected
    assert all(name in why for name in seconds)
    assert "\n" not in why


def test_only_what_may_be_chosen_is_measured() -> None:
    assert candidates("auto", Ranks(1, 1)) == candidates("dynamic8", SEVERAL) == ()
    assert candidates("auto", ONE) == ("float32", "window")
    assert candidates("auto", SEVERAL) == ("float32", "dynamic8")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"library": 1.0}, "library"),
        ({"library": 1.0, "window": 0.99}, "library"),  # may be noise
        ({"library": 1.0, "window": 0.9}, "window"),
        ({"library": 1.0, "dynamic8": 0.98}, "library"),  # not worth its rounding
        ({"library": 1.0, "dynamic8": 0.9}, "dynamic8"),
        ({"doubling": 1.0, "library": 1.2, "dynamic8": 0.99, "window": 1.5}, "doubling"),
    ],
)
def test_a_length_takes_what_is_quickest(seconds: dict[str, float], expected: str) -> None:
    assert quickest({way: [time] * 5 for way, time in seconds.items()}) == expected


def test_ways_are_compared_turn_by_turn() -> None:
    """A turn that was slow for all says nothing, nor do single ones."""
    own = [1.0, 1.0, 1.0, 5.0, 5.0]
    better, lucky = [0.9, 0.9, 0.9, 4.5, 4.5], [0.1, 0.1, 1.1, 5.5, 5.5]
    assert quickest({"library": own, "doubling": lucky}) == "library"
    assert quickest({"library": own, "doubling": better}) == "doubling"


@pytest.mark.parametrize(
    ("kind", "few", "many", "expected"),
    [
        ("dynamic8", (0.002, 0.004), (0.100, 0.030), 1000 + 0.0024 * 9000 / (0.05 + 0.0024)),
        ("dynamic8", (0.010, 0.004), (0.100, 0.030), 0),  # worth it for short ones as well
        ("window", (0.002, 0.004), (0.100, 0.030), 0),  # exact
    ],
)
def test_short_buckets_are_coded_where_that_pays(
    kind: str, few: tuple[float, float], many: tuple[float, float], expected: float
) -> None:
    measured = {
        1000: {"float32": few[0], kind: few[1]},
        10_000: {"float32": many[0], kind: many[1]},
    }
    found = coded_from(kind, measured)
    assert found == int(expected)
    assert coded_from(kind, {1000: measured[1000]}) == 0
    if found:  # there both kinds cost the same, but for what rounding must be worth
        exact, coded = (
            at_few + (at_many - at_few) / 9000 * (expected - 1000)
            for at_few, at_many in zip(few, many, strict=True)
        )
        assert coded == pytest.approx(LOSSY_TIME_MAX * exact)
