"""What can never be loaded: the rollout ends failed at once, and the route is free for the next one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import Alert, Fleet, Role, User
from rollout import commands, phases, tick, upkeep, waves
from rollout.models import Rollout, RolloutEvent
from rollout.phases import TERMINAL, Phase
from tests.rollout.scene import START, Scene
from tests.rollout.test_phases import PLAN, at, seen

pytestmark = pytest.mark.django_db
NEVER = "the API server does not know that namespace"
CAUSE = "rollout/failed/products/"


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


def refuse(scene: Scene, *, for_good: bool) -> None:
    scene.memory.refuse, scene.memory.for_good = NEVER, for_good


def failed(scene: Scene) -> Rollout:
    """A rollout of v2 over v1 that its fleet refuses for good."""
    scene.live()
    rollout = scene.start(scene.version("v2"))
    refuse(scene, for_good=True)
    return scene.run(rollout, 1)


def test_what_is_refused_for_good_ends_failed_in_the_same_tick(scene: Scene) -> None:
    ended = failed(scene)
    assert ended.state == "failed"
    assert ended.ended_at == scene.now
    assert ended.reason == (
        f"products v2 cannot be loaded on {scene.name}: {NEVER}; it got no traffic, the rollout is over; "
        "correct that and start it again"
    )
    (line,) = RolloutEvent.objects.filter(rollout=ended)
    assert (line.state, line.weight_percent, line.reason) == ("failed", 0, ended.reason)
    assert (scene.route.stable.name, scene.route.weight_percent) == ("v1", 0)


def test_a_failure_is_told_once_as_a_warning_since_no_request_suffers(scene: Scene) -> None:
    ended = failed(scene)
    scene.run(ended, 5)
    alert = Alert.objects.get(resolved_at=None)
    assert (alert.cause, alert.severity, alert.count) == (CAUSE + scene.name, "warning", 1)
    assert f"{ended.reason}; products v1 keeps all traffic; see " in alert.summary


def test_the_slot_of_what_failed_is_released(scene: Scene) -> None:
    failed(scene)
    scene.memory.refuse = ""
    upkeep.keep(scene.now)
    assert ("products", "b") not in scene.memory.loaded
    assert scene.route.canary is None
    assert scene.memory.loaded["products", "a"].version == "v1"


@pytest.mark.parametrize("again", ["start", "retry"])
def test_what_failed_can_be_submitted_again_and_its_alert_ends(scene: Scene, again: str) -> None:
    ended = failed(scene)
    scene.memory.refuse = ""
    if again == "start":
        second = scene.start(ended.version)
    else:
        second = commands.retry(ended.pk, actor="ann", reason="the namespace is there", now=scene.now)
    assert second.pk != ended.pk
    assert scene.run(second, 600).state == "promoted"
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_refusal_that_may_pass_is_waited_for_and_pages_after_patience(scene: Scene) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    refuse(scene, for_good=False)
    waiting = scene.run(rollout, 70)
    assert waiting.state == "pending"
    assert NEVER in waiting.reason
    assert Alert.objects.get(resolved_at=None).cause == f"rollout/overdue/products/{scene.name}"
    scene.memory.refuse = ""
    assert scene.run(rollout, 600).state == "promoted"


def test_21_a_weight_that_is_refused_for_good_keeps_the_step_too_and_is_held_after_patience(
    scene: Scene,
) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"))
    scene.run(rollout, 30, until="running")
    refuse(scene, for_good=True)
    assert scene.run(rollout, 30, until="failed").state == "running"
    held = scene.run(rollout, 60, until="held")
    assert (held.state, held.step, held.weight_percent) == ("held", 0, 5)
    assert NEVER in held.reason
    scene.memory.refuse = ""
    assert scene.run(rollout, 600).state == "promoted"


def test_a_version_that_waits_for_another_fails_only_when_its_turn_has_come(scene: Scene) -> None:
    scene.live()
    first = scene.start(scene.version("v2"))
    scene.run(first, 30, until="running")
    second = scene.start(scene.version("v3"))
    refuse(scene, for_good=True)
    assert scene.run(second, 5).state == "pending"
    scene.memory.refuse = ""
    assert scene.run(first, 5).state == "superseded"
    refuse(scene, for_good=True)
    assert scene.run(second, 1).state == "failed"


def test_waves_stop_where_a_version_cannot_be_loaded(scene: Scene) -> None:
    version = scene.version("v1")
    made = waves.start(version, [[scene.fleet]], commands.read_plan("fast"), actor="ann", now=scene.now)
    refuse(scene, for_good=True)
    rollout = Rollout.objects.get(waves=made)
    scene.run(rollout, 1)
    waves.keep(scene.now)
    made.refresh_from_db()
    assert (made.state, NEVER in made.reason) == ("rolled_back", True)


def test_rest_and_the_page_show_that_it_failed_and_why(scene: Scene) -> None:
    ended = failed(scene)
    user = User.objects.create_user("eve", role=Role.ENGINEER)
    _, token = access.create_token(user, "test", ("read",))
    shown = Client(headers={"Authorization": f"Bearer {token}"}).get(f"/api/v1/rollouts/{ended.pk}").json()
    assert (shown["state"], shown["weight_percent"], shown["reason"]) == ("failed", 0, ended.reason)
    browser = Client()
    browser.force_login(user)
    page = browser.get(f"/rollouts/{ended.pk}").content.decode()
    assert "Failed" in page
    assert NEVER in page
    assert "Waiting for traffic" not in page
    assert 'name="command"' not in page


# As the state machine decides it


def test_what_is_refused_for_good_before_any_traffic_fails_and_says_what_to_do() -> None:
    refused = seen(observed=None, refused="products v2 cannot be loaded on edge: no such folder")
    ended = phases.decide(PLAN, at(Phase.PENDING, 0), replace(refused, canary_ready=False))
    assert (ended.phase, ended.weight_percent, ended.entered_at) == (Phase.FAILED, 0, refused.now)
    assert ended.reason.startswith("products v2 cannot be loaded on edge: no such folder; ")
    assert ended.reason.endswith("correct that and start it again")


def test_who_waits_for_another_rollout_is_not_failed_by_a_refusal() -> None:
    refused = seen(observed=None, refused="no such folder", blocked_by="rollout 7 (rolling_back)")
    assert phases.decide(PLAN, at(Phase.PENDING, 0), refused).phase is Phase.PENDING


@pytest.mark.parametrize("phase", sorted(set(Phase) - TERMINAL - {Phase.PENDING}))
def test_a_refusal_never_ends_what_has_traffic(phase: Phase) -> None:
    refused = seen(5, observed=50, trouble="403", refused="never")
    assert phases.decide(PLAN, at(phase), refused).phase not in TERMINAL


# Artifacts, as an Envoy fleet's model server would load them


def envoy_fleet(folder: Path) -> Fleet:
    """Nobody listens there: what is loaded is fetched before anybody is asked."""
    (folder / "envoy").mkdir()
    nobody = "http://127.0.0.1:9"
    slots = {name: {"url": nobody, "repository": str(folder / name)} for name in "ab"}
    config = {"directory": str(folder / "envoy"), "admin_urls": [nobody], "slots": slots}
    return Fleet.objects.create(name="edge", driver="envoy", config=config)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("{root}/bundle", "registered is"),
        ("{root}/gone", "there is no folder"),
        ("/etc", "is not under DAVY_ARTIFACT_ROOTS"),
        ("ftp://x/y", "artifacts are not read from"),
    ],
)
def test_an_artifact_that_is_gone_or_not_what_was_registered_fails(
    scene: Scene, settings: Any, tmp_path: Path, uri: str, why: str
) -> None:
    settings.VAR, settings.ARTIFACT_ROOTS = tmp_path / "var", (tmp_path,)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.onnx").write_text("changed since")
    version = scene.version("v1")
    version.artifact_uri = uri.format(root=tmp_path)
    version.save()
    chosen = commands.read_plan("fast")
    rollout, _ = commands.start(version, envoy_fleet(tmp_path), chosen, actor="ann", now=START)
    tick.tick(rollout.pk, START)
    ended = commands.find(rollout.pk)
    assert ended.state == "failed"
    assert why in ended.reason
    assert "no version gets traffic" in Alert.objects.get().summary
    assert not list((tmp_path / "a").glob("*"))
