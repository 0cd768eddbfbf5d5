"""How soon is a good canary promoted, and how often one that should not be?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from benchmarks.judge.course import Ended, plan
from benchmarks.judge.figures import Row, quantile, rate
from benchmarks.judge.known import believed
from benchmarks.judge.runs import Case, Runner
from benchmarks.judge.traffic import Fault, World
from benchmarks.judge.weather import ROUGH


def seconds_to_promote(ended: list[Ended]) -> list[float]:
    """Seconds until promotion; infinity where it did not come."""
    return [end.seconds if end.outcome == "promoted" else float("inf") for end in ended]


def good(runner: Runner) -> Iterator[Row]:
    """The same model through 1→5→25→50 %, dwell 30 s at each; router counts every second, as in production."""
    cases: tuple[tuple[str, World, float | None], ...] = (
        ("1,000 requests/s", World(1000.0), 3),
        ("50 requests/s", World(50.0), 45),
        (
            "50 requests/s, no incidents",
            World(50.0, climate=replace(ROUGH, incident_every_seconds=math.inf)),
            None,
        ),
    )
    for where, world, most_minutes in cases:
        incidents = "" if math.isfinite(world.climate.incident_every_seconds) else "-no-incidents"
        name = f"good-{world.requests_per_second:g}-each-second{incidents}"
        case = Case(name, (world,), plan(), tick_seconds=1.0, by_gates=True)
        yield from _times("good", f"same model at {where}", runner.all(case, 200), most_minutes)


def sticky(runner: Runner) -> Iterator[Row]:
    """The same where users stay in an arm: stable's errors are known to come one by one, φ of the rest is assumed."""
    for requests in (1000.0, 200.0):
        world = World(requests)
        case = Case(f"good-{requests:g}-sticky", (world,), plan(), tick_seconds=1.0, by_gates=True)
        told = replace(case, knows=partial(believed, 1.0))
        what = f"same model at {requests:,.0f} requests/s, users stay in an arm, φ of latency and confidence assumed 5"
        yield from _times("sticky", what, runner.all(told, 100), None)


def _times(row: str, what: str, ended: list[Ended], most_minutes: float | None) -> Iterator[Row]:
    minutes = [seconds / 60 for seconds in seconds_to_promote(ended)]
    yield quantile(row, f"{what}: median time to promotion", minutes, 0.5, "min", most=most_minutes)
    yield quantile(row, f"{what}: p90 time to promotion", minutes, 0.9, "min")
    promoted = sum(end.outcome == "promoted" for end in ended)
    yield rate(row, f"{what}: promoted within 60 min", promoted, len(ended))
    failed = sum(end.outcome == "rolled_back" for end in ended)
    yield rate(row, f"{what}: rolled back", failed, len(ended), most_percent=1.0)


def at_margin(runner: Runner) -> Iterator[Row]:
    """A canary whose loss is exactly the margin of the 50 % step, judged there for half an hour."""
    faults = {
        "errors + .1 points": Fault(error_added=0.001),
        "p99 exceedance + .5 points, beyond + 10 % + 1 ms": Fault(
            slower=1.10, later_seconds=0.001, tail_added=0.005
        ),
        "unsure + 2 points": Fault(unsure_added=0.02),
    }
    for i, (what, fault) in enumerate(faults.items()):
        case = Case(f"margin-{i}", (World(1000.0, fault=fault),), plan((50.0,)), seconds=1800, by_gates=True)
        ended = runner.all(case, 300)
        promoted = sum(end.outcome == "promoted" for end in ended)
        yield rate("at-margin", f"{what} at 50 %, 30 min: promoted", promoted, len(ended), most_percent=5.0)


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {
    "good": good,
    "sticky": sticky,
    "at-margin": at_margin,
}
