from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import weighted


def test_fixed_limits_are_those_that_time_varying_ones_reach():
    x = np.zeros(200)
    fixed = weighted.ewma(x, 0, 1, 0.1, 2.7, "fixed")
    varying = weighted.ewma(x, 0, 1, 0.1, 2.7, "time_varying")
    assert varying.upper[0] == pytest.approx(0.27)
    assert varying.upper[-1] == pytest.approx(fixed.upper[-1])


def test_lambda_1_is_the_plain_chart():
    x = [0.0, 3.5, -1]
    chart = weighted.ewma(x, 0, 1, 1, 3, "fixed")
    assert chart.value.tolist() == x
    assert chart.outside.tolist() == [False, True, False]


def test_the_weighted_mean_holds_over_a_gap():
    chart = weighted.ewma([1, np.nan, 1], 0, 1, 0.5, 3, "fixed")
    assert chart.value[2] == 0.75
    assert np.isnan(chart.value[1])


def test_time_varying_limits_do_not_widen_while_nothing_is_seen():
    gap = weighted.ewma([1, np.nan, 1], 0, 1, 0.5, 3, "time_varying")
    none = weighted.ewma([1, 1], 0, 1, 0.5, 3, "time_varying")
    assert gap.upper[2] == none.upper[1]


def test_the_sums_hold_over_a_gap():
    found = weighted.cusum([1, np.nan, 1], 0, 0.5, 5)
    assert found.high[2] == 1.0
    assert found.low[2] == 0.0
    assert not found.signals[1]


def test_either_side_signals():
    up = weighted.cusum([2, 2, 2, 2], 0, 0.5, 5).signals
    down = weighted.cusum([-2, -2, -2, -2], 0, 0.5, 5).signals
    assert up.tolist() == down.tolist() == [False, False, False, True]


@pytest.mark.parametrize(("lam", "sigma"), [(0, 1), (1.1, 1), (0.2, -1), (0.2, np.nan)])
def test_an_ewma_without_memory_or_scale_is_refused(lam, sigma):
    with pytest.raises(ValueError):
        weighted.ewma([1, 2], 0, sigma, lam, 3, "fixed")


@pytest.mark.parametrize(("k", "h"), [(-1, 5), (0.5, 0), (0.5, np.nan)])
def test_a_cusum_without_a_limit_is_refused(k, h):
    with pytest.raises(ValueError):
        weighted.cusum([1, 2], 0, k, h)
