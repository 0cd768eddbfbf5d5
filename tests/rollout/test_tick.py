"""Ticks of rollouts on a memory fleet and the real database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from controlplane.models import Alert
from rollout import commands, judge, leases, look, tick
from rollout.evidence import sources
from rollout.gates.base import Interval, State, Verdict
from rollout.models import Evidence, Rollout, RolloutEvent
from rollout.plan import load
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
STANDARD = {**PLAN, "gates": [{"name": n} for n in ("errors", "latency", "confidence")]}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


def test_01_the_first_version_goes_live_without_analysis_and_says_so(scene: Scene) -> None:
    rollout = scene.start(scene.version("v1"))
    ended = scene.run(rollout, 10)
    assert ended.state == "promoted"
    assert "without analysis" in ended.reason
    assert scene.route.stable.name == "v1"
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_05_a_good_version_is_promoted_and_the_roles_swap(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), STANDARD)
    ended = scene.run(rollout, 600)
    assert ended.state == "promoted", ended.reason
    assert (scene.route.stable.name, scene.route.stable_slot) == ("v2", "b")
    assert scene.memory.weights["products"] == {"a": 0, "b": 100}
    assert scene.route.cache_epoch == 2


def test_every_step_is_taken_once_and_in_order(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 600)
    steps = [(e.state, e.weight_percent) for e in RolloutEvent.objects.filter(rollout=rollout)]
    assert steps == [("running", 5), ("running", 50), ("promoting", 100), ("watching", 0), ("promoted", 0)]


def test_a_canary_that_fails_requests_is_rolled_back_to_observed_weight_0_with_a_reason(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v3", Behaviour(errors=0.05)))
    ended = scene.run(rollout, 600)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("errors failed: canary ")
    assert scene.memory.weights["products"]["b"] == 0
    assert scene.route.stable.name == "v1"
    alert = Alert.objects.get(resolved_at=None)
    assert "products v3 was rolled back" in alert.summary
    assert "products v1 gets all traffic again" in alert.summary


def test_14_fail_takes_the_traffic_away_in_the_tick_that_sees_it(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v3", Behaviour(errors=1.0)))
    scene.run(rollout, 600, until="rolling_back")
    assert scene.memory.weights["products"]["b"] == 0


@pytest.mark.parametrize(
    ("gate", "behaviour"),
    [("latency", Behaviour(latency_seconds=0.012)), ("confidence", Behaviour(uncertain=0.3))],
)
def test_a_slow_or_an_unsure_canary_is_rolled_back_by_its_gate(
    scene: Scene, gate: str, behaviour: Behaviour
) -> None:
    scene.live()
    rollout = scene.start(scene.version("v4", behaviour), STANDARD)
    ended = scene.run(rollout, 600)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith(f"{gate} failed")


def test_16_without_telemetry_the_rollout_is_held_and_pages_and_never_promotes(scene: Scene) -> None:
    scene.live()
    scene.collectors = False
    rollout = scene.start(scene.version("v2"), STANDARD)
    held = scene.run(rollout, 300)
    assert held.state == "held"
    assert held.weight_percent == 5
    assert "no evidence for latency" in held.reason
    assert "is held at 5 %" in Alert.objects.get(resolved_at=None).summary


def test_16_evidence_that_comes_back_ends_the_hold_and_its_alert(scene: Scene) -> None:
    scene.live()
    scene.collectors = False
    rollout = scene.start(scene.version("v2"), STANDARD)
    scene.run(rollout, 300, until="held")
    scene.collectors = True
    assert scene.run(rollout, 600).state == "promoted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_24_a_canary_that_is_never_ready_gets_no_traffic(scene: Scene) -> None:
    scene.live()
    scene.memory.unready.add("b")
    rollout = scene.start(scene.version("v2"))
    waiting = scene.run(rollout, 30)
    assert waiting.state == "pending"
    assert scene.memory.weights["products"]["b"] == 0


def test_21_a_fleet_that_refuses_the_weight_keeps_the_step(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 30, until="running")
    scene.memory.refuse = "503 from the gateway"
    held = scene.run(rollout, 120, until="held")
    assert held.step == 0
    assert "503 from the gateway" in held.reason
    scene.memory.refuse = ""
    assert scene.run(rollout, 600).state == "promoted"


def test_21_a_gateway_that_refuses_a_weight_is_asked_again_with_back_off(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.memory.refuse_weights = "the route is locked"
    scene.run(rollout, 20, until="running")
    scene.memory.calls.clear()
    scene.run(rollout, 60)
    asked = scene.memory.calls.count(("set_weight", "products", "5"))
    assert 4 <= asked <= 7  # after 1, 2, 4, 8, 16, 30 s, not every second
    scene.memory.refuse_weights = ""
    scene.run(rollout, 31)
    assert scene.memory.weights["products"]["b"] == 5


def test_21_a_refused_weight_does_not_delay_the_way_back_to_0(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 30, until="running")
    scene.memory.refuse_weights = "the route is locked"
    commands.act(rollout.pk, "abort", actor="ann", reason="no", now=scene.now)
    scene.memory.calls.clear()
    scene.run(rollout, 20)
    assert scene.memory.calls.count(("set_weight", "products", "0")) >= 19


def test_33_two_workers_ticking_the_same_rollout_one_acts(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    Rollout.objects.filter(pk=rollout.pk).update(leased_until=scene.now + timedelta(seconds=20))
    assert tick.tick(rollout.pk, scene.now) is False


@pytest.mark.parametrize("dies_in", ["_save", "_apply"])
def test_32_a_worker_killed_around_a_write_is_mended_by_the_next_tick(
    scene: Scene, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third tick dies before or after its write; no step is skipped or taken twice."""
    scene.live()
    rollout = scene.start(scene.version("v2"))
    whole, calls = getattr(tick, dies_in), {"n": 0}

    def dying(*args: object) -> object:
        calls["n"] += 1
        if calls["n"] % 3 == 0:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(tick, dies_in, dying)
    for _ in range(600):
        try:
            scene.run(rollout, 1)
        except KeyboardInterrupt:
            continue
        if scene.get(rollout).state == "promoted":
            break
    steps = [e.weight_percent for e in RolloutEvent.objects.filter(rollout=rollout)]
    assert steps == [5, 50, 100, 0, 0]


def test_replaying_the_stored_evidence_gives_the_same_verdicts(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v3", Behaviour(errors=0.03)), STANDARD)
    ended = scene.run(rollout, 600)
    plan = load(ended.plan)
    state = judge.enter_step(judge.start(plan.gates), plan.steps[0].weight_percent)
    for row in Evidence.objects.filter(rollout=rollout):
        interval = sources.from_json(row.start.timestamp(), row.end.timestamp(), row.arms)
        state = judge.absorb(state, row.gate, interval)
    again = judge.conclude(state, plan.alpha)
    assert again.failed is not None
    assert again.failed.name == "errors"
    shown = {gate["name"]: gate for gate in ended.gates}
    assert shown["errors"]["verdict"] == Verdict.FAIL
    assert again.failed.log_e_fail == pytest.approx(shown["errors"]["log_e_fail"], rel=1e-9)


def test_a_new_version_that_fails_outright_while_watched_gives_its_traffic_back(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 600, until="watching")
    scene.behaviour["v2"] = Behaviour(errors=0.9)
    ended = scene.run(rollout, 30)
    assert ended.state == "rolled_back"
    assert (scene.route.stable.name, scene.route.stable_slot) == ("v1", "a")
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_abort_beats_a_promotion_in_flight(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 600, until="promoting")
    commands.act(rollout.pk, "abort", actor="ann", reason="wrong weights", now=scene.now)
    ended = scene.run(rollout, 10)
    assert ended.state == "aborted"
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}
    assert scene.route.stable.name == "v1"


def test_what_overlaps_a_change_of_weight_by_a_second_is_never_evidence(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), STANDARD)
    assert scene.run(rollout, 600).state == "promoted"
    changes = [
        e.at for e in RolloutEvent.objects.filter(rollout=rollout) if e.state in ("running", "promoting")
    ]
    margin = timedelta(seconds=sources.CHANGE_MARGIN_SECONDS)
    rows = Evidence.objects.filter(rollout=rollout)
    assert {row.source for row in rows} == {"router", "collector"}
    for row in rows:
        assert not any(row.start < at + margin and row.end > at for at in changes)


def test_a_new_version_that_fails_keeps_its_traffic_while_the_old_one_is_not_ready(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 600, until="watching")
    scene.behaviour["v2"] = Behaviour(errors=0.9)
    scene.memory.unready.add("a")
    assert scene.run(rollout, 8).state == "watching"
    scene.memory.unready.clear()
    assert scene.run(rollout, 2, until="rolling_back").state == "rolling_back"


def test_counts_that_cannot_be_are_told_and_the_other_gates_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), STANDARD), 20, until="running")
    absorb = judge.absorb

    def refusing(state: State, gate: str, interval: Interval) -> State:
        if gate == "latency" and interval.known is None:
            raise judge.EvidenceError("canary: 5 events of 1 requests")
        return absorb(state, gate, interval)

    monkeypatch.setattr(judge, "absorb", refusing)
    told = scene.run(rollout, 25)
    assert (told.state, told.step) == ("running", 0)
    assert told.reason == "evidence refused: canary: 5 events of 1 requests"
    rows = Evidence.objects.filter(rollout=rollout).values_list("gate", flat=True)
    assert set(rows) == {"errors", "confidence"}


def test_18_an_incident_that_both_arms_share_rolls_nothing_back(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 20, until="running")
    for does in scene.behaviour.values():
        does.errors = 0.4
    going_on = scene.run(rollout, 40)
    assert going_on.state in ("running", "promoting", "watching")
    assert going_on.weight_percent >= 5


def test_a_worker_whose_lease_ran_out_does_not_free_the_next_one_s(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    taken = scene.now + 3 * leases.LEASE
    take = look.take

    def slow(*args: Any) -> Any:
        Rollout.objects.filter(pk=rollout.pk).update(leased_until=taken)
        return take(*args)

    monkeypatch.setattr(look, "take", slow)
    tick.tick(rollout.pk, scene.now)
    assert scene.get(rollout).leased_until == taken


class Deadly(list[tuple[str, ...]]):
    """The calls that a fleet gets; in one of six the worker is killed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def append(self, call: tuple[str, ...]) -> None:
        super().append(call)
        if self.rng.random() < 1 / 6:
            raise KeyboardInterrupt


@pytest.mark.parametrize("seed", range(4))
def test_32_a_worker_killed_in_a_call_to_the_fleet_is_mended_by_the_next_tick(
    scene: Scene, seed: int
) -> None:
    scene.live()
    quick = {"name": "errors", "settings": {"margin_points": {"1": 20.0}}}
    rollout = scene.start(scene.version("v2"), {**PLAN, "gates": [quick], "patience_seconds": 3600})
    scene.memory.calls = Deadly(seed)
    for _ in range(100):
        try:
            scene.run(rollout, 1)
        except KeyboardInterrupt:
            continue
        if scene.get(rollout).state == "promoted":
            break
    steps = [e.weight_percent for e in RolloutEvent.objects.filter(rollout=rollout)]
    assert steps == [5, 50, 100, 0, 0]
    assert scene.memory.weights["products"] == {"a": 0, "b": 100}
    assert scene.route.cache_epoch == 2
