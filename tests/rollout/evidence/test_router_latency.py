"""The router's latencies as evidence: which intervals count, and a rollout that is judged by them alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from davy.counting import count_latency
from hypothesis import given
from hypothesis import strategies as st

from controlplane.problems import Problem
from rollout import commands
from rollout.drivers.base import ArmCounts, RouterCounts
from rollout.evidence import sources as evidence
from rollout.evidence.sources import ROUTER_LATENCY, Sources
from rollout.gates.base import Arm, Interval
from rollout.models import Evidence
from tests.rollout.scene import PLAN, RATE, Behaviour, Scene


def bins(n: int, place: int = 30) -> tuple[int, ...]:
    return tuple(n if i == place else 0 for i in range(96))


def router(
    at: float, canary: int, stable: int, *, failed: int = 0, retried: int = 0, began: float = -99
) -> RouterCounts:
    """So many requests of either arm until `at`; failures and retries are stable's."""
    return RouterCounts(
        at,
        began,
        ArmCounts(canary, 0, latency=bins(canary)),
        ArmCounts(stable, failed, 0, retried, bins(stable)),
    )


def read_all(readings: Sequence[RouterCounts], sources: Sources | None = None) -> list[Interval]:
    found = []
    state: Sources = sources or {}
    for counts in readings:
        state, reading = evidence.latency_from_router(state, counts)
        if reading is not None:
            assert reading.source == ROUTER_LATENCY
            found.append(reading.interval)
    return found


def spans(readings: Sequence[RouterCounts], sources: Sources | None = None) -> list[tuple[float, float]]:
    return [(interval.start, interval.end) for interval in read_all(readings, sources)]


def test_an_interval_is_what_both_arms_counted_in_at_least_five_seconds() -> None:
    readings = [router(t, 10 * t, 100 * t) for t in range(12)]
    (interval,) = read_all(readings)  # the first one only says whether the second may count
    assert (interval.start, interval.end) == (5, 10)
    assert interval.canary == Arm(50, latency=bins(50))
    assert interval.stable == Arm(500, latency=bins(500))


def test_a_router_that_offers_no_latency_is_no_evidence() -> None:
    counts = RouterCounts(9, 0, ArmCounts(5, 0), ArmCounts(5, 0))
    assert evidence.latency_from_router({}, counts) == ({}, None)


@pytest.mark.parametrize("trouble", ["failed", "retried"])
def test_intervals_with_retries_or_fallback_are_dropped_and_the_next_one_too(trouble: str) -> None:
    """A histogram lags behind the counters: the retried request may only be in the next one."""
    readings = [router(t, t, t, **{trouble: int(t >= 12)}) for t in range(0, 41, 5)]
    assert spans(readings) == [(5, 10), (20, 25), (25, 30), (30, 35), (35, 40)]


def test_a_failure_count_that_sinks_and_rises_again_is_no_new_failure() -> None:
    """Failures are told conservatively: some may be told late."""
    failed = [3, 3, 3, 1, 3, 2, 3]
    readings = [router(5 * i, i, i, failed=x) for i, x in enumerate(failed)]
    assert spans(readings) == [(5, 10), (10, 15), (15, 20), (20, 25), (25, 30)]


def test_a_restarted_router_begins_again() -> None:
    life = [router(t, 100 + t, 100 + t, began=-50) for t in (0, 5, 10)]
    next_life = [router(t, t, t, began=12) for t in (15, 20, 25)]
    assert spans([*life, *next_life]) == [(5, 10), (20, 25)]


def test_a_count_that_goes_back_is_no_evidence() -> None:
    readings = [router(0, 0, 0), router(5, 50, 50), router(10, 40, 90), router(15, 60, 99)]
    assert spans(readings) == [(10, 15)]


def test_intervals_around_a_change_of_weight_are_dropped_with_the_histogram_s_lag() -> None:
    changed = {"unsettled": [[12.0, 13.0]]}
    readings = [router(t, t, t) for t in range(0, 36, 5)]
    assert spans(readings, changed) == [(5, 10), (20, 25), (25, 30), (30, 35)]


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 40), st.integers(0, 400)), max_size=40))
def test_no_request_counts_twice(moves: list[tuple[int, int, int]]) -> None:
    at = n_c = n_b = 0
    readings = [router(0, 0, 0)]
    for seconds, more, others in moves:
        at, n_c, n_b = at + seconds, n_c + more, n_b + others
        readings.append(router(at, n_c, n_b))
    intervals = read_all(readings)
    assert sum(i.canary.n for i in intervals) <= n_c
    assert sum(i.stable.n for i in intervals) <= n_b
    assert all(one.end <= other.start for one, other in itertools.pairwise(intervals))


# A rollout without collectors


ROUTER_ONLY: dict[str, Any] = {
    **PLAN,
    "name": "by-router",
    "steps": [{"weight_percent": 50, "dwell_seconds": 5}],
    "gates": [
        {"name": "errors", "weight": 0.6},
        {"name": "latency", "weight": 0.4, "settings": {"source": "router"}},
    ],
    "patience_seconds": 600,
}


class WithoutCollectors(Scene):
    """Stock servers: the router tells how long requests took, and nobody else does."""

    def traffic(self) -> None:
        split = self.memory.weights.get("products", {})
        for slot in ("a", "b"):
            held = self.memory.loaded.get(("products", slot))
            n = int(self.rng.binomial(RATE, split.get(slot, 0) / 100))
            seconds = np.empty(0)
            if held is not None and n:
                seconds = self.behaviour[held.version].latency_seconds * self.rng.lognormal(0, 0.2, n)
            self.memory.count("products", slot, len(seconds), latency=count_latency(seconds).tolist())


@pytest.fixture
def scene(db: None, request: pytest.FixtureRequest) -> Scene:
    return WithoutCollectors(request.node.name[:60], collectors=False)


def sources(rollout: Any) -> set[tuple[str, str]]:
    return set(Evidence.objects.filter(rollout=rollout).values_list("gate", "source"))


def test_a_slow_version_is_rolled_back_by_the_router_s_latencies_alone(scene: Scene) -> None:
    scene.live("v1")
    rollout = scene.start(scene.version("v2", Behaviour(latency_seconds=0.015)), ROUTER_ONLY)
    ended = scene.run(rollout, 300)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("latency failed: canary ")
    assert sources(rollout) == {("errors", "router"), ("latency", ROUTER_LATENCY)}


def test_an_equal_version_is_promoted_by_the_router_s_view_alone(scene: Scene) -> None:
    scene.live("v1")
    rollout = scene.start(scene.version("v2"), ROUTER_ONLY)
    ended = scene.run(rollout, 600)
    assert ended.state == "promoted", ended.reason


def test_the_shipped_router_only_plan_judges_latency_but_does_not_wait_for_it(db: None) -> None:
    gates = {gate.name: gate for gate in commands.read_plan("router-only").gates}
    assert gates["latency"].settings == {"source": "router"}
    assert not gates["latency"].required
    assert gates["errors"].required


def test_a_source_that_there_is_not_is_refused_by_its_path(db: None) -> None:
    plan = {**ROUTER_ONLY, "gates": [{"name": "latency", "settings": {"source": "rumour"}}]}
    with pytest.raises(Problem) as refused:
        commands.read_plan(plan)
    assert refused.value.errors[0]["pointer"] == "/plan/gates/0/settings/source"
