from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitoring.statistics.calibration import (
    Calibration,
    Learning,
    Memory,
    Series,
    Tail,
    calibrate,
    episodes,
    ewma,
    look,
)
from tests.monitoring.statistics.natural_fleet import FIRST_HOUR, cut, natural

WEEKS8 = 56 * 24


@pytest.fixture(scope="module")
def stream():
    return natural(np.random.default_rng(1), 70)


@pytest.fixture(scope="module")
def calibration(stream):
    return calibrate(cut(stream, 0, WEEKS8))


def shifted(series, coordinate, size):
    values = series.values.copy()
    values[:, coordinate] += size
    return Series(series.hours, series.n, values)


@pytest.mark.parametrize("variation", [(0.0, 0.0), (0.02, 0.01), (0.10, 0.03), (0.30, 0.10)])
def test_false_alarms_stay_within_the_budget(variation):
    daily, wander = variation
    found = days = 0
    for number in range(12):
        whole = natural(np.random.default_rng([2, number]), 56 + 60, daily=daily, wander=wander)
        made = calibrate(cut(whole, 0, WEEKS8))
        later = look(made, cut(whole, WEEKS8), look(made, cut(whole, 0, WEEKS8)).memory)
        found += len(episodes(later.fired))
        days += 60
    assert stats.poisson.sf(found - 1, 0.5 * days / 30) > 0.01  # budget: one in 60 days


def test_two_weeks_of_history_do_not_fire_more_often_than_eight():
    found = 0
    for number in range(20):
        whole = natural(np.random.default_rng([3, number]), 14 + 30)
        made = calibrate(cut(whole, 0, 14 * 24))
        found += len(episodes(look(made, cut(whole, 14 * 24)).fired))
    assert stats.poisson.sf(found - 1, 0.5 * 20) > 0.01


def test_a_shift_beyond_the_fleets_own_variation_fires_in_its_first_hour(stream, calibration):
    later = shifted(cut(stream, WEEKS8), 2, 0.3)
    seen = look(calibration, later)
    assert seen.fired[0]
    assert seen.coordinate[0] == 2
    assert seen.deviation[0] == pytest.approx(0.3, abs=0.12)
    assert seen.p[0] < calibration.p


def test_the_same_shift_within_a_rough_fleets_variation_does_not():
    whole = natural(np.random.default_rng(4), 58, wander=0.3)
    made = calibrate(cut(whole, 0, WEEKS8))
    assert not look(made, shifted(cut(whole, WEEKS8), 2, 0.3)).fired[:3].any()


def test_the_daily_pattern_is_no_deviation(stream, calibration):
    assert np.abs(calibration.season[1:3]).max() > 0.05
    residuals = calibration.residuals(cut(stream, 0, WEEKS8))
    assert np.abs(residuals.mean(axis=0)).max() < 1e-12
    assert residuals.std(axis=0).max() < 0.04


def test_below_two_weeks_it_is_learning_and_says_how_far():
    history = natural(np.random.default_rng(5), 9)
    found = calibrate(history)
    assert found == Learning(9)
    assert str(found) == "learning: 9 of 14 days"
    assert calibrate(cut(history, 0, 0)) == Learning(0)


def test_a_day_counts_when_eight_of_its_hours_do():
    whole = natural(np.random.default_rng(6), 30)
    seven, eight = whole.hours % 24 < 7, whole.hours % 24 < 8
    assert calibrate(whole.without(whole.hours[~seven])) == Learning(0)
    assert calibrate(whole.without(whole.hours[~eight])).days == 30
    assert calibrate(cut(whole.without(whole.hours[~eight]), 0, 13 * 8)) == Learning(13)


def test_a_baseline_is_the_first_56_days_that_were_seen_however_far_apart():
    whole = natural(np.random.default_rng(9), 90)
    made = calibrate(whole.without(whole.hours[3 * 24 : 20 * 24]))
    assert made.baseline.days == 56
    assert made.baseline.since == whole.hours[0]


def test_hours_with_few_rows_and_hours_without_numbers_are_gaps(stream, calibration):
    part = cut(stream, WEEKS8, WEEKS8 + 5)
    n, values = part.n.copy(), part.values.copy()
    n[1], values[2, 0] = 499, np.nan
    values[1] += 100
    seen = look(calibration, Series(part.hours, n, values))
    assert np.isnan(seen.statistics).any(axis=1).tolist() == [False, True, True, False, False]
    assert seen.coordinate.tolist()[1:3] == [-1, -1]
    assert not seen.fired.any()
    assert seen.p.tolist()[1:3] == [1, 1]


def test_gaps_and_absent_hours_change_a_calibration_alike(stream):
    part = cut(stream, 0, WEEKS8)
    gone = np.isin(part.hours % 100, [3, 4])
    holes = Series(part.hours, np.where(gone, 0, part.n), np.where(gone[:, None], np.nan, part.values))
    assert np.array_equal(calibrate(holes).limits, calibrate(part.without(part.hours[gone])).limits)


def test_a_history_of_business_hours_serves_and_the_night_stays_unknown():
    whole = natural(np.random.default_rng(7), 40)
    open_hours = (whole.hours % 24 >= 8) & (whole.hours % 24 < 18)
    made = calibrate(Series(whole.hours[open_hours], whole.n[open_hours], whole.values[open_hours]))
    seen = look(made, whole)
    assert seen.fired.sum() < 10
    assert np.isnan(seen.statistics[~open_hours]).all()
    assert not np.isnan(seen.statistics[open_hours]).any()


def test_a_score_that_never_moved_fires_on_many_images_and_not_on_one(stream):
    values = stream.values.copy()
    values[:, 0] = 0.0
    still = Series(stream.hours, stream.n, values)
    made = calibrate(cut(still, 0, WEEKS8))
    assert np.isfinite(made.precision).all()
    assert not look(made, shifted(cut(still, WEEKS8, WEEKS8 + 1), 0, 1 / 10_000)).fired[0]
    assert look(made, shifted(cut(still, WEEKS8, WEEKS8 + 1), 0, 100 / 10_000)).fired[0]


def test_a_family_in_which_nothing_ever_moved_is_calibrated_too():
    history = Series(FIRST_HOUR + np.arange(20 * 24), np.full(20 * 24, 1000), np.zeros((20 * 24, 3)))
    made = calibrate(history)
    assert (made.limits > 0).all()
    assert not look(made, history).fired.any()


def test_an_hour_with_far_fewer_images_than_ever_is_noisier_and_not_alarmed():
    rng = np.random.default_rng(8)
    history = natural(rng, 56, wander=0.0, daily=0.0, sampling=0.01)
    made = calibrate(history)
    thin = natural(rng, 30, wander=0.0, daily=0.0, sampling=0.01 * np.sqrt(10), n=1000)
    as_if_full = Series(thin.hours, np.full(len(thin.n), 10_000), thin.values)
    assert look(made, as_if_full).fired.any()
    assert not look(made, thin).fired.any()


def test_looking_hour_by_hour_is_looking_once(stream, calibration):
    part = cut(stream, WEEKS8, WEEKS8 + 30)
    at_once = look(calibration, part)
    memory, rows = None, []
    for hour in range(30):
        seen = look(calibration, cut(part, hour, hour + 1), memory)
        memory = seen.memory
        rows.append(seen.statistics[0])
    assert np.allclose(rows, at_once.statistics)
    assert np.allclose(memory.ewma, at_once.memory.ewma)


def test_the_ewma_waits_over_a_short_gap_and_starts_again_after_a_long_one():
    values = np.ones((3, 1))
    steady = ewma(np.array([0, 1, 2]), values)
    assert steady.ravel().tolist() == pytest.approx([0.2, 0.36, 0.488])
    assert np.array_equal(ewma(np.array([0, 1, 8]), values), steady)  # six hours are missing
    assert ewma(np.array([0, 1, 9]), values).ravel().tolist() == pytest.approx([0.2, 0.36, 0.2])
    assert ewma(np.array([9]), values[:1], Memory(2, np.array([1.0])))[0, 0] == pytest.approx(1.0)
    assert ewma(np.array([10]), values[:1], Memory(2, np.array([1.0])))[0, 0] == pytest.approx(0.2)


def test_a_tail_is_exceeded_as_often_as_it_says():
    tail = Tail(start=2.0, excess=0.5)
    assert tail.limit(0.1) == 2.0
    assert tail.p(np.array([tail.limit(1e-4)]))[0] == pytest.approx(1e-4)
    assert tail.p(np.array([1.9]))[0] == 1


def test_half_the_budget_gives_higher_limits(stream):
    history = cut(stream, 0, WEEKS8)
    strict = calibrate(history, budget_days=120)
    loose = calibrate(history, budget_days=7)
    assert (strict.limits > loose.limits).all()


def test_a_given_baseline_keeps_its_level_and_the_rest_is_new(stream):
    old = calibrate(cut(stream, 0, WEEKS8))
    moved = shifted(cut(stream, 7 * 24), 0, 0.05)
    renewed = calibrate(moved, baseline=old.baseline)
    assert renewed.baseline is old.baseline
    assert renewed.residuals(moved)[:, 0].mean() > 0.03


def test_alarms_within_six_quiet_hours_are_one_episode():
    fired = np.zeros(40, bool)
    fired[[2, 9, 20, 28]] = True  # 6, 10 and 7 quiet hours between
    assert episodes(fired) == [slice(2, 10), slice(20, 21), slice(28, 29)]
    assert episodes(np.zeros(5, bool)) == []


def test_a_calibration_survives_being_stored(calibration, stream):
    again = Calibration.from_npz(calibration.to_npz())
    assert again.to_npz() == calibration.to_npz()
    part = cut(stream, WEEKS8)
    assert np.array_equal(look(again, part).statistics, look(calibration, part).statistics)


@pytest.mark.parametrize("data", [b"", b"no archive", None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_refused(calibration, data):
    with pytest.raises(ValueError):
        Calibration.from_npz(calibration.to_npz()[:400] if data is None else data)
