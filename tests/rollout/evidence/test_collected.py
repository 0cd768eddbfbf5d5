"""Which of collectors' intervals are evidence, and what of them reaches the gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitoring.intervals import Observed
from rollout.evidence import collected
from rollout.evidence.collected import Wanted
from rollout.evidence.sources import Reading, Sources
from rollout.gates.base import GateSpec
from tests.rollout.evidence.test_sources import settled

GRACE = 15.0


@dataclass(frozen=True)
class Told(Observed):
    """Counts, and who reported them."""

    reporters: frozenset[str] = frozenset({"r1"})


def window(
    start: float,
    end: float,
    n: int = 100,
    errors: int = 0,
    reporters: Sequence[str] = ("r1",),
    segments: dict[str, Observed] | None = None,
) -> Told:
    confidence, latency = np.zeros(100, np.int64), np.zeros(96, np.int64)
    confidence[95] = latency[40] = n - errors
    return Told(
        datetime.fromtimestamp(start, UTC),
        datetime.fromtimestamp(end, UTC),
        n,
        errors,
        reporters=frozenset(reporters),
        confidence=confidence,
        latency=latency,
        segments=segments or {},
    )


def from_collectors(
    sources: Sources, canary: Sequence[Told], stable: Sequence[Told], now: float, grace_seconds: float
) -> tuple[Sources, list[Reading]]:
    """`close` and `readings` of counts that are at hand."""
    sources, spans = collected.close(sources, canary, stable, now, grace_seconds)
    return collected.readings(sources, spans, canary, stable)


def collect(
    sources: Sources, canary: list[Told], stable: list[Told], now: float
) -> tuple[Sources, list[tuple[float, float]]]:
    sources, readings = from_collectors(sources, canary, stable, now, GRACE)
    return sources, [(r.interval.start, r.interval.end) for r in readings]


def test_both_arms_are_awaited_and_then_no_longer() -> None:
    canary, stable = [window(0, 10)], [window(0, 10)]
    sources, found = collect({}, canary, stable, now=24.9)
    assert found == []  # nobody knows yet who reports
    sources, found = collect(sources, canary, stable, now=25)
    assert found == [(0, 10)]
    _, found = collect(sources, canary, stable, now=26)
    assert found == []


def test_an_interval_closes_as_soon_as_all_reporters_of_the_last_one_are_there() -> None:
    two = ("r1", "r2")
    sources, _ = collect({}, [window(0, 10)], [window(0, 10, reporters=two)], now=25)
    halfway = [window(10, 20, reporters=["r1"])]
    sources, found = collect(sources, [window(10, 20)], halfway, now=25)
    assert found == []
    sources, found = collect(sources, [window(10, 20)], [window(10, 20, reporters=two)], now=25)
    assert found == [(10, 20)]


def test_a_restarted_collector_costs_one_grace() -> None:
    sources, _ = collect({}, [window(0, 10)], [window(0, 10)], now=25)
    canary = [window(10, 20, reporters=["new"]), window(20, 30, reporters=["new"])]
    stable = [window(10, 20), window(20, 30)]
    sources, found = collect(sources, canary, stable, now=34)
    assert found == []
    _, found = collect(sources, canary, stable, now=35)
    assert found == [(10, 20), (20, 30)]


def test_what_comes_after_the_grace_does_not_count() -> None:
    sources, found = collect({}, [window(0, 10)], [], now=25)
    assert found == []
    _, found = collect(sources, [window(0, 10)], [window(0, 10)], now=26)
    assert found == []


def test_an_interval_is_not_overtaken_by_a_later_one() -> None:
    both = [window(0, 10), window(10, 20)]
    sources, found = collect({}, both, [window(10, 20)], now=20)
    assert found == []
    _, found = collect(sources, both, [window(0, 10), window(10, 20)], now=36)
    assert found == [(0, 10), (10, 20)]


def test_intervals_that_overlap_one_that_was_used_are_left_out() -> None:
    sources, _ = collect({}, [window(0, 10)], [window(0, 10)], now=25)
    both = [window(0, 10), window(5, 15), window(10, 20)]
    _, found = collect(sources, both, both, now=40)
    assert found == [(10, 20)]


def test_windows_around_a_change_of_weight_are_left_out() -> None:
    both = [window(t, t + 5) for t in range(0, 40, 5)]
    sources, found = collect(settled((12, False), (13, True)), both, both, now=60)
    assert found == [(0, 5), (5, 10), (15, 20), (20, 25), (25, 30), (30, 35), (35, 40)]
    assert sources["collector"]["cursor"] == 40


def test_both_arms_carry_their_histograms() -> None:
    _, readings = from_collectors({}, [window(0, 10, 100, 3)], [window(0, 10, 900)], 30, GRACE)
    interval = readings[0].interval
    assert (interval.canary.n, interval.canary.errors, interval.stable.n) == (100, 3, 900)
    assert interval.canary.confidence is not None
    assert interval.stable.latency is not None
    assert (sum(interval.canary.confidence), sum(interval.stable.latency)) == (97, 900)


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["canary", "stable"])), max_size=40))
def test_whenever_windows_arrive_each_interval_is_used_once_and_in_order(
    arrivals: list[tuple[int, str]],
) -> None:
    """One arrival a second, every window at a random time, late and repeated ones among them."""
    known: dict[str, dict[int, Told]] = {"canary": {}, "stable": {}}
    sources: Sources = {}
    found: list[tuple[float, float]] = []
    for second, (place, role) in enumerate(arrivals):
        known[role].setdefault(place, window(5.0 * place, 5.0 * place + 5))
        arms = (list(known["canary"].values()), list(known["stable"].values()))
        sources, new = collect(sources, *arms, now=2.0 * second)
        found += new
    assert found == sorted(set(found))
    assert {start for start, _ in found} <= {5.0 * i for i in set(known["canary"]) & set(known["stable"])}


# Segments


def parted(**requests: int) -> Told:
    return window(
        0, 10, sum(requests.values()), segments={f"device={k}": window(0, 10, n) for k, n in requests.items()}
    )


def labels(
    canary: Told, stable: Told, sources: Sources | None = None
) -> tuple[Sources, dict[str, int], set[str]]:
    """The canary's requests by segment, and stable's segments."""
    now = 30.0 if sources is None else 60.0
    sources, readings = from_collectors(sources or {}, [canary], [stable], now, GRACE)
    arms = readings[0].interval.canary, readings[0].interval.stable
    return sources, {label: arm.n for label, arm in arms[0].segments.items()}, set(arms[1].segments)


def test_segments_reach_both_arms_with_their_counts() -> None:
    _, canary, stable = labels(parted(nano=5, orin=40), parted(nano=90, orin=800))
    assert canary == {"device=nano": 5, "device=orin": 40}
    assert stable == {"device=nano", "device=orin"}


def test_beyond_32_values_the_smallest_are_added_up_as_other_in_both_arms() -> None:
    many = {f"d{i:02}": 100 - i for i in range(40)}
    _, canary, stable = labels(parted(**many), parted(**many))
    assert len(canary) == len(stable) == collected.MOST_VALUES + 1
    assert canary["device=other"] == sum(100 - i for i in range(32, 40))
    assert canary.keys() == stable


def test_a_value_that_was_other_once_stays_so() -> None:
    """Else "other" would mean different people in different intervals."""
    sources, _, _ = labels(parted(**{f"d{i:02}": 100 - i for i in range(40)}), parted(d00=1))
    later = [
        Told(w.start.replace(second=20), w.end.replace(second=30), w.n, 0, segments=w.segments)
        for w in (parted(d39=5_000, d01=1), parted(d39=9, d01=1))
    ]
    _, canary, _ = labels(later[0], later[1], sources)
    assert canary == {"device=other": 5_000, "device=d01": 1}


# What is read


def wanted(*specs: GateSpec, errors: str = "router", assignment: str = "request") -> Wanted:
    sources = {spec.name: errors if spec.name == "errors" else "collector" for spec in specs}
    return Wanted.by(specs, sources, assignment)


def test_only_columns_that_a_gate_of_the_plan_reads_are_read() -> None:
    assert wanted(GateSpec("errors", 1), GateSpec("latency", 1)) == Wanted(("latency",), ())
    assert wanted(GateSpec("embedding_shift", 1), GateSpec("detections", 1)).columns == (
        "detections",
        "embedding",
    )
    assert wanted(GateSpec("confidence", 1, segments="device")).keys == ("device",)


def test_errors_by_key_are_read_where_the_router_does_not_draw_each_request_anew() -> None:
    assert wanted(GateSpec("errors", 1)).columns == ()
    assert wanted(GateSpec("errors", 1), assignment="key").columns == ("errors_by_key_bucket",)


def test_of_a_gate_with_another_source_only_what_collectors_alone_know_is_used() -> None:
    canary, stable = parted(nano=5), parted(nano=90)
    _, readings = from_collectors({}, [canary], [stable], 30, GRACE)
    interval = readings[0].interval
    assert collected.beside(GateSpec("errors", 1), interval) is None
    aside = collected.beside(GateSpec("errors", 1, segments="device"), interval)
    assert aside is not None
    assert aside.aside


def test_embedding_counts_carry_the_reference_that_they_are_compared_with() -> None:
    both = [
        Told(
            datetime.fromtimestamp(0, UTC),
            datetime.fromtimestamp(10, UTC),
            3,
            0,
            embedding=np.array([[1, 2]]),
            reference=np.array([[50, 50]]),
            reference_digest=digest,
        )
        for digest in ("c", "s")
    ]
    _, readings = from_collectors({}, both[:1], both[1:], 30, GRACE)
    arm: Any = readings[0].interval.canary
    assert (arm.embedding, arm.reference, arm.reference_digest) == (((1, 2),), ((50, 50),), "c")
    assert readings[0].interval.stable.reference_digest == "s"
