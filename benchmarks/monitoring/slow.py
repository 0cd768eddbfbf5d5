"""On which day is a decline found that no hour shows, and how often where there is none?

python -m benchmarks.monitoring slow [--streams 40] [--days 180] [--seed 0]

8 weeks of hourly history, then days of 24 hours of counts each drawn as one, looked at daily, of embeddings of fleets
as in fleets.py. A ramp: .2σ over 90 days in 8 of 32 components, and it stays. Smooth: .5σ over 120 days in 1 (half a
cosine, as from summer to winter), and it stays. Nothing: no change; an alarm is a false one, and as it stays, a stream
counts once.
Then "absorbed": the ramp hour by hour, with a recalibration every week as the timer makes it: does the alarm stay?
Intervals: 95 %, Clopper and Pearson's.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.monitoring.alarms import HISTORY_HOURS, WEEK_HOURS
from benchmarks.monitoring.fleets import LEVELS, Change, Kind, Stream, World
from monitoring.statistics.calibration import Calibration, Series, calibrate
from monitoring.statistics.recalibration import renew
from monitoring.statistics.slow_decline import (
    SLOPE_DAYS,
    YEAR_DAYS,
    YEARS_TO_A_FALSE_ALARM,
    Slow,
    daily,
    slow,
)

Numbers = NDArray[np.float64]

FOUND_BY_DAY = 60
WATCHED_DAYS = 120  # of "absorbed"


def main(argv: list[str]) -> int:
    """Print the tables; 0 when every number is reached."""
    parser = argparse.ArgumentParser(prog="benchmarks.monitoring slow", description=__doc__)
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    began = time.process_time()
    with threadpool_limits(1):
        kind = World(options.seed).embedding
        met = [_print_days(kind, options), _print_absorbed(kind, options)]
    print(f"\n{time.process_time() - began:.0f} s of one core")
    return 0 if all(met) else 1


def _declines(rows: int, days: int) -> dict[str, Numbers]:
    """Shifts (days, rows), in reference standard deviations."""
    day = np.arange(1, days + 1)
    ramp = 0.2 * np.minimum(day / 90, 1)
    smooth = 0.5 * (1 - np.cos(np.pi * np.minimum(day / 120, 1))) / 2
    return {
        "nothing": np.zeros((days, rows)),
        "ramp, .2σ in 90 days, 8 components": np.outer(ramp, np.arange(rows) < 8),
        "smooth, .5σ in 120 days, 1 component": np.outer(smooth, np.arange(rows) < 1),
    }


def _print_days(kind: Kind, options: argparse.Namespace) -> bool:
    print(
        "| change | variation | streams | alarmed in the period [95 %] | day of the alarm: median, worst | reached |"
    )
    print("|---|---|---|---|---|---|")
    met = True
    for level in LEVELS:
        found: dict[str, list[int]] = {}
        for number in range(options.streams):
            rng = np.random.default_rng([options.seed, 3, list(LEVELS).index(level), number])
            stream = Stream(kind, level, HISTORY_HOURS + 24 * options.days, rng)
            history = stream.series(0, HISTORY_HOURS)
            calibration = calibrate(history)
            assert isinstance(calibration, Calibration)
            before = daily(calibration, history)
            for name, shifts in _declines(kind.rows, options.days).items():
                after = stream.days(HISTORY_HOURS, shifts)
                found.setdefault(name, []).append(_day(calibration, before, after))
        for name, days in found.items():
            met &= _print_row(name, level, np.array(days), options.days)
    return met


def _day(calibration: Calibration, before: Series, after: Series) -> int:
    """The day of the first alarm, from 1; one more than all days without."""
    whole = _joined([before, after])
    for day in range(1, len(after.hours) + 1):
        end = len(before.hours) + day
        part = slice(max(end - SLOPE_DAYS, 0), end)
        seen = Series(whole.hours[part], whole.n[part], whole.values[part])
        if slow(calibration, seen).alarmed:
            return day
    return len(after.hours) + 1


def _joined(parts: list[Series]) -> Series:
    return Series(
        np.concatenate([part.hours for part in parts]),
        np.concatenate([part.n for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _print_row(name: str, level: str, days: NDArray[np.int64], period: int) -> bool:
    alarmed = int((days <= period).sum())
    share = stats.binomtest(alarmed, len(days)).proportion_ci(method="exact")
    if name == "nothing":
        stated = 1 - np.exp(-period / (YEAR_DAYS * YEARS_TO_A_FALSE_ALARM))
        good, when = bool(share.low <= stated), "–"
    else:
        good, when = bool((days <= FOUND_BY_DAY).all()), f"{np.median(days):g}, {days.max()}"
    print(
        f"| {name} | {level} | {len(days)} × {period} days |"
        f" {alarmed / len(days):.1%} [{share.low:.1%}, {share.high:.1%}] |"
        f" {when} | {'yes' if good else 'NO'} |"
    )
    return good


def _print_absorbed(kind: Kind, options: argparse.Namespace) -> bool:
    """A quarter of the streams, at moderate variation."""
    streams = max(options.streams // 4, 1)
    kept = sum(_stays(kind, np.random.default_rng([options.seed, 4, number])) for number in range(streams))
    print(
        f"\nramp with weekly recalibration, moderate variation: {kept} of {streams} streams are still alarmed on day"
        f" {WATCHED_DAYS}, and the level in force is the approved one"
    )
    return bool(kept == streams)


def _stays(kind: Kind, rng: np.random.Generator) -> bool:
    stream = Stream(kind, "moderate", HISTORY_HOURS + 24 * WATCHED_DAYS, rng)
    weeks = [stream.series(0, HISTORY_HOURS)]
    first = current = calibrate(weeks[0])
    assert isinstance(first, Calibration)
    assert isinstance(current, Calibration)
    shifts = _declines(kind.rows, WATCHED_DAYS + 7)["ramp, .2σ in 90 days, 8 components"]
    found: Slow | None = None
    for start, end in pairwise([*range(HISTORY_HOURS, stream.hours, WEEK_HOURS), stream.hours]):
        change = Change(mean=shifts[(start - HISTORY_HOURS) // 24 + 3])
        weeks.append(stream.series(start, end, change))
        known = _joined(weeks)
        found = slow(current, daily(current, known))
        since = None if found.since is None else 24 * found.since
        renewal = renew(current, known, np.empty(0, np.int64), changed_since=since)
        if not renewal.needs_approval and isinstance(renewal.made, Calibration):
            current = renewal.made
    assert found is not None
    kept = current.baseline is first.baseline
    return found.alarmed and kept
