"""Timer → weight: a rollout moves real traffic by itself, whatever is killed or missing on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from controlplane import embedded
from tests.system import System

WEIGHTS = [5, 25, 50]
BROKER_GONE_SECONDS = 30.0
DATABASE_GONE_SECONDS = 10.0


def plan(*gates: str, dwell_seconds: tuple[float, float, float]) -> dict[str, Any]:
    """A rollout for the impatient: margins so wide that a hundred requests decide."""
    steps = zip(WEIGHTS, dwell_seconds, strict=True)
    return {
        "name": "quick",
        "steps": [{"weight_percent": weight, "dwell_seconds": dwell} for weight, dwell in steps],
        "gates": [{"name": gate, "settings": {"margin_points": {"1": 20}}} for gate in gates],
        "patience_seconds": 120,
        "watch_seconds": 1,
    }


def steps_of(system: System, rollout_id: int) -> list[tuple[int, float]]:
    """(step, weight) of each change that the log tells while the rollout was running."""
    running = [event for event in system.events(rollout_id) if event["state"] == "running"]
    return [(event["step"], event["weight_percent"]) for event in running]


def assert_promoted_step_by_step(system: System, rollout_id: int, model: str) -> None:
    """Promoted, no step skipped or repeated, and Envoy says so too."""
    rollout = system.ended(rollout_id)
    assert rollout["state"] == "promoted", rollout["reason"]
    assert steps_of(system, rollout_id) == list(enumerate(WEIGHTS))
    states = [event["state"] for event in system.events(rollout_id)]
    assert states == ["running"] * 3 + ["promoting", "watching", "promoted"]
    slot = system.route(model)["stable_slot"]
    assert system.envoy_weights(model)[slot] == 100


def weights_until_the_end(system: System, rollout_id: int, model: str, slot: str) -> list[float]:
    """Every share of a slot that Envoy reports, in order, until the rollout is over."""
    seen: list[float] = []

    def look() -> bool | None:
        weight = system.envoy_weights(model)[slot]
        if seen[-1:] != [weight]:
            seen.append(weight)
        return bool(system.rollout(rollout_id)["ended_at"]) or None

    system.wait_for(f"the end of rollout {rollout_id}", look)
    return seen


def test_timers_move_a_rollout_through_every_weight_to_promoted(system) -> None:
    before = system.route("products")
    slot = "b" if before["stable_slot"] == "a" else "a"
    every_gate = plan("errors", "latency", "confidence", dwell_seconds=(2, 2, 2))
    with system.busy(products=300):
        rollout_id = system.start_rollout("products", "v2", every_gate)
        weights = weights_until_the_end(system, rollout_id, "products", slot)
    assert weights == [0, *WEIGHTS, 100]
    assert_promoted_step_by_step(system, rollout_id, "products")
    after = system.route("products")
    assert (after["stable"], after["stable_slot"]) == ("v2", slot)


def test_kill_9_of_worker_beat_and_web_costs_no_step(system) -> None:
    with system.busy(returns=300):
        rollout_id = system.start_rollout("returns", "v2", plan("errors", dwell_seconds=(5, 5, 5)))
        for weight, name in zip(WEIGHTS, ("worker", "beat", "web"), strict=True):
            system.at_weight(rollout_id, weight)
            system.kill(name)
        assert_promoted_step_by_step(system, rollout_id, "returns")


@dataclass(frozen=True)
class Outage:
    """What was seen while Davy was stopped, its broker gone, and Envoy restarted."""

    rollout_id: int
    before: dict[str, float]
    after: dict[str, float]
    finished_meanwhile: bool


@pytest.fixture(scope="module")
def outage(system) -> Iterator[Outage]:
    """A rollout of kiosk at 25 %: Envoy restarts while nobody can correct it; the broker is gone for 30 s."""
    with system.busy(kiosk=300):
        rollout_id = system.start_rollout("kiosk", "v2", plan("errors", dwell_seconds=(1, 20, 1)))
        system.at_weight(rollout_id, 25)
        gone = time.monotonic()
        for name in ("beat", "worker", "valkey"):
            system.supervisor.stop(name)
        before = system.envoy_weights("kiosk")
        system.supervisor.restart(["envoy"])
        system.wait_for("the gateway", lambda: system.served("kiosk") or None)
        after = system.envoy_weights("kiosk")
        system.supervisor.start(["worker", "beat"])
        while time.monotonic() < gone + BROKER_GONE_SECONDS:
            finished = bool(system.rollout(rollout_id)["ended_at"])
            time.sleep(0.5)
        system.supervisor.start(["valkey"])
        yield Outage(rollout_id, before, after, finished)


def test_35_a_restarted_envoy_serves_the_last_weights(outage) -> None:
    assert set(outage.before.values()) == {25, 75}
    assert outage.after == outage.before


def test_a_broker_gone_for_30_s_makes_a_rollout_late_and_loses_nothing(system, outage) -> None:
    assert not outage.finished_meanwhile
    assert_promoted_step_by_step(system, outage.rollout_id, "kiosk")


def test_34_a_database_that_is_away_loses_and_invents_no_decision(system) -> None:
    with system.busy(shelf=300):
        rollout_id = system.start_rollout("shelf", "v2", plan("errors", dwell_seconds=(1, 8, 1)))
        system.at_weight(rollout_id, 25)
        before = system.envoy_weights("shelf")
        embedded.stop_postgres(system.here.var)
        gone = time.monotonic()
        while time.monotonic() < gone + DATABASE_GONE_SECONDS:
            assert system.envoy_weights("shelf") == before
            assert system.served("shelf")
            time.sleep(0.5)
        embedded.start_postgres(system.here.var)
        assert_promoted_step_by_step(system, rollout_id, "shelf")
