"""Approval: who is told that it is waited for, and what waits for it though it has no steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.models import Alert, User
from rollout import commands
from rollout.models import Approval, Rollout
from tests.rollout.scene import Scene
from tests.rollout.test_approvals import PATIENCE_SECONDS, approval, page, say, waiting
from tests.rollout.test_asking import plan

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def people() -> None:
    for name, role in (("bob", "approver"), ("cleo", "admin"), ("eve", "engineer")):
        User.objects.create_user(name, role=role)


@pytest.fixture
def empty(request: pytest.FixtureRequest) -> Scene:
    """A fleet that serves nothing yet."""
    return Scene(request.node.name[:60].lower())


@pytest.fixture
def scene(empty: Scene) -> Scene:
    empty.live()
    return empty


# Who is told


def cause(scene: Scene) -> str:
    return f"rollout/approval/products/{scene.name}"


def test_10_people_are_told_once_that_they_are_waited_for_and_by_whom_it_can_be_answered(
    scene: Scene,
) -> None:
    rollout = waiting(scene)
    scene.run(rollout, 20)
    alert = Alert.objects.get(resolved_at=None)
    assert (alert.cause, alert.severity, alert.count) == (cause(scene), "info", 1)
    assert "approval: 0 of 1 approvals for the promotion; may approve: bob, cleo" in alert.summary
    assert f"/rollouts/{rollout.pk}" in alert.summary


def test_nobody_is_told_before_the_other_gates_have_passed(scene: Scene) -> None:
    scene.collectors = False
    rollout = scene.start(scene.version("v2"), plan({"name": "latency"}, approval(before="every step")))
    scene.run(rollout, 30)
    assert not Alert.objects.filter(cause=cause(scene)).exists()


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_an_answer_ends_the_alert(scene: Scene, decision: str) -> None:
    rollout = waiting(scene)
    say(scene, rollout, "bob", decision)
    scene.run(rollout, 2)
    assert Alert.objects.get(cause=cause(scene)).resolved_at == scene.now - timedelta(seconds=1)


@pytest.mark.parametrize("command", ["pause", "abort"])
def test_what_a_person_does_instead_ends_the_alert_at_once(scene: Scene, command: str) -> None:
    rollout = waiting(scene)
    commands.act(rollout.pk, command, actor="eve", reason="later", now=scene.now)
    assert Alert.objects.get(cause=cause(scene)).resolved_at == scene.now


def test_after_a_pause_people_are_told_again(scene: Scene) -> None:
    rollout = waiting(scene)
    for command in ("pause", "resume"):
        commands.act(rollout.pk, command, actor="eve", reason="lunch", now=scene.now)
    scene.run(rollout, 3)
    assert Alert.objects.get(cause=cause(scene), resolved_at=None).count == 1


# What has no steps


def first(scene: Scene, **settings: Any) -> Rollout:
    """A route's first version, under a plan that asks for approval."""
    return scene.start(scene.version("v1"), plan(approval(**settings)))


def test_a_first_version_is_not_judged_but_waits_for_approval(empty: Scene) -> None:
    rollout = first(empty)
    still = empty.run(rollout, 2 * PATIENCE_SECONDS)
    assert (still.state, still.weight_percent, empty.route.stable) == ("pending", 0, None)
    assert "waits at weight 0 for approval: 0 of 1 approvals for the promotion; may approve" in still.reason
    assert [alert.cause for alert in Alert.objects.filter(resolved_at=None)] == [cause(empty)]
    assert 'value="approve"' in page("bob", rollout)
    say(empty, rollout, "bob")
    assert empty.run(rollout, 5).state == "promoted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_no_keeps_a_first_version_at_weight_0(empty: Scene) -> None:
    rollout = first(empty)
    empty.run(rollout, 3)
    say(empty, rollout, "bob", "reject")
    still = empty.run(rollout, 2 * PATIENCE_SECONDS)
    assert (still.state, empty.route.stable) == ("pending", None)
    assert "bob rejected the promotion" in still.reason


def test_a_no_ends_a_first_version_where_the_plan_says_so(empty: Scene) -> None:
    rollout = empty.start(empty.version("v1"), plan({**approval(), "on_fail": "rollback"}))
    empty.run(rollout, 3)
    say(empty, rollout, "bob", "reject")
    ended = empty.run(rollout, 3)
    assert (ended.state, empty.route.stable) == ("rolled_back", None)
    assert "bob rejected the promotion" in ended.reason


def test_a_first_version_waits_only_where_the_plan_asks_before_the_promotion(
    empty: Scene,
) -> None:
    rollout = first(empty, before=[50])
    assert empty.run(rollout, 5).state == "promoted"


def test_06_a_way_back_within_the_window_waits_for_nobody(scene: Scene) -> None:
    asks = {**plan(approval()), "rollback_window_seconds": 3600}
    rollout = scene.start(scene.version("v2"), asks)
    scene.run(rollout, 5, until="running")
    commands.act(rollout.pk, "abort", actor="eve", reason="no", now=scene.now)
    scene.run(rollout, 5)
    second = scene.run(scene.start(scene.version("v3"), plan()), 600)
    assert second.state == "promoted"
    back = scene.start(rollout.stable, asks)
    assert scene.run(back, 60).state == "promoted"
    assert not Approval.objects.exists()
