"""A dry run says what would be done, to the slot and the weight, and how long it takes; it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from controlplane import problems
from controlplane.models import AuditEntry, Fleet, Route
from rollout import commands, dry_run
from rollout.models import Evidence, Rollout, RolloutEvent
from tests.rollout.api.test_rollouts import asked, client, post
from tests.rollout.scene import PLAN, RATE, Scene

pytestmark = pytest.mark.django_db
STANDARD = {**PLAN, "gates": [{"name": n} for n in ("errors", "latency", "confidence")]}


@pytest.fixture
def scene() -> Scene:
    return Scene("local")


def would(scene: Scene, name: str, plan: Any = PLAN) -> dict[str, Any]:
    version = scene.model.versions.get(name=name)
    return dry_run.dry_run(version, scene.fleet, commands.read_plan(plan), scene.now)


def watched(scene: Scene) -> Rollout:
    """v2 was promoted over v1 a moment ago, after some seconds at 5 %; v1 is kept warm."""
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    scene.run(rollout, 8)
    commands.act(rollout.pk, "promote", actor="ann", reason="because", now=scene.now)
    ended = scene.run(rollout, 30)
    assert ended.state == "promoted", ended.reason
    return ended


def test_13_it_changes_nothing(scene: Scene) -> None:
    watched(scene)
    scene.version("v3")

    def facts() -> list[Any]:
        counts = [kind.objects.count() for kind in (Rollout, RolloutEvent, Evidence, AuditEntry, Fleet)]
        return [counts, list(Route.objects.values()), len(scene.memory.calls)]

    before = facts()
    answer = post(client("deploy"), "/rollouts", **asked(scene, version="v3", dry_run=True))
    assert answer.status_code == 200
    assert facts() == before


def test_13_it_says_which_slot_loads_what_what_gives_way_and_every_weight(scene: Scene) -> None:
    watched(scene)
    scene.version("v3")
    said = would(scene, "v3")
    assert (said["stable"], said["would"]["act"]) == ("v2", "start")
    assert said["change"] == {
        "slot": "a",
        "stable_slot": "b",
        "loads": "v3",
        "replaces": None,
        "ends_keep_warm": "v1",
        "mirrors_percent": None,
        "weights": [{"b": 95, "a": 5}, {"b": 50, "a": 50}, {"b": 0, "a": 100}],
        "stable_slot_after": "a",
        "keeps_warm": "v2",
        "keep_warm_seconds": 3600,
    }


def test_what_it_says_is_what_then_happens(scene: Scene) -> None:
    watched(scene)
    version = scene.version("v3")
    said = would(scene, "v3")
    scene.memory.calls.clear()
    assert scene.run(scene.start(version), 900).state == "promoted"
    loads = {call[2:] for call in scene.memory.calls if call[0] == "prepare"}
    assert loads == {("v3", said["change"]["slot"])}
    asked_weights = [float(call[2]) for call in scene.memory.calls if call[0] == "set_weight"]
    expected = [split[said["change"]["slot"]] for split in said["change"]["weights"]]
    in_order = [w for i, w in enumerate(asked_weights) if i == 0 or w != asked_weights[i - 1]]
    assert in_order[: len(expected)] == expected


def test_13_it_foretells_requests_and_seconds_for_every_gate_and_step(scene: Scene) -> None:
    watched(scene)
    scene.version("v3")
    said = would(scene, "v3", STANDARD)
    assert [step["weight_percent"] for step in said["steps"]] == [5, 50]
    for step in said["steps"]:
        assert [gate["name"] for gate in step["gates"]] == ["errors", "latency", "confidence"]
        for gate in step["gates"]:
            assert gate["requests"] > 0
            at_rate = gate["requests"] / (
                said["traffic"]["requests_per_second"] * step["weight_percent"] / 100
            )
            assert gate["seconds"] == pytest.approx(at_rate)
        longest = max(gate["seconds"] for gate in step["gates"])
        assert step["seconds"] == max(step["dwell_seconds"], longest)
        assert step["detects"]["requests"] > 0
    assert said["seconds"] == sum(step["seconds"] for step in said["steps"])


def test_the_request_rate_is_the_route_s_present_one(scene: Scene) -> None:
    watched(scene)
    scene.version("v3")
    assert would(scene, "v3")["traffic"]["requests_per_second"] == pytest.approx(RATE, rel=0.1)


def test_errors_are_foretold_from_the_router_s_view_of_the_present_stable(scene: Scene) -> None:
    ended = watched(scene)
    scene.version("v3")
    traffic = would(scene, "v3")["traffic"]
    rows = Evidence.objects.filter(rollout=ended, gate="errors")
    assert traffic["stable_by_router"]["requests"] == sum(row.arms["canary"]["n"] for row in rows)
    assert f"rollout {ended.pk}" in traffic["known_from"]


def test_without_telemetry_requests_are_unknown_and_the_reason_is_said(scene: Scene) -> None:
    scene.collectors = False
    scene.live()
    scene.version("v2")
    said = would(scene, "v2", STANDARD)
    for gate in said["steps"][0]["gates"]:
        assert (gate["requests"], gate["seconds"]) == (None, None)
        assert gate["reason"]
    assert said["seconds"] is None
    assert "nothing" in said["traffic"]["known_from"]


def test_the_first_version_goes_live_without_analysis(scene: Scene) -> None:
    scene.version("v1")
    said = would(scene, "v1")
    assert (said["without_analysis"], said["steps"], said["seconds"]) == (True, [], 0)
    assert said["change"]["weights"] == [{"a": 100, "b": 0}]
    assert "first version" in said["would"]["detail"]


def test_the_same_version_again_would_return_its_rollout(scene: Scene) -> None:
    scene.live()
    running = scene.run(scene.start(scene.version("v2")), 10, until="running")
    said = would(scene, "v2")
    assert (said["would"]["act"], said["would"]["rollout"], said["change"]) == ("return", running.pk, None)


def test_another_version_would_supersede_the_one_under_way(scene: Scene) -> None:
    scene.live()
    running = scene.run(scene.start(scene.version("v2")), 10, until="running")
    scene.version("v3")
    said = would(scene, "v3")
    assert (said["would"]["act"], said["would"]["rollout"]) == ("supersede", running.pk)
    assert (said["change"]["slot"], said["change"]["replaces"]) == ("b", "v2")


def test_the_stable_version_would_roll_the_canary_back(scene: Scene) -> None:
    scene.live()
    scene.run(scene.start(scene.version("v2")), 10, until="running")
    assert would(scene, "v1")["would"]["act"] == "roll_back"


def test_a_version_within_the_rollback_window_skips_steps_and_analysis(scene: Scene) -> None:
    watched(scene)
    said = would(scene, "v1", {**PLAN, "rollback_window_seconds": 3600})
    assert (said["without_analysis"], said["steps"]) == (True, [])
    assert said["change"]["weights"] == [{"b": 0, "a": 100}]


def test_what_a_start_would_refuse_is_refused(scene: Scene) -> None:
    version = scene.version("v1")
    version.retired_at = timezone.now()
    version.save()
    with pytest.raises(problems.Problem) as refused:
        would(scene, "v1")
    assert (refused.value.status, refused.value.code) == (409, "retired")
    body = asked(scene, dry_run=True, plan={**PLAN, "gates": [{"name": "colour"}]})
    assert post(client("deploy"), "/rollouts", **body).json()["errors"][0]["pointer"] == "/plan/gates/0/name"


def test_a_version_without_what_its_gates_need_is_refused_as_at_the_start(scene: Scene) -> None:
    scene.live()
    version = scene.version("v2")
    plan = {**PLAN, "gates": [{"name": "errors"}, {"name": "embedding_shift"}]}
    refusals = []
    for ask in (lambda: would(scene, "v2", plan), lambda: scene.start(version, plan)):
        with pytest.raises(problems.Problem) as refused:
            ask()
        refusals.append(refused.value)
    assert refusals[0] == refusals[1]


def test_shadow_holdback_and_holds_are_told(scene: Scene) -> None:
    watched(scene)
    scene.version("v3")
    said = would(scene, "v3", {**PLAN, "shadow": {"percent": 10}, "holdback_percent": 2})
    assert said["change"]["mirrors_percent"] == 10
    assert said["change"]["weights"][-2:] == [{"b": 2, "a": 98}, {"b": 0, "a": 100}]
    assert said["holds"] == []
