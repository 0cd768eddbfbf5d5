from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import attributes


def test_limits_follow_each_points_own_n_and_stay_in_0_1():
    chart = attributes.p([0, 10, 100], [1, 100, 10_000], center=0.01)
    assert chart.lower.tolist()[:2] == [0, 0]
    assert (np.diff(chart.upper) < 0).all()
    assert chart.outside.tolist() == [False, True, False]


def test_shares_in_control_are_outside_three_sigmas_as_rarely_as_promised():
    events = np.random.default_rng(1).binomial(2000, 0.3, 20_000)
    chart = attributes.p(events, np.full(20_000, 2000), center=0.3)
    assert chart.outside.mean() == pytest.approx(0.0027, abs=0.0012)


def test_np_is_p_in_numbers_of_events():
    events, n = [12, 15, 8], [50, 60, 70]
    share, number = attributes.p(events, n), attributes.np_(events, n)
    np.testing.assert_allclose(number.upper, share.upper * n)
    np.testing.assert_allclose(number.z, share.z)


def test_c_is_u_of_units_of_one():
    assert attributes.c([3, 5, 9]).upper.tolist() == attributes.u([3, 5, 9], [1, 1, 1]).upper.tolist()


def overdispersed(n: int = 100_000, days: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Shares that vary from point to point by .01 besides the binomial noise of .001."""
    rng = np.random.default_rng(2)
    return rng.binomial(n, rng.normal(0.1, 0.01, days)), np.full(days, n)


def test_plain_p_calls_most_points_of_a_restless_fleet_outside_and_laney_hardly_any():
    events, n = overdispersed()
    assert attributes.p(events, n).outside.mean() > 0.7
    assert attributes.laney_p(events, n).outside.mean() < 0.006


def test_laney_u_stretches_u_by_the_variation_of_its_z():
    events, n = overdispersed()
    plain, stretched = attributes.u(events, n), attributes.laney_u(events, n)
    np.testing.assert_allclose(stretched.sigma, plain.sigma * stretched.spread)
    assert stretched.spread > 5


def test_a_later_laney_chart_is_given_the_stretch_of_the_first():
    events, n = overdispersed()
    first = attributes.laney_p(events, n)
    later = attributes.laney_p([12_000, 16_000], [100_000] * 2, first.center[0], first.spread)
    assert later.outside.tolist() == [False, True]


def test_a_gap_counts_for_nothing():
    with_gap = attributes.p([5, np.nan, 7], [50, 0, 50])
    assert with_gap.center[0] == 0.12
    assert np.isnan(with_gap.value[1])
    assert np.isnan(with_gap.upper[1])
    assert not with_gap.outside[1]


@pytest.mark.parametrize(
    ("events", "n"),
    [([], []), ([1], [0]), ([2], [1]), ([-1], [5]), ([1, 2], [5]), ([np.nan], [5]), ([1], [np.nan])],
)
def test_impossible_points_are_refused(events, n):
    with pytest.raises(ValueError):
        attributes.p(events, n)


@pytest.mark.parametrize("defects", [[], [-1], [np.inf], [np.nan]])
def test_impossible_defects_are_refused(defects):
    with pytest.raises(ValueError):
        attributes.c(defects)
