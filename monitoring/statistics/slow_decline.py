"""Has normal moved, slowly enough for every hour to look like the one before? A month against the approved level.
PURE.

Sources: the mean of a window against its target: Montgomery, Introduction to Statistical Quality Control, ch. 9;
Hotelling's T² of that mean; where it began: Page's CUSUM, Biometrika 41, 1954; slope: Theil 1950 and Sen, JASA 63,
1968; shape: smoothing spline by generalised cross-validation, Craven & Wahba, Numer. Math. 31, 1979.

A daily CUSUM does not serve: the baseline is an estimate itself, and its error adds up until every stream alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics.baseline import by_day, measure
from monitoring.statistics.calibration import Calibration, Series

Hours = NDArray[np.int64]
Numbers = NDArray[np.float64]

WINDOW_DAYS = 28
LEAST_DAYS_SEEN = 14  # of the window
YEARS_TO_A_FALSE_ALARM = 2.0
SIMULATED_YEARS = 2
YEAR_DAYS = 365
SLOPE_DAYS = 180
SIMULATED_STREAMS = 300
LEAST_SPLINE_DAYS = 5


@dataclass(frozen=True)
class Slow:
    """What the last 28 days say; `known` is False with fewer than 14 of them, and then nothing is alarmed.

    largest      of the scores' |mean − level| / standard error, of `coordinate`;  mean_square: T² of all / p
    limits       (2,) of these two
    since        the first day (since 1970) of the change of `coordinate`; None without an alarm
    slope_per_30_days, slope_low, slope_high   of `coordinate` in its own unit, 95 %; 0 without an alarm
    days, shape  (d,) the days, and the smooth course of `coordinate`'s deviation over them; empty without an alarm
    whole_year   whether the days span a year: with less, a yearly season looks like this, too
    """

    known: bool
    alarmed: bool
    largest: float
    mean_square: float
    limits: tuple[float, float]
    coordinate: int
    deviation: float
    since: int | None
    slope_per_30_days: float
    slope_low: float
    slope_high: float
    days: Hours
    shape: Numbers
    whole_year: bool


def daily(calibration: Calibration, series: Series) -> Series:
    """By day since 1970, the mean of its hours' values less season (the level stays in); days with fewer than 8 usable
    hours are absent. `hours` holds the days' first hours, `n` the rows of an hour of that day, on average."""
    known = series.usable()
    of_level = calibration.residuals(known) + calibration.baseline.level
    days, means = by_day(known.hours, np.column_stack([known.n, of_level]))
    return Series(days * 24, means[:, 0].astype(np.int64), means[:, 1:])


def slow(calibration: Calibration, days: Series) -> Slow:
    """Whether the last WINDOW_DAYS of `days` (by `daily`) lie off the baseline's level, in one score or in all."""
    baseline = calibration.baseline
    under = days.hours >= baseline.since // 24 * 24  # what lay before has another level
    day = days.hours[under] // 24
    deviation = days.values[under] - baseline.level
    recent = day > (day[-1] if len(day) else 0) - WINDOW_DAYS
    seen = int(recent.sum())
    limits = false_alarm_limits(len(baseline.level), baseline.days)
    if seen < LEAST_DAYS_SEEN:
        return _nothing_known(limits)
    mean = deviation[recent].mean(axis=0)
    c = mean / (baseline.daily_sd * np.sqrt(1 / seen + 1 / baseline.days))
    coordinate = int(np.abs(c).argmax())
    largest, mean_square = float(np.abs(c[coordinate])), float(c @ calibration.precision @ c) / len(c)
    alarmed = largest > limits[0] or mean_square > limits[1]
    course = _course(day, deviation[:, coordinate]) if alarmed else NO_COURSE
    span = int(day[-1] - day[0]) + 1
    return Slow(
        True,
        alarmed,
        largest,
        mean_square,
        limits,
        coordinate,
        float(mean[coordinate]),
        course.since,
        *course.slope,
        days=day if alarmed else day[:0],
        shape=course.shape,
        whole_year=span >= YEAR_DAYS,
    )


def _nothing_known(limits: tuple[float, float]) -> Slow:
    none = np.empty(0, np.int64)
    return Slow(False, False, 0.0, 0.0, limits, -1, 0.0, None, 0.0, 0.0, 0.0, none, np.empty(0), False)


@dataclass(frozen=True)
class _Course:
    since: int | None
    slope: tuple[float, float, float]
    shape: Numbers


NO_COURSE = _Course(None, (0.0, 0.0, 0.0), np.empty(0))


def _course(day: Hours, deviation: Numbers) -> _Course:
    """When the change began, how fast it goes, and its shape, of daily deviations (d,) of one score."""
    from scipy import interpolate, stats  # takes a second to import: not at every start

    now = deviation[-LEAST_DAYS_SEEN:].mean()
    signed = deviation * np.sign(now)
    walk = np.cumsum(
        signed - abs(now) / 2
    )  # its lowest point: after it most days lie beyond half of today's shift
    since = int(day[min(int(walk.argmin()) + 1, len(day) - 1)]) if walk.min() < 0 else int(day[0])
    recent = day > day[-1] - SLOPE_DAYS
    slope, _, low, high = stats.theilslopes(deviation[recent], day[recent], alpha=0.95)
    shape = deviation
    if len(day) >= LEAST_SPLINE_DAYS:
        spline = interpolate.make_smoothing_spline(day.astype(np.float64), deviation)
        shape = np.asarray(spline(day))
    return _Course(since, (30 * float(slope), 30 * float(low), 30 * float(high)), shape)


@lru_cache(maxsize=64)
def false_alarm_limits(scores: int, baseline_days: int) -> tuple[float, float]:
    """Limits of the largest |c| and of the mean square, with which daily looks at p scores of a fleet that does not
    change alarm once in YEARS_TO_A_FALSE_ALARM years, half of it each.

    Simulated with a fixed seed: independent scores, days that are alike as an AR(1) with ρ = .3, and the baseline
    measured as `baseline.measure` does. A false alarm here stays (it is the baseline's own error): a stream counts
    once.
    """
    rng = np.random.default_rng(0)
    looked = SIMULATED_YEARS * YEAR_DAYS
    largest, square = np.empty(SIMULATED_STREAMS), np.empty(SIMULATED_STREAMS)
    for stream in range(SIMULATED_STREAMS):
        days = _alike_days(rng, baseline_days + looked, scores)
        before = days[:baseline_days]
        level = before.mean(axis=0)
        known = measure(before - level, level, 0, 0.0)
        total = np.cumsum(np.concatenate([np.zeros((1, scores)), days - level]), axis=0)
        first = max(WINDOW_DAYS, baseline_days)
        means = (total[first:] - total[first - WINDOW_DAYS : -WINDOW_DAYS]) / WINDOW_DAYS
        c = means / (known.daily_sd * np.sqrt(1 / WINDOW_DAYS + 1 / baseline_days))
        largest[stream], square[stream] = np.abs(c).max(), (c**2).mean(axis=1).max()
    quiet = np.exp(
        -SIMULATED_YEARS / YEARS_TO_A_FALSE_ALARM / 2
    )  # of streams, without an alarm of one statistic
    return float(np.quantile(largest, quiet)), float(np.quantile(square, quiet))


def _alike_days(rng: np.random.Generator, days: int, scores: int, correlation: float = 0.3) -> Numbers:
    """(days, scores) of stationary AR(1) with variance 1."""
    noise: Numbers = rng.normal(size=(days, scores)) * np.sqrt(1 - correlation**2)
    noise[0] /= np.sqrt(1 - correlation**2)
    for day in range(1, days):
        noise[day] += correlation * noise[day - 1]
    return noise
