"""Which intervals are evidence: each once, none around a change of weight, both arms or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitoring.windows import Counts
from rollout import evidence
from rollout.drivers.base import ArmCounts, RouterCounts
from rollout.evidence import Reading, Sources
from rollout.gates.base import Arm, Interval

GRACE = 15.0


def router(
    at: float, canary: tuple[int, ...], stable: tuple[int, ...] = (0, 0), began: float = -9
) -> RouterCounts:
    return RouterCounts(at, began, ArmCounts(*canary), ArmCounts(*stable))


def read_all(readings: Sequence[RouterCounts], sources: Sources | None = None) -> list[Interval]:
    """The intervals that these readings of the router make."""
    found = []
    state: Sources = sources or {}
    for counts in readings:
        state, reading = evidence.from_router(state, counts)
        if reading is not None:
            found.append(reading.interval)
    return found


# The router


def test_the_first_reading_only_says_where_to_begin() -> None:
    sources, reading = evidence.from_router({}, router(10, (500, 20), (9000, 3)))
    assert reading is None
    _, reading = evidence.from_router(sources, router(11, (510, 21), (9190, 3)))
    assert reading == Reading("router", Interval(10, 11, Arm(10, 1), Arm(190, 0)))


def test_failures_of_an_earlier_canary_are_never_this_ones() -> None:
    """Read while requests came: 3 of the slot's earlier failures were not told at first."""
    began, later = router(10, (500, 17, 4), (9000, 0, 30)), router(11, (550, 20), (9300, 25))
    assert read_all([began, later]) == [Interval(10, 11, Arm(50, 0), Arm(300, 0))]
    failing = router(12, (600, 29), (9600, 25))
    assert read_all([began, later, failing])[1].canary == Arm(50, 8)


def test_intervals_meet_and_never_overlap() -> None:
    intervals = read_all([router(t, (t, 0), (t, 0)) for t in (1, 2, 4, 4, 3, 7)])
    assert [(i.start, i.end) for i in intervals] == [(1, 2), (2, 4), (3, 7)]


def test_a_reading_that_is_not_later_than_the_last_is_no_interval() -> None:
    assert read_all([router(5, (1, 0)), router(5, (9, 0)), router(4, (9, 0))]) == []


def test_a_restarted_router_begins_again() -> None:
    before, after = router(10, (100, 5), (900, 0), began=2), router(14, (300, 5), (2000, 0), began=12)
    assert read_all([before, after]) == []
    following = router(15, (310, 5), (2100, 0), began=12)
    assert read_all([before, after, following]) == [Interval(14, 15, Arm(10, 0), Arm(100, 0))]


def test_a_router_that_was_quiet_before_its_restart_is_caught_too() -> None:
    """Counters that did not go back still belong to another life."""
    assert read_all([router(10, (0, 0), (0, 0), began=2), router(14, (30, 9), (70, 0), began=11)]) == []


def test_a_restart_within_the_second_that_routers_tell_is_caught() -> None:
    """Envoy says how long it runs in whole seconds, rounded up or down."""
    assert read_all([router(10, (0, 0), (0, 0), began=2), router(11.5, (30, 0), (70, 0), began=9.4)]) == []


def test_counters_that_go_back_are_no_evidence() -> None:
    assert read_all([router(1, (10, 0), (10, 0)), router(2, (9, 0), (20, 0))]) == []
    assert read_all([router(1, (10, 0), (10, 0)), router(2, (20, 0), (9, 0))]) == []


def test_a_failure_that_is_seen_before_its_request_counts_in_the_next_interval() -> None:
    intervals = read_all([router(1, (10, 0)), router(2, (12, 3)), router(3, (13, 3))])
    assert [(i.canary.n, i.canary.errors) for i in intervals] == [(2, 2), (1, 1)]


def test_a_failure_that_turns_out_well_is_not_taken_back_twice() -> None:
    intervals = read_all([router(1, (10, 2)), router(2, (12, 1)), router(3, (20, 3))])
    assert [(i.canary.n, i.canary.errors) for i in intervals] == [(2, 0), (8, 1)]


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(-5, 55), st.integers(0, 500), st.integers(0, 3)),
        max_size=30,
    )
)
def test_no_interval_has_more_failures_than_requests_and_nothing_counts_twice(
    moves: list[tuple[int, int, int, int]],
) -> None:
    n_c = x_c = n_b = x_b = 0
    readings = [router(0, (0, 0))]
    for second, (more, worse, other, bad) in enumerate(moves, 1):
        n_c, n_b, x_b = n_c + more, n_b + other, x_b + min(bad, other)
        x_c = min(n_c, max(0, x_c + worse))
        readings.append(router(second, (n_c, x_c), (n_b, x_b)))
    intervals = read_all(readings)
    for interval in intervals:
        for arm in (interval.canary, interval.stable):
            assert 0 <= arm.errors <= arm.n
    assert sum(i.canary.n for i in intervals) == n_c
    assert sum(i.canary.errors for i in intervals) <= max((r.canary.failed for r in readings), default=0)


# Changes of weight


def settled(*looks: tuple[float, bool]) -> Sources:
    sources: Sources = {}
    for at, as_wanted in looks:
        sources = evidence.note_weight(sources, as_wanted, at)
    return sources


def used(sources: Sources, start: float, end: float) -> bool:
    """Whether an interval of the router is evidence."""
    return bool(read_all([router(start, (0, 0), (0, 0)), router(end, (9, 0), (9, 0))], sources))


def test_a_change_that_was_decided_drops_what_overlaps_it_until_it_is_observed() -> None:
    sources = settled((10, True), (10, False), (12, True))
    assert used(sources, 8, 9)
    assert not used(sources, 8, 9.5)
    assert not used(sources, 10.5, 11.5)
    assert not used(sources, 12.5, 13.5)
    assert not used(sources, 5, 20)
    assert used(sources, 13, 14)


def test_a_change_by_hand_counts_from_the_last_time_that_all_was_well() -> None:
    sources = settled((10, True), (11, True), (17, False), (18, True))
    assert used(sources, 9, 10)
    assert not used(sources, 12, 13)
    assert used(sources, 19, 20)


def test_while_the_weight_is_not_as_wanted_nothing_is_evidence() -> None:
    sources = settled((10, True), (11, False), (12, False))
    assert not used(sources, 300, 301)
    assert used(sources, 7, 8)


def test_the_interval_after_a_dropped_one_begins_where_that_ended() -> None:
    sources = settled((0, False), (10, True))
    readings = [router(9, (10, 0), (10, 0)), router(12, (90, 50), (90, 0)), router(13, (95, 51), (99, 0))]
    assert read_all(readings, sources) == [Interval(12, 13, Arm(5, 1), Arm(9, 0))]


def test_changes_are_forgotten_only_when_there_were_very_many() -> None:
    looks = [(float(at), at % 2 == 1) for at in range(2, 2000)]
    sources = settled(*looks)
    assert len(sources["unsettled"]) == evidence.SPANS_KEPT
    assert not used(sources, 1990, 1991)


# Collectors


def window(
    start: float, end: float, n: int = 100, errors: int = 0, reporters: Sequence[str] = ("r1",)
) -> Counts:
    confidence, latency = np.zeros(100, np.int64), np.zeros(96, np.int64)
    confidence[95] = latency[40] = n - errors
    return Counts(
        datetime.fromtimestamp(start, UTC),
        datetime.fromtimestamp(end, UTC),
        n,
        errors,
        confidence,
        latency,
        frozenset(reporters),
    )


def collect(
    sources: Sources, canary: list[Counts], stable: list[Counts], now: float
) -> tuple[Sources, list[tuple[float, float]]]:
    sources, readings = evidence.from_collectors(sources, canary, stable, now, GRACE)
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
    _, readings = evidence.from_collectors({}, [window(0, 10, 100, 3)], [window(0, 10, 900)], 30, GRACE)
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
    known: dict[str, dict[int, Counts]] = {"canary": {}, "stable": {}}
    sources: Sources = {}
    found: list[tuple[float, float]] = []
    for second, (place, role) in enumerate(arrivals):
        known[role].setdefault(place, window(5.0 * place, 5.0 * place + 5))
        arms = (list(known["canary"].values()), list(known["stable"].values()))
        sources, new = collect(sources, *arms, now=2.0 * second)
        found += new
    assert found == sorted(set(found))
    assert {start for start, _ in found} <= {5.0 * i for i in set(known["canary"]) & set(known["stable"])}


# Silence


def both(start: float, end: float, n: int = 10) -> Interval:
    return Interval(start, end, Arm(n), Arm(n))


def test_a_gate_without_evidence_is_the_most_silent_one() -> None:
    sources = evidence.note_use({}, "errors", both(0, 10), 60)
    assert evidence.most_silent(sources, ["errors", "latency"]) == ("latency", None)
    sources = evidence.note_use(sources, "latency", both(0, 5), 60)
    assert evidence.most_silent(sources, ["errors", "latency"]) == ("latency", 5)
    assert evidence.most_silent(sources, []) == ("", None)


def test_an_interval_in_which_an_arm_had_no_requests_is_silence() -> None:
    for idle in (Interval(0, 10, Arm(0), Arm(9)), Interval(0, 10, Arm(9), Arm(0))):
        assert evidence.note_use({}, "errors", idle, 60) == {}


def test_a_run_of_evidence_begins_again_after_a_silence_longer_than_patience() -> None:
    sources: Sources = {}
    for start in (0, 10, 70, 140):
        sources = evidence.note_use(sources, "errors", both(start, start + 5), 60)
    assert evidence.flowing_since(sources, ["errors"]) == 140
    sources = evidence.note_use({}, "errors", both(0, 5), 60)
    sources = evidence.note_use(sources, "errors", both(60, 65), 60)
    assert evidence.flowing_since(sources, ["errors"]) == 0


def test_evidence_flows_since_the_last_gate_has_it() -> None:
    sources = evidence.note_use({}, "errors", both(0, 5), 60)
    assert evidence.flowing_since(sources, ["errors", "latency"]) is None
    sources = evidence.note_use(sources, "latency", both(20, 25), 60)
    assert evidence.flowing_since(sources, ["errors", "latency"]) == 20


# The watch


def watched(*readings: tuple[float, int, int]) -> str:
    sources: Sources = {}
    for at, assigned, failed in readings:
        sources = evidence.note_recent(sources, router(at, (0, 0), (assigned, failed)))
    return evidence.outage(sources)


def test_half_of_the_requests_failing_for_5_seconds_is_an_outage() -> None:
    assert watched(*[(t, 20 * t, 10 * t) for t in range(7)]) == (
        "50 of 100 requests of the new version failed within 5 s"
    )
    assert watched(*[(t, 20 * t, 9 * t) for t in range(7)]) == ""


def test_a_short_burst_or_a_few_requests_are_no_outage() -> None:
    assert watched(*[(t, 20 * t, 20 * t) for t in range(5)]) == ""
    assert watched(*[(t, t, t) for t in range(7)]) == ""
    assert watched() == ""


def test_a_restart_in_the_watch_is_no_outage() -> None:
    assert watched((0, 500, 400), (6, 30, 2)) == ""


# Replay


def test_evidence_reads_back_as_it_was_kept() -> None:
    histogram = tuple(range(100))
    interval = Interval(1.5, 2.5, Arm(4950, 7, histogram), Arm(4950, 0, histogram))
    kept: dict[str, Any] = evidence.as_json(interval, ("errors", "confidence"))
    assert evidence.from_json(1.5, 2.5, kept) == interval
