"""Rollouts with holds: who is asked when, and what a no does."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from controlplane import alerts
from controlplane.models import Alert, Severity
from controlplane.problems import Problem
from rollout import commands
from rollout.models import Rollout
from tests.controlplane.servers import Receiver, receiver
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
ERRORS = {"name": "errors", "settings": {"margin_points": {"1": 20.0}}}  # passes within seconds
DRIFT = "drift/embeddings/products/v1"


def plan(*holds: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**PLAN, "gates": [ERRORS, *holds], **more}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    scene = Scene(request.node.name[:60].lower())
    scene.live()
    return scene


@pytest.fixture
def server(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as state:
        says(state, "pass")
        yield state


def says(server: Receiver, verdict: str) -> None:
    body = json.dumps({"verdict": verdict, "reason": f"the calendar says {verdict}"}).encode()
    server.answer = lambda _asked: (200, body, {})


def drift(scene: Scene) -> None:
    alerts.open(
        DRIFT, severity=Severity.WARNING, summary="embeddings moved", now=scene.now, model=scene.model
    )


def verdict(scene: Scene, rollout: Rollout, name: str) -> dict[str, Any]:
    (found,) = [gate for gate in scene.get(rollout).gates if gate["name"] == name]
    return found


# A drift alert: behaviour 19


def test_19_an_open_drift_alert_holds_the_promotion_until_it_is_resolved(scene: Scene) -> None:
    drift(scene)
    rollout = scene.start(scene.version("v2"), plan({"name": "open_alert"}))
    held = scene.run(rollout, 120, until="held")
    assert (held.state, held.weight_percent) == ("held", 50)
    assert "open_alert says no: drift alert" in held.reason
    assert "embeddings moved" in Alert.objects.get(resolved_at=None, cause__startswith="rollout/held").summary
    assert scene.run(rollout, 70).state == "held"
    alerts.resolve(DRIFT, resolution="stable again", now=scene.now)
    assert scene.run(rollout, 60).state == "promoted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_the_steps_before_do_not_wait_for_it(scene: Scene) -> None:
    drift(scene)
    rollout = scene.start(scene.version("v2"), plan({"name": "open_alert"}))
    scene.run(rollout, 6, until="running")
    scene.run(rollout, 3)
    assert verdict(scene, rollout, "open_alert")["reason"] == "not asked at this step"


# A webhook


def test_a_webhook_s_no_holds_and_its_yes_lets_go_on(scene: Scene, server: Receiver) -> None:
    says(server, "fail")
    rollout = scene.start(scene.version("v2"), plan({"name": "webhook", "settings": {"url": server.url}}))
    held = scene.run(rollout, 60, until="held")
    assert (held.step, held.reason) == (0, "webhook says no: the webhook says fail: the calendar says fail")
    says(server, "pass")
    assert scene.run(rollout, 120).state == "promoted"


def test_an_answer_is_kept_for_every_seconds_and_asked_again_at_a_new_step(
    scene: Scene, server: Receiver
) -> None:
    hold = {"name": "webhook", "settings": {"url": server.url, "every_seconds": 3600}}
    rollout = scene.start(scene.version("v2"), plan(hold))
    assert scene.run(rollout, 200).state == "promoted"
    steps = [json.loads(asked.body)["data"]["next_weight_percent"] for asked in server.asked]
    assert steps == [50, 100]


def test_an_old_answer_is_asked_again(scene: Scene, server: Receiver) -> None:
    says(server, "wait")
    hold = {"name": "webhook", "settings": {"url": server.url, "every_seconds": 5}}
    rollout = scene.run(scene.start(scene.version("v2"), plan(hold)), 10, until="running")
    before = len(server.asked)
    scene.run(rollout, 20)
    assert len(server.asked) - before == 4


def test_a_webhook_that_does_not_answer_is_stuck_after_patience(scene: Scene, server: Receiver) -> None:
    server.answer = lambda _asked: (503, b"", {})
    rollout = scene.start(scene.version("v2"), plan({"name": "webhook", "settings": {"url": server.url}}))
    held = scene.run(rollout, 120, until="held")
    assert "no verdict for webhook since" in held.reason
    assert held.weight_percent == 5


def test_a_no_rolls_back_where_the_plan_says_so(scene: Scene, server: Receiver) -> None:
    says(server, "fail")
    hold = {"name": "webhook", "settings": {"url": server.url}, "on_fail": "rollback"}
    ended = scene.run(scene.start(scene.version("v2"), plan(hold)), 60)
    assert (ended.state, ended.reason) == (
        "rolled_back",
        "webhook failed: the webhook says fail: the calendar says fail",
    )


def test_a_hold_in_dry_run_is_shown_and_changes_nothing(scene: Scene, server: Receiver) -> None:
    says(server, "fail")
    hold = {"name": "webhook", "settings": {"url": server.url}, "dry_run": True, "on_fail": "rollback"}
    rollout = scene.start(scene.version("v2"), plan(hold))
    assert scene.run(rollout, 120).state == "promoted"
    assert verdict(scene, rollout, "webhook")["verdict"] == "FAIL"


def test_one_that_is_not_required_holds_by_its_no_but_not_by_its_silence(
    scene: Scene, server: Receiver
) -> None:
    server.answer = lambda _asked: (503, b"", {})
    hold = {"name": "webhook", "settings": {"url": server.url}, "required": False}
    assert scene.run(scene.start(scene.version("v2"), plan(hold)), 120).state == "promoted"
    says(server, "fail")
    assert scene.run(scene.start(scene.version("v3"), plan(hold)), 60, until="held").state == "held"


def test_the_judge_s_fail_comes_first_and_asks_nobody(scene: Scene, server: Receiver) -> None:
    hold = {"name": "webhook", "settings": {"url": server.url, "every_seconds": 1}}
    rollout = scene.start(scene.version("v2", Behaviour(errors=1.0)), plan(hold))
    ended = scene.run(rollout, 60)
    assert ended.reason.startswith("errors failed")
    asked_until = max(json.loads(asked.body)["timestamp"] for asked in server.asked)
    failed_at = rollout.events.get(state="rolling_back").at
    assert asked_until < failed_at.isoformat()


def test_a_paused_rollout_is_not_held_by_a_no_but_rolled_back_where_the_plan_says_so(
    scene: Scene, server: Receiver
) -> None:
    hold = {"name": "webhook", "settings": {"url": server.url, "every_seconds": 1}, "on_fail": "rollback"}
    rollout = scene.run(scene.start(scene.version("v2"), plan(hold)), 10, until="running")
    commands.act(rollout.pk, "pause", actor="ann", reason="lunch", now=scene.now)
    says(server, "fail")
    assert scene.run(rollout, 10).state == "rolled_back"


def test_a_clock_that_goes_back_asks_again(scene: Scene, server: Receiver) -> None:
    says(server, "wait")
    hold = {"name": "webhook", "settings": {"url": server.url, "every_seconds": 3600}}
    rollout = scene.run(scene.start(scene.version("v2"), plan(hold)), 10, until="running")
    scene.run(rollout, 2)
    before = len(server.asked)
    scene.now -= timedelta(seconds=30)
    scene.run(rollout, 1)
    assert len(server.asked) == before + 1


# Prometheus


def test_prometheus_holds_while_its_number_is_beyond_the_bound(scene: Scene, settings: Any) -> None:
    values = {"now": "7"}

    def answer(_asked: object) -> tuple[int, bytes, dict[str, str]]:
        result = [{"metric": {}, "value": [1, values["now"]]}]
        body = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return 200, json.dumps(body).encode(), {}

    with receiver() as prometheus:
        prometheus.answer = answer
        settings.PROMETHEUS_URLS = [prometheus.url]
        hold = {"name": "prometheus", "settings": {"query": "queue_depth", "at_most": 5, "every_seconds": 2}}
        rollout = scene.start(scene.version("v2"), plan(hold))
        held = scene.run(rollout, 60, until="held")
        assert held.reason == "prometheus says no: 7 is above 5"
        shown = verdict(scene, rollout, "prometheus")
        assert (shown["value"], shown["bound"], shown["n"]) == (7, 5, 0)
        values["now"] = "3"
        assert scene.run(rollout, 120).state == "promoted"


# What a plan may say


@pytest.mark.parametrize(
    ("pointer", "hold", "more"),
    [
        ("/plan/gates/1/name", {"name": "oracle"}, {}),
        ("/plan/gates/1/settings/colour", {"name": "open_alert", "settings": {"colour": 1}}, {}),
        ("/plan/gates/1/settings/before/0", {"name": "open_alert", "settings": {"before": [20]}}, {}),
        ("/plan/gates/1/settings/before/1", {"name": "open_alert", "settings": {"before": [50, 5]}}, {}),
        ("/plan/gates/1/on_fail", {"name": "open_alert", "on_fail": "shout"}, {}),
    ],
)
def test_a_hold_that_cannot_be_is_refused_at_its_field(
    pointer: str, hold: dict[str, Any], more: dict[str, Any]
) -> None:
    with pytest.raises(Problem) as refused:
        commands.read_plan(plan(hold, **more))
    assert [error["pointer"] for error in refused.value.errors] == [pointer]


def test_before_the_first_step_a_hold_is_asked_only_where_requests_are_mirrored_first() -> None:
    hold = {"name": "open_alert", "settings": {"before": [5, 50, 100]}}
    assert commands.read_plan(plan(hold, shadow={"percent": 10})).holds
    with pytest.raises(Problem):
        commands.read_plan(plan(hold))
