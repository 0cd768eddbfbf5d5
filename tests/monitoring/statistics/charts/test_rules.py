from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import rules, run_length


def test_a_gap_breaks_a_run():
    run = [0.2] * 8
    assert rules.western_electric(run)[4] == (7,)
    assert rules.western_electric([*run[:4], np.nan, *run[4:]])[4] == ()


def test_a_gap_breaks_a_trend_and_an_alternation():
    trend = [-0.5, -0.4, -0.3, np.nan, -0.2, -0.1, 0.05]
    assert rules.nelson(trend)[3] == ()
    alternating = [0.5, -0.5] * 8
    assert rules.nelson(alternating)[4] == (13, 14, 15)
    assert rules.nelson([*alternating[:8], np.nan, *alternating[8:]])[4] == ()


def test_two_far_points_at_the_start_need_no_third():
    assert rules.western_electric([2.1, 2.2])[2] == (1,)


def test_a_point_on_the_limit_or_on_the_centre_breaks_no_rule():
    assert rules.western_electric([3.0, -3.0])[1] == ()
    assert rules.western_electric([0.0] * 20)[4] == ()


def test_eight_outside_on_one_side_only_are_a_run_and_not_a_mixture():
    assert rules.nelson([1.5] * 8)[8] == ()
    assert rules.nelson([1.5] * 7 + [-1.5])[8] == (7,)


def test_infinite_points_are_beyond_everything():
    found = rules.nelson([np.inf, np.inf, 0.0])
    assert found[1] == (0, 1)
    assert found[5] == (1,)


def test_no_points_break_no_rule():
    assert set(rules.nelson([]).values()) == {()}


def test_every_rule_has_its_words():
    assert rules.western_electric([]).keys() == rules.WESTERN_ELECTRIC.keys()
    assert rules.nelson([]).keys() == rules.NELSON.keys()


def test_the_rules_signal_as_often_as_their_run_length_says():
    z = np.random.default_rng(3).normal(size=(1500, 1200))
    first = [min([points[0] + 1 for points in rules.western_electric(row).values() if points]) for row in z]
    expected = run_length.arl_rules([1, 2, 3, 4])
    assert np.mean(first) == pytest.approx(expected, abs=4 * np.std(first) / np.sqrt(1500))
