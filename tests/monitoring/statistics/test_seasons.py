from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from monitoring.statistics import seasons


def hour_of(*date):
    return int(datetime(*date, tzinfo=UTC).timestamp()) // 3600


def test_the_weekend_is_saturday_and_sunday_in_utc():
    friday = hour_of(2026, 11, 20)
    weekend = seasons.design(friday + 24 * np.arange(7))[:, -1]
    assert weekend.tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert seasons.design(np.array([friday + 23, friday + 24]))[:, -1].tolist() == [0, 1]


def test_a_daily_shape_and_a_weekend_are_found_again():
    hours = hour_of(2026, 1, 1) + np.arange(24 * 56)
    columns = seasons.design(hours)
    wanted = np.random.default_rng(1).normal(size=(seasons.COLUMNS, 3))
    values = columns @ wanted + 0.1 * np.random.default_rng(2).normal(size=(len(hours), 3))
    assert np.abs(seasons.fit(columns, values) - wanted).max() < 0.03


@pytest.mark.parametrize(
    ("days", "filled"), [(14, [1] * 5 + [0, 0, 1]), (28, [1] * 8), (56, [1] * 8)], ids=["14", "28", "56"]
)
def test_two_weeks_tell_two_cycles_a_day_and_four_weeks_three(days, filled):
    columns = seasons.supported_design(hour_of(2026, 11, 2) + np.arange(24 * days))
    assert columns.any(axis=0).astype(int).tolist() == filled


def test_one_weekend_is_no_pattern_and_weekends_alone_neither():
    monday = hour_of(2026, 11, 2)
    assert not seasons.supported_design(monday + np.arange(24 * 10))[:, -1].any()
    hours = monday + np.arange(24 * 28)
    rest = hours[seasons.design(hours)[:, -1] > 0]
    assert not seasons.supported_design(rest)[:, -1].any()


def test_hours_that_do_not_tell_the_columns_apart_give_a_fit_all_the_same():
    noon = hour_of(2026, 11, 2, 12) + 24 * np.arange(30)
    columns = seasons.design(noon)
    fitted = columns @ seasons.fit(columns, np.full((30, 1), 5.0))
    assert np.allclose(fitted, 5)
