"""Pictures of curves: axes hold all values, and thinned curves keep their peaks."""

from __future__ import annotations

import re

import pytest

from mpitrain.commands.picture import Curve, draw, log_ticks, thin_out, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0), (3, 3), (-2, 5), (0.9721, 0.9861), (1, 1e6), (0, 1e-7)]
)
def test_ticks_are_few_and_hold_all_values(low: float, high: float) -> None:
    found = ticks(low, high)
    gap = found[1] - found[0]
    assert found[0] <= low + gap * 1e-9 and found[-1] >= high - gap * 1e-9
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))


@pytest.mark.parametrize(("low", "high"), [(0.004, 2.6), (1e-3, 1.0), (1e-20, 1e20), (0.9, 30)])
def test_ticks_of_a_logarithmic_scale_are_few_and_hold_all_values(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert found[0] <= low and found[-1] >= high
    assert 3 <= len(found) <= 10
    assert found == sorted(set(found))


def test_steps_have_no_fractions() -> None:
    assert ticks(1, 2, whole=True) == [1, 2]


def test_a_long_curve_is_thinned_out_and_keeps_its_peaks() -> None:
    points = [(step, 1.0) for step in range(100_000)]
    points[31_234] = (31_234, 9.0)
    points[77_777] = (77_777, -9.0)
    found = thin_out(points)
    assert len(found) <= 1000
    assert {(31_234, 9.0), (77_777, -9.0)} <= set(found)
    assert [step for step, _ in found] == sorted(step for step, _ in found)


def test_every_point_lies_inside_the_picture() -> None:
    points = [(step, value) for step, value in enumerate([0.001, 700, 3, 0.5])]
    for logarithmic in (False, True):
        text = draw("Loss", [Curve("a", points, "#000", marked=True)], logarithmic=logarithmic)
        assert ("log scale" in text) is logarithmic
        (found,) = re.findall(r'points="(.+?)"', text)
        for point in found.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 440 and 0 <= y <= 250


def test_words_of_a_legend_are_escaped() -> None:
    text = draw("Loss", [Curve("<b>", [(1, 1.0)], "#000")])
    assert "<b>" not in text and "&lt;b&gt;" in text
