"""How often chance fires: the facts that the design states, and what must hold of any run length."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import run_length, weighted

HOURS_30_DAYS = 720


def test_three_sigmas_fire_once_in_370_points():
    assert run_length.arl_shewhart() == pytest.approx(370.4, abs=0.05)


@pytest.mark.parametrize(("limits", "arl"), [("fixed", 371.9), ("time_varying", 359.0)])
def test_an_ewma_of_lambda_point_1_and_width_2_703(limits, arl):
    assert run_length.arl_ewma(0.1, 2.703, limits=limits) == pytest.approx(arl, abs=0.05)


@pytest.mark.parametrize(("lam", "width"), [(0.1, 2.945), (0.2, 3.082)])
def test_ewma_widths_for_one_false_alarm_in_30_days_of_hours(lam, width):
    assert run_length.ewma_width(lam, HOURS_30_DAYS) == pytest.approx(width, abs=0.0005)


def test_the_cusum_h_for_one_false_alarm_in_30_days_of_hours():
    assert run_length.cusum_h(0.5, HOURS_30_DAYS) == pytest.approx(5.43, abs=0.005)


def test_a_shift_of_one_sigma_is_seen_sooner_with_memory():
    alone = run_length.arl_shewhart(shift=1)
    assert run_length.arl_cusum(0.5, 4.774, 1) < alone / 3
    assert run_length.arl_ewma(0.1, 2.703, 1) < alone / 3


def test_up_and_down_are_alike():
    assert run_length.arl_cusum(0.5, 5, -1) == pytest.approx(run_length.arl_cusum(0.5, 5, 1))
    assert run_length.arl_ewma(0.2, 3, -1) == pytest.approx(run_length.arl_ewma(0.2, 3, 1))
    assert run_length.arl_rules([1, 2, 3, 4], -1) == pytest.approx(run_length.arl_rules([1, 2, 3, 4], 1))


@pytest.mark.parametrize("limits", ["fixed", "time_varying"])
def test_lambda_1_is_the_plain_chart(limits):
    assert run_length.arl_ewma(1, 3, 0.5, limits) == pytest.approx(run_length.arl_shewhart(3, 0.5))


def test_the_design_is_the_inverse_of_the_run_length():
    for arl0 in (50, 370, 5000):
        assert run_length.arl_cusum(0.5, run_length.cusum_h(0.5, arl0)) == pytest.approx(arl0, rel=1e-5)
        width = run_length.ewma_width(0.2, arl0, "time_varying")
        assert run_length.arl_ewma(0.2, width, limits="time_varying") == pytest.approx(arl0, rel=1e-5)


def test_simulated_series_run_as_long_as_computed():
    x = np.random.default_rng(4).normal(0.5, 1, (2000, 400))
    first = [np.flatnonzero(weighted.cusum(row, 0, 0.5, 4).signals)[0] + 1 for row in x]
    expected = run_length.arl_cusum(0.5, 4, 0.5)
    assert np.mean(first) == pytest.approx(expected, abs=4 * np.std(first) / np.sqrt(2000))


@pytest.mark.parametrize("arl0", [0.5, 1e8])
def test_a_design_that_no_limit_reaches_is_refused(arl0):
    with pytest.raises(ValueError):
        run_length.cusum_h(0.5, arl0)


@pytest.mark.parametrize("rules", [[], [5], [0, 1]])
def test_rules_that_do_not_exist_are_refused(rules):
    with pytest.raises(ValueError):
        run_length.arl_rules(rules)
