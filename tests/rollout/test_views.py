"""The Rollout pages: what they show, and what a person may do there."""

from __future__ import annotations

import math
import re
from datetime import timedelta

import pytest
from django.test import Client

from controlplane.models import AuditEntry, Role, User
from rollout import views
from rollout.models import Evidence, Rollout, RolloutEvent
from tests.rollout.scene import START, Scene

pytestmark = pytest.mark.django_db
GATES = [{"name": "errors", "weight": 3}, {"name": "latency", "weight": 1}]


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


@pytest.fixture
def canary(scene: Scene) -> Rollout:
    """A rollout of v2 over v1 in its first step."""
    scene.run(scene.start(scene.version("v1")), 10)
    return scene.run(scene.start(scene.version("v2")), 6)


def signed_in(role: str = Role.ENGINEER) -> Client:
    client = Client()
    client.force_login(User.objects.create_user(role, role=role))
    return client


def text(response) -> str:
    """What a person reads: without tags, spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def test_without_rollouts_the_page_says_how_to_start_one() -> None:
    assert "No rollout yet" in text(signed_in().get("/rollouts"))


def test_rollouts_can_be_filtered_by_state(canary: Rollout) -> None:
    client = signed_in()
    assert f"/rollouts/{canary.pk}" in client.get("/rollouts").content.decode()
    assert "No rollout is failed" in text(client.get("/rollouts?state=failed"))


def test_a_rollout_shows_state_reason_weights_and_log(canary: Rollout) -> None:
    page = text(signed_in().get(f"/rollouts/{canary.pk}"))
    assert canary.state.capitalize() in page
    assert canary.reason in page
    assert "unconfirmed" in page or "Observed" in page
    assert "the version is ready" in page


def test_a_rollout_without_evidence_waits_for_traffic(canary: Rollout) -> None:
    Evidence.objects.all().delete()
    Rollout.objects.update(gates=[])
    assert "Waiting for traffic" in text(signed_in().get(f"/rollouts/{canary.pk}"))


def test_every_gate_shows_verdict_numbers_n_and_reason(canary: Rollout) -> None:
    gate = {
        "name": "errors",
        "verdict": "FAIL",
        "value": 1.97,
        "bound": 0.2,
        "n": 1140,
        "reason": "canary 23 of 1,140 requests failed",
        "log_e_fail": 5.2,
        "log_e_pass": -1.0,
        "required": True,
        "dry_run": False,
    }
    Rollout.objects.filter(pk=canary.pk).update(gates=[gate])
    page = text(signed_in().get(f"/rollouts/{canary.pk}"))
    for shown in ("Fail", "1.97", ".2", "1,140", "5.20", "canary 23 of 1,140 requests failed"):
        assert shown in page


def test_an_engineer_pauses_with_a_reason_and_the_audit_keeps_it(canary: Rollout) -> None:
    client = signed_in()
    client.post(f"/rollouts/{canary.pk}/act", {"command": "pause", "reason": "sale starts at noon"})
    canary.refresh_from_db()
    assert canary.state == "paused"
    assert AuditEntry.objects.filter(act="rollout.pause", reason="sale starts at noon").exists()


def test_an_act_without_a_reason_changes_nothing_and_asks_for_it(canary: Rollout) -> None:
    response = signed_in().post(
        f"/rollouts/{canary.pk}/act", {"command": "pause", "reason": " "}, follow=True
    )
    canary.refresh_from_db()
    assert canary.state == "running"
    assert "Say why" in text(response)


def test_an_act_that_makes_no_sense_now_is_refused_in_words(canary: Rollout) -> None:
    Rollout.objects.filter(pk=canary.pk).update(state="promoted")
    response = signed_in().post(
        f"/rollouts/{canary.pk}/act", {"command": "pause", "reason": "x"}, follow=True
    )
    assert "the rollout is over" in text(response)


def test_a_viewer_sees_no_buttons_and_may_not_act(canary: Rollout) -> None:
    client = signed_in(Role.VIEWER)
    page = client.get(f"/rollouts/{canary.pk}")
    assert b'name="command"' not in page.content
    assert client.post(f"/rollouts/{canary.pk}/act", {"command": "pause", "reason": "x"}).status_code == 403


def test_htmx_gets_only_the_live_part(canary: Rollout) -> None:
    part = signed_in().get(f"/rollouts/{canary.pk}", headers={"HX-Request": "true"})
    assert b"<html" not in part.content
    assert b"timeline" in part.content


@pytest.mark.parametrize(
    ("state", "step", "statuses"),
    [
        ("pending", 0, ["ahead", "ahead", "ahead", "ahead"]),
        ("running", 1, ["done", "now", "ahead", "ahead"]),
        ("promoting", 1, ["done", "done", "now", "ahead"]),
        ("watching", 1, ["done", "done", "done", "now"]),
        ("promoted", 1, ["done", "done", "done", "done"]),
        ("rolled_back", 1, ["done", "stopped", "ahead", "ahead"]),
    ],
)
def test_the_timeline_says_what_has_become_of_each_step(state: str, step: int, statuses: list[str]) -> None:
    steps = [{"weight_percent": 5, "dwell_seconds": 30}, {"weight_percent": 50, "dwell_seconds": 30}]
    rollout = Rollout(state=state, step=step, plan={"steps": steps}, stable_id=1)
    assert [stop.status for stop in views.timeline(rollout, [])] == statuses


SHADOWED = {
    "steps": [{"weight_percent": 5, "dwell_seconds": 30}],
    "shadow": {"percent": 20, "least_seconds": 60},
}
MIRRORING = RolloutEvent(state="running", step=0, weight_percent=0, at=START)
AT_5 = RolloutEvent(state="running", step=0, weight_percent=5, at=START + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("state", "weight", "events", "statuses"),
    [
        ("pending", 0, [], ["ahead", "ahead", "ahead", "ahead"]),
        ("running", 0, [MIRRORING], ["now", "ahead", "ahead", "ahead"]),
        ("paused", 0, [MIRRORING], ["now", "ahead", "ahead", "ahead"]),
        ("running", 5, [AT_5, MIRRORING], ["done", "now", "ahead", "ahead"]),
        ("aborted", 0, [MIRRORING], ["stopped", "ahead", "ahead", "ahead"]),
        ("rolled_back", 0, [AT_5, MIRRORING], ["done", "stopped", "ahead", "ahead"]),
    ],
)
def test_mirroring_is_a_stop_before_the_first_step(
    state: str, weight: float, events: list[RolloutEvent], statuses: list[str]
) -> None:
    rollout = Rollout(state=state, step=0, weight_percent=weight, plan=SHADOWED, stable_id=1)
    stops = views.timeline(rollout, events)
    assert [stop.status for stop in stops] == statuses
    assert (stops[0].name, stops[0].reached_at) == ("Mirror", START if events else None)
    assert stops[1].reached_at == (AT_5.at if AT_5 in events else None)


@pytest.mark.parametrize(("stable", "ahead"), [(1, 3), (None, 1)])
@pytest.mark.parametrize("state", ["failed", "aborted"])
def test_what_ended_before_any_traffic_stopped_at_loading(state: str, stable: int | None, ahead: int) -> None:
    plan = {"steps": [{"weight_percent": 5, "dwell_seconds": 30}]}
    rollout = Rollout(state=state, step=0, plan=plan, stable_id=stable)
    stops = views.timeline(rollout, [RolloutEvent(state=state, step=0, weight_percent=0, at=START)])
    assert [stop.status for stop in stops] == ["stopped"] + ["ahead"] * ahead
    assert stops[0].name == "Load"


def test_a_first_version_that_waits_is_not_at_100_percent() -> None:
    rollout = Rollout(state="pending", step=0, plan={"steps": []})
    assert [stop.status for stop in views.timeline(rollout, [])] == ["ahead"]


def test_the_timeline_shows_when_a_step_was_first_reached() -> None:
    rollout = Rollout(
        state="running", step=0, plan={"steps": [{"weight_percent": 5, "dwell_seconds": 30}]}, stable_id=1
    )
    events = [
        RolloutEvent(state="running", step=0, weight_percent=5, at=START + timedelta(seconds=seconds))
        for seconds in (90, 20)
    ]
    assert views.timeline(rollout, events)[0].reached_at == START + timedelta(seconds=20)


def test_the_combined_evidence_weighs_the_gates_as_the_judge_does() -> None:
    points = [("errors", START, {"fail": 2.0, "pass": 0.5}), ("latency", START, {"fail": -1.0, "pass": 0.0})]
    found = views.series(points, GATES)
    assert found["combined"][-1][1] == pytest.approx(
        math.log(0.75 * math.exp(2) + 0.25 * math.exp(-1)), abs=1e-3
    )


def test_a_gate_in_dry_run_is_drawn_but_not_combined() -> None:
    found = views.series([("tried", START, {"fail": 9.0, "pass": 1.0})], [{"name": "tried", "dry_run": True}])
    assert found["gates"][0]["fail"][0][1] == 9.0
    assert found["combined"] == []


def test_a_hold_takes_no_share_of_the_combined_evidence() -> None:
    points = [("errors", START, {"fail": 2.0, "pass": 0.5})]
    hold = {"name": "approval", "weight": 4.0, "kind": "hold"}
    assert views.series(points, [GATES[0], hold]) == views.series(points, [GATES[0]])


def test_the_first_version_of_a_route_has_no_steps_to_show() -> None:
    rollout = Rollout(state="promoted", plan={"steps": [{"weight_percent": 5, "dwell_seconds": 30}]})
    assert [(stop.name, stop.status) for stop in views.timeline(rollout, [])] == [("100 %", "done")]


def test_the_routes_present_weight_is_not_shown_for_a_rollout_of_the_past(
    scene: Scene, canary: Rollout
) -> None:
    first = Rollout.objects.earliest("pk")
    client = signed_in()
    assert "Observed" in text(client.get(f"/rollouts/{canary.pk}"))
    assert "Observed" not in text(client.get(f"/rollouts/{first.pk}"))


def test_evidence_is_drawn_in_order_of_time_whatever_order_it_came_in(canary: Rollout) -> None:
    Evidence.objects.all().delete()
    for i, seconds in enumerate((10, 5)):
        at = START + timedelta(seconds=seconds)
        Evidence.objects.create(
            rollout=canary, gate="errors", source=f"s{i}", start=at, end=at, step=0, weight_percent=5, arms={},
            log_e={"fail": 0.1, "pass": 0.1},
        )  # fmt: skip
    combined = signed_in().get(f"/rollouts/{canary.pk}").context["evidence"]["combined"]
    assert [at for at, _ in combined] == sorted(at for at, _ in combined)
