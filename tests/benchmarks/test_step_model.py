"""The model of a step: what hides what, and that no term is forgotten."""

from __future__ import annotations

import pytest
from step_model import BACKWARD, Computing, Constants, exchange_seconds
from step_model import step_seconds as seconds

from mpitrain.commands.traffic import Traffic

KNOWN = Constants(0.5, 1e-9, 1e-6, {"dynamic8": 2e-9})
MOVED = Traffic(out=100.0, into=60.0, everyone=400.0, messages=7.0)


def test_the_backward_pass_hides_what_is_no_longer_than_it() -> None:
    gpu = Computing(3.0)
    assert seconds(gpu, link=2.0, work=1.0) == pytest.approx(3.0)
    assert seconds(gpu, link=5.0, work=1.0) == pytest.approx(1.0 + 5.0)
    assert seconds(gpu, link=1.0, work=7.0) == pytest.approx(1.0 + 7.0)
    assert pytest.approx(2 / 3) == BACKWARD


def test_nothing_hides_what_comes_after_it_or_what_computing_waits_for() -> None:
    assert seconds(Computing(3.0), 2.0, 1.0, streamed=False) == pytest.approx(6.0)
    assert seconds(Computing(3.0, 2), 2.0, 1.0, streamed=False) == pytest.approx(5.5)
    assert seconds(Computing(3.0), 2.0, 1.0, before=0.25) == pytest.approx(3.25)


def test_ranks_that_compute_on_their_cores_pay_for_both() -> None:
    assert seconds(Computing(3.0, 2), link=1.0, work=4.0) == pytest.approx(3.0 + 4.0 / 2)
    assert seconds(Computing(3.0, 2), link=9.0, work=4.0) == pytest.approx(1.0 + 9.0)


def test_an_exchange_takes_its_busiest_link_and_all_its_work() -> None:
    link, work = exchange_seconds(MOVED, 1000, "dynamic8", 10.0, KNOWN)
    assert link == pytest.approx(100 / 5)
    assert work == pytest.approx(1000 * 2e-9 + 100 * 1e-9 + 7e-6)
    in_turn, _ = exchange_seconds(MOVED, 1000, "star-dynamic8", 10.0, KNOWN, streamed=False)
    assert in_turn == pytest.approx(160 / 5)
    _, mean = exchange_seconds(MOVED, 1000, "dynamic8", 10.0, KNOWN, ranks=4)
    assert mean == pytest.approx(1000 * 2e-9 + 100 * 1e-9 + 7e-6)
