"""Which intervals are evidence: each once, none around a change of weight, both arms or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rollout.drivers.base import ArmCounts, RouterCounts
from rollout.evidence import sources as evidence
from rollout.evidence.sources import Reading, Sources
from rollout.gates.base import Arm, Interval


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


def test_readings_from_before_the_roles_swapped_are_no_outage() -> None:
    before = evidence.note_recent({}, router(100, (0, 0), (10_000, 10)))
    swapped = evidence.note_recent(before, router(106, (10_100, 10), (10_200, 5_300)), since=103)
    assert evidence.outage(swapped) == ""
    assert evidence.outage(evidence.note_recent(before, router(106, (10_100, 10), (10_200, 5_300)))) != ""


def test_a_restart_in_the_watch_is_no_outage() -> None:
    assert watched((0, 500, 400), (6, 30, 2)) == ""


# Replay


def test_evidence_reads_back_as_it_was_kept() -> None:
    histogram = tuple(range(100))
    interval = Interval(1.5, 2.5, Arm(4950, 7, histogram), Arm(4950, 0, histogram))
    kept: dict[str, Any] = evidence.as_json(interval, ("errors", "confidence"))
    assert evidence.from_json(1.5, 2.5, kept) == interval
