from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitoring.statistics.calibration import Learning, Series, calibrate, look
from monitoring.statistics.recalibration import renew
from monitoring.statistics.slow_decline import daily, false_alarm_limits, slow
from tests.monitoring.statistics.natural_fleet import cut, natural

HISTORY = 56 * 24
NONE = np.empty(0, np.int64)


def ramped(series, size, days, coordinate=0):
    """The score's shift grows to `size` in `days` after the history, and stays."""
    values = series.values.copy()
    hour = np.maximum(np.arange(len(values)) - HISTORY, 0)
    values[:, coordinate] += size * np.minimum(hour / (24 * days), 1)
    return Series(series.hours, series.n, values)


def seen_on(series, day):
    calibration = calibrate(cut(series, 0, HISTORY))
    return slow(calibration, daily(calibration, cut(series, 0, HISTORY + 24 * day)))


@pytest.fixture(scope="module")
def stream():
    return natural(np.random.default_rng(1), 56 + 180)


def test_a_ramp_that_no_hour_shows_is_found():
    whole = ramped(natural(np.random.default_rng(2), 56 + 90), 0.2, 90)
    found = seen_on(whole, 60)
    assert found.alarmed
    assert found.coordinate == 0
    assert 0.05 < found.deviation < 0.15


def test_it_says_since_when_how_fast_and_in_what_shape(stream):
    found = seen_on(ramped(stream, 0.3, 90), 90)
    first = stream.hours[HISTORY] // 24
    assert first - 5 <= found.since <= first + 50
    assert found.slope_low <= found.slope_per_30_days <= found.slope_high
    assert found.slope_per_30_days == pytest.approx(0.1, abs=0.06)
    assert found.shape.shape == found.days.shape == (56 + 90,)
    assert found.shape[-1] == pytest.approx(0.3, abs=0.06)
    assert found.shape[:40].max() < 0.1


def test_fleets_that_do_not_change_alarm_once_in_two_years():
    alarms = 0
    for number in range(20):
        whole = natural(np.random.default_rng([3, number]), 56 + 120, scores=5)
        calibration = calibrate(cut(whole, 0, HISTORY))
        days = daily(calibration, whole)
        ends = range(57, 57 + 120, 7)
        alarms += any(
            slow(calibration, Series(days.hours[:end], days.n[:end], days.values[:end])).alarmed
            for end in ends
        )
    assert stats.binom.sf(alarms - 1, 20, 1 - np.exp(-120 / (2 * 365))) > 0.01


def test_a_year_tells_a_season_from_a_decline_and_less_does_not(stream):
    assert not seen_on(stream, 100).whole_year


def test_a_few_days_say_nothing(stream):
    calibration = calibrate(cut(stream, 0, HISTORY))
    days = daily(calibration, cut(stream, HISTORY, HISTORY + 13 * 24))
    found = slow(calibration, days)
    assert (found.known, found.alarmed) == (False, False)
    empty = slow(calibration, daily(calibration, cut(stream, 0, 0)))
    assert (empty.known, empty.alarmed) == (False, False)


def test_days_of_a_month_ago_do_not_speak_for_today(stream):
    calibration = calibrate(cut(stream, 0, HISTORY))
    days = daily(calibration, ramped(stream, 0.5, 1))
    recent = days.hours // 24 > days.hours[-1] // 24 - 10
    early = days.hours < days.hours[0] + 24 * 80
    kept = recent | early
    assert not slow(calibration, Series(days.hours[kept], days.n[kept], days.values[kept])).known


def test_days_with_few_hours_are_left_out(stream):
    calibration = calibrate(cut(stream, 0, HISTORY))
    assert len(daily(calibration, cut(stream, 0, 24 * 3 + 7)).hours) == 3
    assert len(daily(calibration, cut(stream, 0, 24 * 3 + 8)).hours) == 4


def test_the_daily_mean_has_no_season_and_keeps_its_level(stream):
    calibration = calibrate(cut(stream, 0, HISTORY))
    days = daily(calibration, cut(stream, 0, HISTORY))
    assert np.allclose(days.values.mean(axis=0), calibration.baseline.level)
    assert days.n.tolist() == [10_000] * 56


def test_more_scores_and_shorter_baselines_need_wider_limits():
    assert false_alarm_limits(66, 56)[0] > false_alarm_limits(5, 56)[0]
    assert false_alarm_limits(5, 14)[0] > false_alarm_limits(5, 56)[0]
    assert false_alarm_limits(5, 56)[1] > false_alarm_limits(66, 56)[1] > 1


def test_recalibrating_every_week_never_absorbs_a_trend(stream):
    whole = ramped(stream, 0.3, 90)
    first = current = calibrate(cut(whole, 0, HISTORY))
    declining, proposals = False, 0
    for week in range(1, 17):
        history = cut(whole, 0, HISTORY + week * 168)
        found = slow(current, daily(current, history))
        declining = found.alarmed
        since = None if found.since is None else 24 * found.since
        renewal = renew(current, history, NONE, changed_since=since)
        proposals += renewal.needs_approval
        if not renewal.needs_approval:
            current = renewal.made
    assert declining
    assert proposals > 5
    assert current.baseline is first.baseline


def test_the_proposal_that_a_person_may_approve_moves_the_level_and_nothing_else(stream):
    whole = ramped(stream, 0.3, 1)
    current = calibrate(cut(whole, 0, HISTORY))
    history, since = cut(whole, 0, HISTORY + 6 * 24), int(stream.hours[HISTORY + 24])
    renewal = renew(current, history, NONE, changed_since=since)
    assert renewal.needs_approval
    moved = renewal.made
    assert moved.baseline.level[0] - current.baseline.level[0] == pytest.approx(0.3, abs=0.06)
    assert (moved.baseline.days, moved.baseline.since) == (5, since)
    assert np.array_equal(moved.scale, current.scale)
    assert not look(moved, cut(whole, HISTORY + 24, HISTORY + 6 * 24)).fired.any()


def test_of_a_decline_that_goes_on_the_last_week_is_proposed(stream):
    whole = ramped(stream, 0.3, 90)
    current = calibrate(cut(whole, 0, HISTORY))
    renewal = renew(current, cut(whole, 0, HISTORY + 90 * 24), NONE, changed_since=int(stream.hours[HISTORY]))
    assert renewal.made.baseline.level[0] - current.baseline.level[0] == pytest.approx(0.29, abs=0.05)


def test_after_an_approved_change_only_what_came_later_counts(stream):
    whole = ramped(stream, 0.3, 1)
    current = calibrate(cut(whole, 0, HISTORY))
    since = int(stream.hours[HISTORY + 24])
    moved = renew(current, cut(whole, 0, HISTORY + 96), NONE, changed_since=since).made
    early = renew(moved, cut(whole, 0, HISTORY + 9 * 24), NONE, changed_since=None)
    assert early.made == Learning(8)
    later = renew(moved, cut(whole, 0, HISTORY + 31 * 24), NONE, changed_since=None).made
    assert later.baseline.days == 30
    assert (later.scale < 1.3 * current.scale).all()


def test_a_baseline_grows_to_56_days_and_then_stays(stream):
    young = calibrate(cut(stream, 0, 20 * 24))
    grown = renew(young, cut(stream, 0, 40 * 24), NONE, changed_since=None).made
    assert (young.baseline.days, grown.baseline.days) == (20, 40)
    full = renew(grown, cut(stream, 0, 56 * 24), NONE, changed_since=None).made
    later = renew(full, cut(stream, 0, 90 * 24), NONE, changed_since=None).made
    assert later.baseline is full.baseline
    assert later.first_hour == stream.hours[34 * 24]


def test_an_incident_that_is_over_does_not_widen_the_thresholds(stream):
    current = calibrate(cut(stream, 0, HISTORY))
    values = stream.values.copy()
    incident = slice(HISTORY + 30, HISTORY + 60)
    values[incident] += 2.0
    history = cut(Series(stream.hours, stream.n, values), 0, HISTORY + 168)
    numb = renew(current, history, NONE, changed_since=None).made
    sharp = renew(current, history, stream.hours[incident], changed_since=None).made
    assert (sharp.limits < 1.3 * current.limits).all()
    assert (sharp.scale < 1.2 * current.scale).all()
    assert (numb.scale > 2 * current.scale).any()
