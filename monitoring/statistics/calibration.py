"""How large must an hour's deviation be to be no whim of this fleet? Thresholds with a stated rate. PURE.

Sources: peaks over a threshold: Davison & Smith, JRSS-B 52, 1990 (here with an exponential tail); EWMA: Roberts,
Technometrics 1, 1959; T²: Hotelling 1947, Multivariate Quality Control; covariance shrunk towards its diagonal: Ledoit
& Wolf, J. Multivar. Anal. 88, 2004 (here by a fixed share); one block left out: Burman, Chow & Nolan, Biometrika 81,
1994.

Thresholds come from weeks that the fit did not see. In-sample ones misfire on most windows, and textbook limits, which
know sampling alone, on nearly all of them (design/drift).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics import baseline as baselines
from monitoring.statistics import seasons
from monitoring.statistics.baseline import Baseline

Hours = NDArray[np.int64]
Numbers = NDArray[np.float64]
Number = TypeVar("Number", np.int64, np.float64, np.bool_)

STATISTICS = ("largest", "t2", "ewma")  # one hour, all scores together, and what stays for hours
LEAST_ROWS = 500  # of an hour; fewer make a gap
LEAST_DAYS = 14
WEEK_HOURS = 168
TAIL_SHARE = 0.1
LEAST_EXCESS = 0.2  # a tail is never thinner: for histories in which nothing moves at all
LAMBDA = 0.2
MOST_SHRUNK = 0.5
LONGEST_HELD_HOURS = 6  # the EWMA waits over such a gap; after a longer one it starts again
BUDGET_DAYS = 60.0


@dataclass(frozen=True)
class Series:
    """Scores by the hour.

    hours   (m,) int64 hours since 1970 (UTC), rising
    n       (m,) rows counted
    values  (m, p) scores; NaN in an hour without any
    """

    hours: Hours
    n: Hours
    values: Numbers

    def usable(self) -> Series:
        """Only the hours that say something: at least LEAST_ROWS rows, and every score is a number."""
        kept = (self.n >= LEAST_ROWS) & np.isfinite(self.values).all(axis=1)
        return Series(self.hours[kept], self.n[kept], self.values[kept])

    def without(self, hours: Hours) -> Series:
        """The series less some hours."""
        kept = ~np.isin(self.hours, hours)
        return Series(self.hours[kept], self.n[kept], self.values[kept])


@dataclass(frozen=True)
class Learning:
    """There is too little history for a calibration."""

    days: int
    of: int = LEAST_DAYS

    def __str__(self) -> str:
        return f"learning: {self.days} of {self.of} days"


@dataclass(frozen=True)
class Tail:
    """Beyond `start`, which a tenth of the hours exceed, a statistic falls off by e every `excess`."""

    start: float
    excess: float

    def limit(self, p: float) -> float:
        """What is exceeded with probability p ≤ TAIL_SHARE an hour."""
        return self.start + self.excess * float(np.log(TAIL_SHARE / p))

    def p(self, values: Numbers) -> Numbers:
        """How probable such values or larger ones are in an hour; 1 up to `start`."""
        beyond = TAIL_SHARE * np.exp(-(values - self.start) / self.excess)
        return np.where(values > self.start, beyond, 1.0)


@dataclass(frozen=True)
class Calibration:
    """What is normal hour by hour, of p scores, and how large each of the STATISTICS may be.

    season     (8, p) by `seasons.design`; its mean over the calibrated hours is 0
    scale      (p,) standard deviation of an hour's residual, in the scores' units
    precision  (p, p) inverse of the shrunk correlation of the residuals
    ewma_scale (p,) standard deviation of the EWMA of residuals/scale
    tails      of the STATISTICS, in their order
    fewest     rows of a thin hour of the calibrated ones (5 % have fewer): one with fewer yet is noisier
    hours_seen (24,) which hours of the day were seen on two days or more; of the others nothing is known
    """

    baseline: Baseline
    season: Numbers
    scale: Numbers
    precision: Numbers
    ewma_scale: Numbers
    tails: tuple[Tail, Tail, Tail]
    days: int
    first_hour: int
    last_hour: int
    fewest: int
    hours_seen: NDArray[np.bool_]
    budget_days: float

    @property
    def p(self) -> float:
        """The probability an hour that each statistic may fire with: the budget is split over the three."""
        return 1 / (24 * self.budget_days * len(STATISTICS))

    @property
    def limits(self) -> Numbers:
        """(3,) beyond which each of the STATISTICS fires."""
        return np.array([tail.limit(self.p) for tail in self.tails])

    def residuals(self, series: Series) -> Numbers:
        """(m, p) values less level and season, in the scores' units."""
        return series.values - self.baseline.level - seasons.design(series.hours) @ self.season

    def to_npz(self) -> bytes:
        """As an npz file; `from_npz` gives it back."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            level=self.baseline.level,
            daily_sd=self.baseline.daily_sd,
            baseline=np.array([self.baseline.days, self.baseline.since], np.int64),
            season=self.season,
            scale=self.scale,
            precision=self.precision,
            ewma_scale=self.ewma_scale,
            tails=np.array([[tail.start, tail.excess] for tail in self.tails]),
            numbers=np.array([self.days, self.first_hour, self.last_hour, self.fewest], np.int64),
            hours_seen=self.hours_seen,
            budget_days=np.float64(self.budget_days),
        )
        return file.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Calibration:
        """The calibration in an npz file made by `to_npz`; ValueError when it is damaged."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            baseline_days, since = (int(number) for number in found["baseline"])
            days, first_hour, last_hour, fewest = (int(number) for number in found["numbers"])
            one, two, three = (Tail(float(start), float(excess)) for start, excess in found["tails"])
            return cls(
                baseline=Baseline(found["level"], found["daily_sd"], baseline_days, since),
                season=found["season"],
                scale=found["scale"],
                precision=found["precision"],
                ewma_scale=found["ewma_scale"],
                tails=(one, two, three),
                days=days,
                first_hour=first_hour,
                last_hour=last_hour,
                fewest=fewest,
                hours_seen=found["hours_seen"],
                budget_days=float(found["budget_days"]),
            )
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as err:
            raise ValueError(f"not a calibration: {err}") from None


def calibrate(
    series: Series, *, baseline: Baseline | None = None, budget_days: float = BUDGET_DAYS
) -> Calibration | Learning:
    """Learn a fleet's natural variation from its history.

    series       hourly scores; of its hours only `usable` ones count
    baseline     the approved one, whose level stays; None: measure it on the first 56 days of the series
    budget_days  one false alarm of the family in so many days, split over the three statistics
    Learning below LEAST_DAYS days; a day counts when eight of its hours do. O(weeks·m·p²).
    """
    known = series.usable()
    whole = baselines.whole_days(known.hours)
    if len(whole) < LEAST_DAYS:
        return Learning(len(whole))
    columns = seasons.supported_design(known.hours)
    one_row = 1 / float(np.median(known.n))  # what a single image moves a share: no scale is smaller
    fit = _fit(columns, known.values, one_row)
    residuals = known.values - columns @ fit.coefficients
    smooth = ewma(known.hours, residuals / fit.scale)
    out = _unseen_statistics(known, columns, one_row)
    return Calibration(
        baseline=baseline or _baseline(known, columns @ fit.coefficients, one_row),
        season=fit.coefficients - np.outer(np.eye(seasons.COLUMNS)[0], known.values.mean(axis=0)),
        scale=fit.scale,
        precision=fit.precision,
        ewma_scale=_no_less(smooth.std(axis=0)),
        tails=(_tail(out[:, 0]), _tail(out[:, 1]), _tail(out[:, 2])),
        days=len(whole),
        first_hour=int(known.hours[0]),
        last_hour=int(known.hours[-1]),
        fewest=int(np.quantile(known.n, 0.05)),
        hours_seen=np.bincount(known.hours % 24, minlength=24) >= 2,
        budget_days=budget_days,
    )


def _baseline(known: Series, fitted: Numbers, least_sd: float) -> Baseline:
    """Of the first 56 whole days, with a season fitted (m, p) to all of them."""
    last = baselines.whole_days(known.hours)[: baselines.LONGEST_DAYS][-1]
    early = known.hours < 24 * (last + 1)
    level = known.values[early].mean(axis=0)
    season = fitted[early] - fitted[early].mean(axis=0)
    _, days = baselines.by_day(known.hours[early], known.values[early] - season - level)
    return baselines.measure(days, level, int(known.hours[0]), least_sd)


@dataclass(frozen=True)
class _Fit:
    coefficients: Numbers
    scale: Numbers
    precision: Numbers


def _fit(columns: Numbers, values: Numbers, least_scale: float) -> _Fit:
    """Season with level, scale, and the inverse of (1 − s)·S + s·I of the standardised residuals, whose S has ones.

    s = scores/days, at most one half: hours of a day are much alike, so a day counts as one row. Five shares of one
    histogram, which move together, are told apart by 56 days; 66 components are not, and s is one half.
    """
    coefficients = seasons.fit(columns, values)
    residuals = values - columns @ coefficients
    freedom = max(len(values) - np.linalg.matrix_rank(columns), 1)
    scale = np.maximum(np.sqrt((residuals**2).sum(axis=0) / freedom), least_scale)
    z = residuals / scale
    correlation = z.T @ z / freedom
    shrunk = min(MOST_SHRUNK, 24 * len(scale) / len(values))
    return _Fit(coefficients, scale, np.linalg.inv((1 - shrunk) * correlation + shrunk * np.eye(len(scale))))


def _unseen_statistics(known: Series, columns: Numbers, least_scale: float) -> Numbers:
    """(m, 3) statistics of each hour by a fit to all other weeks. The EWMA is linear, so it is taken once, of values
    and columns, and combined for every fit."""
    week = (known.hours - known.hours[0]) // WEEK_HOURS
    smooth = ewma(known.hours, np.column_stack([known.values, columns]))
    smooth_values, smooth_columns = np.split(smooth, [known.values.shape[1]], axis=1)
    out = np.empty((len(week), len(STATISTICS)))
    for one in np.unique(week):
        left_out = week == one
        fit = _fit(columns[~left_out], known.values[~left_out], least_scale)
        z = (known.values[left_out] - columns[left_out] @ fit.coefficients) / fit.scale
        slow = (smooth_values - smooth_columns @ fit.coefficients) / fit.scale
        out[left_out] = _statistics(z, slow[left_out] / _no_less(slow[~left_out].std(axis=0)), fit.precision)
    return out


def _statistics(z: Numbers, slow: Numbers, precision: Numbers) -> Numbers:
    """(m, 3): largest |z|, T² of z, largest |EWMA|; z and slow (m, p) in standard deviations."""
    return np.column_stack(
        [np.abs(z).max(axis=1), ((z @ precision) * z).sum(axis=1), np.abs(slow).max(axis=1)]
    )


def _no_less(sd: Numbers) -> Numbers:
    """The EWMA's sd; 1 of a score that never moved. White noise has √(λ/(2 − λ)) = 1/3, anything alike more."""
    return np.where(sd > 0, sd, 1.0)


def _tail(values: Numbers) -> Tail:
    start = float(np.quantile(values, 1 - TAIL_SHARE))
    beyond = values[values > start] - start
    return Tail(start, max(float(beyond.mean()) if len(beyond) else 0.0, LEAST_EXCESS))


def ewma(hours: Hours, values: Numbers, before: Memory | None = None) -> Numbers:
    """(m, p) exponentially weighted means (λ = .2) of values (m, p) at hours (m,), from 0 or from what was `before`.

    Over a gap of up to LONGEST_HELD_HOURS it stays where it was; after a longer one it starts at 0 again.
    """
    out = np.empty_like(values)
    state = np.zeros(values.shape[1])
    last = None
    if before is not None:
        state, last = before.ewma, before.hour
    for index, (hour, row) in enumerate(zip(hours.tolist(), values, strict=True)):
        if last is not None and hour - last - 1 > LONGEST_HELD_HOURS:
            state = np.zeros(values.shape[1])
        state = state + LAMBDA * (row - state)
        out[index], last = state, hour
    return out


@dataclass(frozen=True)
class Memory:
    """Where the EWMA of residuals/scale stood, (p,), after `hour`."""

    hour: int
    ewma: Numbers


@dataclass(frozen=True)
class Look:
    """What a calibration says of m hours; a gap has NaN statistics, p = 1 and coordinate −1, and does not fire.

    statistics (m, 3)   in the order of STATISTICS, beside `limits` (3,)
    fired      (m,)     whether any of them is beyond its limit
    which      (m,)     the statistic that is the least probable
    coordinate (m,)     the score that it is about; of T² the one that adds most
    deviation  (m,)     that score's residual, in its own unit
    p          (m,)     how probable the least probable statistic is, times three
    """

    hours: Hours
    statistics: Numbers
    limits: Numbers
    fired: NDArray[np.bool_]
    which: Hours
    coordinate: Hours
    deviation: Numbers
    p: Numbers
    memory: Memory | None


def look(calibration: Calibration, series: Series, memory: Memory | None = None) -> Look:
    """Look at one or many hours; `memory` is that of the look before, when this one goes on from there.

    Gaps: hours that are not `usable`, and hours of the day that the history never saw. An hour with fewer rows than a
    thin one of the history counts for as much less as if all variation were sampling.
    """
    known = series.usable()
    known = known.without(known.hours[~calibration.hours_seen[known.hours % 24]])
    residuals = calibration.residuals(known)
    thin = np.sqrt(np.minimum(1.0, known.n / calibration.fewest))
    z = residuals / calibration.scale * thin[:, None]
    smooth = ewma(known.hours, z, memory)
    slow = smooth / calibration.ewma_scale
    found = _statistics(z, slow, calibration.precision)
    p = np.column_stack([tail.p(found[:, index]) for index, tail in enumerate(calibration.tails)])
    ratio = found / calibration.limits
    which = np.where(p.min(axis=1) < 1, p.argmin(axis=1), ratio.argmax(axis=1))
    parts = np.stack([np.abs(z), (z @ calibration.precision) * z, np.abs(slow)])
    coordinate = parts.argmax(axis=2)[which, np.arange(len(which))]
    place = np.searchsorted(series.hours, known.hours)
    last = Memory(int(known.hours[-1]), smooth[-1]) if len(known.hours) else memory
    return Look(
        series.hours,
        _placed(found, place, len(series.hours), np.nan),
        calibration.limits,
        _placed(np.asarray((found > calibration.limits).any(axis=1)), place, len(series.hours), False),
        _placed(which.astype(np.int64), place, len(series.hours), 0),
        _placed(coordinate.astype(np.int64), place, len(series.hours), -1),
        _placed(residuals[np.arange(len(which)), coordinate], place, len(series.hours), np.nan),
        _placed(np.minimum(1.0, len(STATISTICS) * p.min(axis=1)), place, len(series.hours), 1.0),
        last,
    )


def _placed(values: NDArray[Number], place: Hours, size: int, gap: float) -> NDArray[Number]:
    """values (m, …) at `place` (m,) of `size` rows, and `gap` in the others."""
    out = np.full((size, *values.shape[1:]), gap, values.dtype)
    out[place] = values
    return out


def episodes(fired: NDArray[np.bool_], quiet_hours: int = 6) -> list[slice]:
    """The alarms among consecutive hours (m,): those with at most `quiet_hours` between are one."""
    at = np.flatnonzero(fired)
    if not len(at):
        return []
    cuts = np.flatnonzero(np.diff(at) - 1 > quiet_hours) + 1
    bounds = [0, *cuts.tolist(), len(at)]
    return [slice(int(at[begin]), int(at[end - 1]) + 1) for begin, end in pairwise(bounds)]
