"""What a stored decision tells people: alerts that open once, say what to do, and close by themselves."""

from __future__ import annotations

import pytest

from controlplane.models import Alert
from rollout import commands
from rollout.models import Rollout
from tests.rollout.scene import Behaviour, Scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


def act(scene: Scene, rollout: Rollout, command: str) -> None:
    commands.act(rollout.pk, command, actor="ann", reason="because", now=scene.now)


def open_alert() -> Alert:
    return Alert.objects.get(resolved_at=None)


def test_a_version_that_cannot_be_loaded_pages_after_patience(scene: Scene) -> None:
    scene.live()
    scene.memory.unready.add("b")
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 60, traffic=False)
    assert not Alert.objects.exists()
    scene.run(rollout, 5, traffic=False)
    assert "products v2 is pending" in open_alert().summary
    assert "waits at weight 0 until the version is ready" in open_alert().summary
    scene.memory.unready.clear()
    scene.run(rollout, 5, until="running")
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_rollback_that_the_fleet_refuses_pages_after_patience_and_is_done_in_the_end(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    act(scene, rollout, "abort")
    scene.memory.refuse = "503 from the gateway"
    assert scene.run(rollout, 70).state == "rolling_back"
    assert open_alert().severity == "error"
    assert "products v2 is rolling_back" in open_alert().summary
    assert "503 from the gateway" in open_alert().summary
    scene.memory.refuse = ""
    assert scene.run(rollout, 5).state == "aborted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_promotion_whose_slot_is_not_ready_is_held_and_the_old_version_stays_stable(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    scene.memory.unready.add("b")
    act(scene, rollout, "promote")
    held = scene.run(rollout, 70, until="held")
    assert held.state == "held"
    assert "is held at 100 %" in open_alert().summary
    assert scene.route.stable.name == "v1"
    scene.memory.unready.clear()
    act(scene, rollout, "promote")
    assert scene.run(rollout, 5, until="watching").state == "watching"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_rollback_by_a_person_pages_nobody(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    act(scene, rollout, "rollback")
    assert scene.run(rollout, 5).state == "rolled_back"
    assert not Alert.objects.exists()


def test_a_later_promotion_closes_the_alert_of_the_rollback(scene: Scene) -> None:
    scene.live()
    scene.run(scene.start(scene.version("v2", Behaviour(errors=1))), 60)
    assert "was rolled back" in open_alert().summary
    better = scene.run(scene.start(scene.version("v3")), 10, until="running")
    act(scene, better, "promote")
    assert scene.run(better, 30).state == "promoted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_hold_pages_once(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    scene.memory.refuse = "503"
    scene.run(rollout, 80)
    assert open_alert().count == 1


def test_the_observed_weight_follows_the_roles_when_they_swap(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 10, until="running")
    act(scene, rollout, "promote")
    scene.run(rollout, 5, until="watching")
    assert (scene.route.stable.name, scene.route.observed_weight_percent) == ("v2", 0)
    act(scene, rollout, "rollback")
    assert (scene.route.stable.name, scene.route.observed_weight_percent) == ("v1", 100)
    scene.run(rollout, 5)
    assert scene.route.observed_weight_percent == 0
