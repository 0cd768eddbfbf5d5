"""How soon does the judge see a fault?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from benchmarks.judge.course import Ended, plan, strict
from benchmarks.judge.figures import Row, quantile, rate
from benchmarks.judge.runs import Case, Runner
from benchmarks.judge.traffic import Fault, World, tilt_of_ks


def requests_needed(ended: list[Ended]) -> list[float]:
    """Canary requests until each rollback; infinity where there was none."""
    return [end.canary_requests if end.outcome == "rolled_back" else math.inf for end in ended]


def seconds_needed(ended: list[Ended]) -> list[float]:
    """Seconds until each rollback; infinity where there was none."""
    return [end.seconds if end.outcome == "rolled_back" else math.inf for end in ended]


def many_errors(runner: Runner) -> Iterator[Row]:
    """Errors .1 → 2 %, held at 1 % of 1,000 requests/s, router counts every second."""
    world = World(1000.0, 0.001, Fault(error_added=0.019))
    for what, gates, median, p90 in (
        ("errors .1 → 2 % at 1 %, production margins", None, 275, 650),
        ("errors .1 → 2 % at 1 %, nothing tolerated", strict(), 250, 600),
    ):
        frozen = plan((1.0,)) if gates is None else plan((1.0,), gates)
        name = "errors-2" if gates is None else "errors-2-strict"
        ended = runner.all(Case(name, (world,), frozen, seconds=900, tick_seconds=1.0), 1000)
        requests, seconds = requests_needed(ended), seconds_needed(ended)
        yield quantile("errors-2", f"{what}: median canary requests", requests, 0.5, "requests", most=median)
        yield quantile("errors-2", f"{what}: p90 canary requests", requests, 0.9, "requests", most=p90)
        yield quantile("errors-2", f"{what}: median seconds", seconds, 0.5, "s", most=30)
        yield quantile("errors-2", f"{what}: p90 seconds", seconds, 0.9, "s")


def some_errors(runner: Runner) -> Iterator[Row]:
    """Errors .1 → .5 %, router counts every second: requests until rollback held at 1 %, and whether it is promoted."""
    world = World(1000.0, 0.001, Fault(error_added=0.004))
    held = runner.all(Case("errors-05-each-second", (world,), plan((1.0,)), tick_seconds=1.0), 1000)
    needed = requests_needed(held)
    what = "errors .1 → .5 %"
    yield quantile("errors-05", f"{what} at 1 %: median canary requests", needed, 0.5, "requests", most=2500)
    yield quantile("errors-05", f"{what} at 1 %: p90 canary requests", needed, 0.9, "requests")
    going_on = Case("errors-05-free-each-second", (world,), plan(), tick_seconds=1.0, by_gates=True)
    free = runner.all(going_on, 1000)
    promoted = sum(end.outcome == "promoted" for end in free)
    yield rate("errors-05", f"{what}, 1→5→25→50 %, 60 min: promoted", promoted, len(free), most_percent=0.0)
    needed = requests_needed(free)
    yield quantile("errors-05", f"{what}, 1→5→25→50 %: median canary requests", needed, 0.5, "requests")


def dead(runner: Runner) -> Iterator[Row]:
    """Every request of the canary fails: traffic so thin that requests can be counted, then 1,000/s."""
    for weight, most in ((1.0, 10), (5.0, 10), (25.0, 10), (50.0, 15)):
        fault = Fault(error_added=1.0)
        thin = World(100 / weight, 0.001, fault)  # one canary request a second
        ended = runner.all(
            Case(f"dead-{weight:g}", (thin,), plan((weight,)), seconds=120, tick_seconds=1.0), 400
        )
        what = f"every canary request fails, {weight:g} %, one canary request/s"
        needed = requests_needed(ended)
        yield quantile("dead", f"{what}: median canary requests", needed, 0.5, "requests", most=most)
        yield quantile("dead", f"{what}: p90 canary requests", needed, 0.9, "requests", most=most)
        busy = World(1000.0, 0.001, fault)
        ended = runner.all(
            Case(f"dead-busy-{weight:g}", (busy,), plan((weight,)), seconds=120, tick_seconds=1.0), 400
        )
        what = f"every canary request fails, {weight:g} % of 1,000 requests/s: p90 seconds"
        yield quantile("dead", what, seconds_needed(ended), 0.9, "s", most=1)


def slow_or_unsure(runner: Runner) -> Iterator[Row]:
    """Slower and less sure canaries before the production gates, held at 1 % of 1,000 requests/s, windows of 5 s."""
    faults: dict[str, tuple[Fault, int | None]] = {
        "latency +10 % all": (Fault(slower=1.10), 2100),
        "p99 +25 %": (Fault(tail_slower=1.25), 3600),
        "all beyond the p95 +25 %": (Fault(tail_slower=1.25, tail_full=0.9501), 3600),
        "confidence KS .05": (Fault(tilt=tilt_of_ks(0.05)), 3000),
        "latency +30 % all": (Fault(slower=1.30), None),
        "p99 × 2": (Fault(tail_slower=2.0), None),
        "confidence KS .10": (Fault(tilt=tilt_of_ks(0.10)), None),
        "unsure share + 10 points": (Fault(unsure_added=0.10), None),
    }
    for what, (fault, most) in faults.items():
        world = World(1000.0, 0.001, fault)
        case = Case(f"slow {what}", (world,), plan((1.0,)), seconds=1800, window_seconds=5.0)
        ended = runner.all(case, 100)
        needed = requests_needed(ended)
        yield quantile(
            "slow-or-unsure",
            f"{what}, production margins: median canary requests",
            needed,
            0.5,
            "requests",
            most=most,
        )
        seen = sum(end.outcome == "rolled_back" for end in ended)
        yield rate(
            "slow-or-unsure", f"{what}, production margins: rolled back within 30 min", seen, len(ended)
        )


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {
    "errors-2": many_errors,
    "errors-05": some_errors,
    "dead": dead,
    "slow-or-unsure": slow_or_unsure,
}
