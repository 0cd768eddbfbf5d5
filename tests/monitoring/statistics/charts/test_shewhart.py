from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import shewhart

NORMAL = np.random.default_rng(1).normal(10, 2, (20_000, 5))


@pytest.mark.parametrize("chart", [shewhart.xbar, shewhart.r, shewhart.s])
def test_groups_in_control_are_outside_as_rarely_as_their_kind_promises(chart):
    outside = chart(NORMAL).outside.mean()
    promised = {"xbar": 0.0027, "R": 0.0046, "S": 0.0039}[chart(NORMAL).kind]  # R and S are skewed
    assert outside == pytest.approx(promised, abs=4 * np.sqrt(promised / 20_000))


@pytest.mark.parametrize("chart", [shewhart.xbar, shewhart.r, shewhart.s])
def test_each_kind_of_group_finds_the_same_sigma(chart):
    assert chart(NORMAL).spread == pytest.approx(2, rel=0.01)


def test_a_later_chart_judges_by_the_first_ones_centre_and_sigma():
    first = shewhart.xbar(NORMAL)
    later = shewhart.xbar(NORMAL[:10] + 4, first.center[0], first.spread)
    assert later.center[0] == first.center[0]
    assert later.outside.mean() > 0.8


def test_a_gap_is_neither_drawn_nor_outside_and_spoils_nothing_else():
    x = [10.0, 11, np.nan, 10, 11, 10, 11]
    chart = shewhart.individuals(x)
    assert np.isnan(chart.value).tolist() == [False, False, True, False, False, False, False]
    assert not chart.outside[2]
    assert np.isfinite(chart.upper).all()


def test_no_moving_range_spans_a_gap():
    ranges = shewhart.moving_range([1, 2, np.nan, 100, 101]).value
    assert np.isnan(ranges).tolist() == [True, False, True, True, False]
    assert shewhart.individuals([1, 2, np.nan, 100, 101]).spread == pytest.approx(1 / 1.128)


def test_a_series_without_any_spread_has_z_0_on_the_line_and_infinity_off_it():
    chart = shewhart.individuals([5, 5, 6], center=5, sigma=0)
    assert chart.z.tolist() == [0, 0, np.inf]
    assert chart.outside.tolist() == [False, False, True]


@pytest.mark.parametrize("groups", [[], [[1]], [1, 2, 3], [[1, np.inf]], [[1] * 26, [2] * 26], [[np.nan, 1]]])
def test_impossible_groups_are_refused(groups):
    with pytest.raises(ValueError):
        shewhart.xbar(groups)


@pytest.mark.parametrize("x", [[], [1.0], [np.nan, np.nan], [[1, 2]], [1, np.inf]])
def test_a_series_too_short_for_a_moving_range_is_refused(x):
    with pytest.raises(ValueError):
        shewhart.individuals(x)
