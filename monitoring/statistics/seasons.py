"""What does a fleet do every day and every weekend? Least squares on sines, cosines and a weekend step. PURE.

Source: harmonic regression: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., ch. 7.4. Hours
are UTC: the phase is fitted, so a time zone moves nothing but where the weekend begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hours = NDArray[np.int64]
Numbers = NDArray[np.float64]

COLUMNS = 8  # 1, sine and cosine of one, two and three cycles a day, weekend
WHOLE_SHAPE_DAYS = 28  # with less history two cycles a day are fitted
WEEKDAY_OF_1970 = 3  # 1970-01-01 was a Thursday; Monday is 0


def days(hours: Hours) -> Hours:
    """(m,) UTC days since 1970 of hours (m,) since 1970."""
    return hours // 24


def design(hours: Hours, harmonics: int = 3, weekend: bool = True) -> Numbers:
    """(m, COLUMNS) of hours (m,) since 1970; what is not asked for is 0."""
    angle = 2 * np.pi * (hours % 24) / 24
    columns = np.zeros((len(hours), COLUMNS))
    columns[:, 0] = 1
    for cycle in range(1, harmonics + 1):
        columns[:, 2 * cycle - 1], columns[:, 2 * cycle] = np.sin(cycle * angle), np.cos(cycle * angle)
    if weekend:
        columns[:, -1] = _is_weekend(hours)
    return columns


def supported_design(hours: Hours) -> Numbers:
    """(m, COLUMNS) of only those columns that so much history can tell: below 28 days two cycles a day; the weekend
    when two weekends, and days beside them, were seen."""
    seen = np.unique(days(hours))
    rest = _is_weekend(seen * 24)
    weekends = len(np.unique((seen[rest] + WEEKDAY_OF_1970) // 7))
    span = seen[-1] - seen[0] + 1 if len(seen) else 0
    return design(hours, 3 if span >= WHOLE_SHAPE_DAYS else 2, weekends >= 2 and bool((~rest).any()))


def _is_weekend(hours: Hours) -> NDArray[np.bool_]:
    return np.asarray((days(hours) + WEEKDAY_OF_1970) % 7 >= 5)


def fit(columns: Numbers, values: Numbers) -> Numbers:
    """(COLUMNS, p) coefficients of values (m, p) on columns (m, COLUMNS); the smallest ones that fit (Moore–Penrose)
    where the hours seen do not tell all columns apart."""
    return np.asarray(np.linalg.lstsq(columns, values, rcond=None)[0], np.float64)
