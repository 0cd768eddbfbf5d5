"""What has been approved as normal? The level of every score, and how far a day's mean wanders from it. PURE.

A baseline is measured once, on at most 56 days, and stays until a person approves another: what is measured anew every
week (season, scale, thresholds) would follow a slow decline down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hours = NDArray[np.int64]
Numbers = NDArray[np.float64]

LEAST_HOURS_OF_A_DAY = 8  # a day's mean of fewer says more about which hours were seen
LONGEST_DAYS = 56
MOST_CORRELATION = 0.9


@dataclass(frozen=True)
class Baseline:
    """The level that later hours and days are compared with, of p scores.

    level     (p,) mean over the baseline's hours, in the scores' units
    daily_sd  (p,) standard deviation of a day's mean, widened by how alike neighbouring days are, so that
              daily_sd/√m is the standard error of a mean of m days
    days      how many days were averaged;  since: the first hour (since 1970) that counts
    """

    level: Numbers
    daily_sd: Numbers
    days: int
    since: int


def measure(days: Numbers, level: Numbers, since: int, least_sd: float) -> Baseline:
    """The baseline of the means (d, p) of d ≥ 2 days, less season and level.

    The variance of a mean of AR(1) days is sd²/m·(1+ρ)/(1−ρ) (Box, Jenkins & Reinsel, Time Series Analysis, ch. 2); ρ
    is estimated score by score, plus 2/days for its bias (Kendall, Biometrika 41, 1954, to first order).
    """
    count = len(days)
    centred = days - days.mean(axis=0)
    square = (centred**2).sum(axis=0)
    follow = (centred[1:] * centred[:-1]).sum(axis=0)
    correlation = np.divide(follow, square, out=np.zeros_like(square), where=square > 0) + 2 / count
    correlation = np.clip(correlation, 0, MOST_CORRELATION)
    sd = np.sqrt(square / (count - 1) * (1 + correlation) / (1 - correlation))
    return Baseline(level, np.maximum(sd, least_sd), count, since)


def whole_days(hours: Hours) -> Hours:
    """Days since 1970 of which hours (m,) hold at least LEAST_HOURS_OF_A_DAY."""
    day, count = np.unique(hours // 24, return_counts=True)
    return np.asarray(day[count >= LEAST_HOURS_OF_A_DAY], np.int64)


def by_day(hours: Hours, values: Numbers) -> tuple[Hours, Numbers]:
    """The whole days (d,) of rising hours (m,), and the means (d, p) of their values (m, p)."""
    day, first, count = np.unique(hours // 24, return_index=True, return_counts=True)
    sums = np.add.reduceat(values, first, axis=0) if len(day) else values[:0]
    whole = count >= LEAST_HOURS_OF_A_DAY
    return day[whole], sums[whole] / count[whole][:, None]
