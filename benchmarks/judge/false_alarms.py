"""How often does the judge roll a healthy canary back?

Every run here is judged for its whole time: steps are left by the clock, so that promotion cannot end the danger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.judge.course import GATES, Ended, plan, strict, with_settings
from benchmarks.judge.figures import Row, rate
from benchmarks.judge.known import nothing
from benchmarks.judge.runs import Case, Runner
from benchmarks.judge.traffic import Fault, World, tilt_of_ks

#: Traffic and stable's error rates of A/A runs: run i takes the i-th, again and again.
AS_MANY = tuple(
    World(requests, errors)
    for requests in (20.0, 100.0, 500.0, 2500.0)
    for errors in (5e-4, 1e-3, 5e-3, 2e-2)
)
USUAL = World(300.0, 0.002)
WARM_UP_SECONDS = 120.0  # said beforehand: by then twice as slow, fading with 60 s, is 10 % slower
TOLERATED = Fault(error_factor=1.1, slower=1.02, tilt=tilt_of_ks(0.005))


def rolled_back(row: str, what: str, ended: list[Ended], most_percent: float | None) -> Row:
    """The share that was rolled back, with the gates that were named."""
    failed = [end.gate for end in ended if end.outcome == "rolled_back"]
    named = ", ".join(f"{gate} {failed.count(gate)}" for gate in sorted(set(failed)))
    return rate(row, f"{what}: rolled back", len(failed), len(ended), most_percent=most_percent, note=named)


def a_a(runner: Runner) -> Iterator[Row]:
    """The same model in both arms, peeked at every 5 s for an hour, 15 minutes at each weight."""
    case = Case("a-a", AS_MANY, plan())
    what = "same model, 60 min, peeks every 5 s, 20–2,500 requests/s, .05–2 % errors"
    for ended in runner.growing(case, 5000, every=100):
        yield rolled_back("a-a", what, ended, 1.0)


def a_a_strict(runner: Runner) -> Iterator[Row]:
    """The same on the null's boundary: nothing is tolerated, so that α is what is left."""
    case = Case("a-a-strict", AS_MANY, plan(specs=strict()))
    for ended in runner.growing(case, 500, every=100):
        yield rolled_back("a-a-strict", "same model, 60 min, nothing tolerated", ended, 1.0)


def tolerable(runner: Runner) -> Iterator[Row]:
    """Small changes of everything at once, at a scale where a strict test would see each."""
    case = Case("tolerable", (World(50_000.0, fault=TOLERATED),), plan())
    what = "latency +2 %, errors × 1.1 and KS .005 at once, 50,000 requests/s, 60 min"
    for ended in runner.growing(case, 400, every=100):
        yield rolled_back("tolerable", what, ended, 1.0)


def instance(runner: Runner) -> Iterator[Row]:
    """The same model on a canary instance that is slow for good, or cold after each change of weight."""
    faults = {
        "canary's instance 5 % slower throughout": Fault(slower=1.05),
        "canary's instance 8 % slower throughout": Fault(slower=1.08),
        "canary cold: + 30 % after each weight change, fading with 10 s": Fault(cold_slower=1.3),
        "canary cold: × 2 after each weight change, fading with 10 s": Fault(cold_slower=2.0),
        "canary cold: × 2 after each weight change, fading with 60 s": Fault(
            cold_slower=2.0, cold_seconds=60.0
        ),
    }
    for i, (what, fault) in enumerate(faults.items()):
        case = Case(f"instance-{i}", (replace(USUAL, fault=fault),), plan())
        yield rolled_back("instance", f"{what}, 60 min", runner.all(case, 300), 2.0)
    world = replace(USUAL, fault=Fault(cold_slower=2.0, cold_seconds=60.0))
    patient = tuple(
        with_settings(spec, {"warm_up_seconds": WARM_UP_SECONDS}) if spec.name == "latency" else spec
        for spec in GATES
    )
    case = Case("instance-warm-up", (world,), plan(specs=patient))
    what = f"canary cold: × 2, fading with 60 s, the plan leaves out {WARM_UP_SECONDS:g} s of latency"
    yield rolled_back("instance", f"{what}, 60 min", runner.all(case, 300), 2.0)


def alike(runner: Runner) -> Iterator[Row]:
    """The same model, but requests in a row are equally slow and equally sure: a user's, who stays in an arm."""
    for run_length in (2, 5, 10):
        world = replace(USUAL, alike=run_length)
        what = f"latency and confidence in clusters of {run_length}"
        case = Case(f"alike-{run_length}", (world,), plan())
        yield rolled_back("alike", f"{what}, taken one by one, 60 min", runner.all(case, 150), None)
        assuming = replace(case, name=f"alike-{run_length}-assumed", knows=nothing)
        yield rolled_back("alike", f"{what}, φ assumed 5, 60 min", runner.all(assuming, 300), 2.0)


def day(runner: Runner) -> Iterator[Row]:
    """The same model for a whole day: peeks every 30 s, six hours at each weight."""
    case = Case("day", AS_MANY, plan(), seconds=86_400.0, tick_seconds=30.0, window_seconds=30.0)
    for ended in runner.growing(case, 200, every=20):
        yield rolled_back("day", "same model, 24 h, peeks every 30 s", ended, 2.0)


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {
    "tolerable": tolerable,
    "instance": instance,
    "alike": alike,
    "a-a-strict": a_a_strict,
    "day": day,
    "a-a": a_a,
}
