"""How often do the hourly alarms lie, and how soon do they tell the truth?

python -m benchmarks.monitoring alarms [--streams 40] [--days 60] [--seed 0] [--family F] [--level L]

8 weeks of history, then `--days` of watching with a recalibration every week as the timer makes it (the approved level
stays, alarmed hours are left out), of fleets as in fleets.py. An episode is a run of alarms with at most 6 quiet
hours in between. Delays: the change begins on the hour, at 5 times a stream (strong: 1); 1 h is the alarm at the end
of the first changed hour.
Intervals: 95 %, Garwood's for rates, Clopper and Pearson's for shares.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.monitoring.fleets import LEVELS, Change, Kind, Stream, World
from monitoring.statistics.calibration import (
    STATISTICS,
    Calibration,
    Memory,
    Series,
    calibrate,
    episodes,
    look,
)
from monitoring.statistics.recalibration import renew

HISTORY_HOURS = 56 * 24
WEEK_HOURS = 7 * 24
STARTS = {"moderate": 5, "strong": 1}  # changes a stream, of a kind
PATIENCE_HOURS = 48
QUIET_HOURS = 6
BEYOND = {"covariance only, turned by 10°", "covariance only, turned by 5°"}  # measured, not asked for
STEP_HOURS = 3  # drawn at a time until the change is found
MOST_EPISODES, MOST_UPPER = 0.5, 1.0  # per 30 days: the lower limit, the upper limit


@dataclass
class Seen:
    """What one level of one family did over all streams."""

    streams: int = 0
    days: int = 0
    episodes: int = 0
    by_statistic: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    delays: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def rate(self) -> tuple[float, float, float]:
        """Episodes per 30 days, with limits."""
        months = self.days / 30
        low = stats.chi2.ppf(0.025, 2 * self.episodes) / 2 if self.episodes else 0.0
        high = stats.chi2.ppf(0.975, 2 * self.episodes + 2) / 2
        return self.episodes / months, low / months, high / months


def main(argv: list[str]) -> int:
    """Print the tables; 0 when every number is reached."""
    parser = argparse.ArgumentParser(prog="benchmarks.monitoring alarms", description=__doc__)
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=["confidence", "embedding"], help="this one alone")
    parser.add_argument("--level", choices=list(LEVELS), help="this variation alone")
    options = parser.parse_args(argv)
    began = time.process_time()
    print(
        "| family | variation | streams × days | episodes | per 30 days [95 %] | first fired by | reached |"
    )
    print("|---|---|---|---|---|---|---|")
    found: dict[tuple[str, str], Seen] = {}
    met = []
    with threadpool_limits(1):
        world = World(options.seed)
        for kind in (world.confidence, world.embedding):
            for level in LEVELS:
                if kind.family != (options.family or kind.family) or level != (options.level or level):
                    continue
                found[kind.family, level] = seen = _level(world, kind, level, options)
                met.append(_print_rate(kind.family, level, seen))
    met.append(_print_delays(found))
    print(f"\n{time.process_time() - began:.0f} s of one core")
    return 0 if all(met) else 1


def _level(world: World, kind: Kind, level: str, options: argparse.Namespace) -> Seen:
    seen = Seen()
    changes = dict(_changes(world, kind)) if level in STARTS else {}
    for number in range(options.streams):
        rng = np.random.default_rng([options.seed, 2, list(LEVELS).index(level), len(kind.family), number])
        stream = Stream(kind, level, HISTORY_HOURS + 24 * options.days, rng)
        history = stream.series(0, HISTORY_HOURS)
        calibration = calibrate(history)
        assert isinstance(calibration, Calibration)
        _watch(stream, history, calibration, seen)
        _find(stream, history, calibration, changes, seen)
    return seen


def _changes(world: World, kind: Kind) -> Iterator[tuple[str, Change]]:
    if kind.family == "confidence":
        yield "low-confidence share × 1.25", world.unsure(1.25)
        return
    yield ".2σ in 1 of 32 components", Change(mean=_shift(kind, 1, 0.2))
    yield ".1σ in 8 of 32 components", Change(mean=_shift(kind, 8, 0.1))
    yield "new cluster, 5 % of the images", world.cluster(0.05)
    for degrees in (15, 10, 5):
        yield f"covariance only, turned by {degrees}°", world.rotation(degrees)


def _shift(kind: Kind, components: int, size: float) -> NDArray[np.float64]:
    return np.where(np.arange(kind.rows) < components, size, 0.0)


def _watch(stream: Stream, history: Series, calibration: Calibration, seen: Seen) -> None:
    """Look at all hours after the history, a week at a time, as the timers do."""
    memory = look(calibration, history).memory
    known, fired, which = history, [], []
    for start in range(HISTORY_HOURS, stream.hours, WEEK_HOURS):
        week = stream.series(start, min(start + WEEK_HOURS, stream.hours))
        looked = look(calibration, week, memory)
        memory = looked.memory
        fired.append(looked.fired)
        which.append(looked.which)
        known = _joined(known, week)
        alarmed = known.hours[len(history.hours) :][_covered(np.concatenate(fired))]
        is_open = bool(looked.fired[-QUIET_HOURS:].any())
        renewal = renew(calibration, known, alarmed, changed_since=int(alarmed[-1]) if is_open else None)
        if not renewal.needs_approval and isinstance(renewal.made, Calibration):
            calibration = renewal.made
    all_fired, all_which = np.concatenate(fired), np.concatenate(which)
    for episode in episodes(all_fired):
        seen.episodes += 1
        seen.by_statistic[STATISTICS[all_which[episode.start]]] += 1
    seen.streams += 1
    seen.days += len(all_fired) // 24


def _joined(one: Series, other: Series) -> Series:
    return Series(
        np.concatenate([one.hours, other.hours]),
        np.concatenate([one.n, other.n]),
        np.concatenate([one.values, other.values]),
    )


def _covered(fired: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which hours lie in an episode."""
    out = np.zeros(len(fired), bool)
    for episode in episodes(fired):
        out[episode] = True
    return out


def _find(
    stream: Stream, history: Series, calibration: Calibration, changes: dict[str, Change], seen: Seen
) -> None:
    """Hours to the first alarm after each change, from several hours of the first week on."""
    if not changes:
        return
    before = stream.series(HISTORY_HOURS, HISTORY_HOURS + WEEK_HOURS)
    at = look(calibration, history).memory
    for start in np.sort(
        stream.rng.choice(np.arange(1, WEEK_HOURS), STARTS[stream.level], replace=False)
    ).tolist():
        part = Series(before.hours[:start], before.n[:start], before.values[:start])
        memory = look(calibration, part, at).memory
        for name, change in changes.items():
            seen.delays[name].append(_delay(stream, calibration, memory, HISTORY_HOURS + start, change))


def _delay(
    stream: Stream, calibration: Calibration, memory: Memory | None, start: int, change: Change
) -> int:
    """Hours from the change to the alarm; one more than PATIENCE_HOURS when there was none."""
    for begin in range(0, PATIENCE_HOURS, STEP_HOURS):
        hours = stream.series(start + begin, start + begin + STEP_HOURS, change)
        looked = look(calibration, hours, memory)
        if looked.fired.any():
            return begin + int(looked.fired.argmax()) + 1
        memory = looked.memory
    return PATIENCE_HOURS + 1


def _print_rate(family: str, level: str, seen: Seen) -> bool:
    rate, low, high = seen.rate()
    good = low <= MOST_EPISODES and high <= MOST_UPPER
    by = ", ".join(f"{name} {seen.by_statistic[name]}" for name in STATISTICS)
    print(
        f"| {family} | {level} | {seen.streams} × {seen.days // seen.streams} | {seen.episodes} |"
        f" {rate:.2f} [{low:.2f}, {high:.2f}] | {by} | {'yes' if good else 'NO'} |",
        flush=True,
    )
    return good


def _print_delays(found: dict[tuple[str, str], Seen]) -> bool:
    print("\n| change | variation | changes | median, h [95 %] | in 24 h [95 %] | reached |")
    print("|---|---|---|---|---|---|")
    met = True
    for (_, level), seen in found.items():
        for name, delays in seen.delays.items():
            hours = np.sort(delays)
            within = int((hours <= 24).sum())
            share = stats.binomtest(within, len(hours)).proportion_ci(method="exact")
            low, high = stats.binom.interval(0.95, len(hours), 0.5)
            median = float(np.median(hours))
            reached = "not asked"
            if level == "moderate" and name not in BEYOND:
                good = within / len(hours) >= 0.95 and (median <= 2 or "new" in name or "covariance" in name)
                met &= good
                reached = "yes" if good else "NO"
            print(
                f"| {name} | {level} | {len(hours)} | {_hours(median)}"
                f" [{_hours(hours[max(int(low) - 1, 0)])}, {_hours(hours[min(int(high), len(hours) - 1)])}] |"
                f" {within / len(hours):.1%} [{share.low:.1%}, {share.high:.1%}] | {reached} |"
            )
    return met


def _hours(delay: float) -> str:
    return f"> {PATIENCE_HOURS}" if delay > PATIENCE_HOURS else f"{delay:g}"
