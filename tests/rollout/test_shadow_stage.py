"""The stage before the first step: requests are mirrored while it lasts, and never after."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from controlplane.problems import Problem
from rollout import commands, drivers, tick, upkeep
from rollout.drivers.base import RouteSpec
from rollout.drivers.memory import MemoryDriver
from rollout.models import Rollout, RolloutEvent
from tests.rollout.scene import PLAN, Scene

SHADOWED: dict[str, Any] = {**PLAN, "name": "shadowed", "shadow": {"percent": 20, "least_seconds": 5}}


@pytest.fixture
def scene(db: None, request: pytest.FixtureRequest) -> Scene:
    scene = Scene(request.node.name[:60])
    scene.live("v1")
    return scene


def mirrored(scene: Scene) -> float | None:
    driver = MemoryDriver(scene.fleet.config)
    return driver.observed_mirror(RouteSpec("products", scene.route.stable_slot))


def mirroring(scene: Scene) -> Rollout:
    """A rollout in its shadow stage."""
    rollout = scene.start(scene.version("v2"), SHADOWED)
    scene.run(rollout, 3)
    assert (scene.get(rollout).state, scene.get(rollout).weight_percent) == ("running", 0)
    return rollout


def test_the_plan_s_share_is_mirrored_while_no_user_gets_the_canary(scene: Scene) -> None:
    mirroring(scene)
    assert mirrored(scene) == 20
    assert scene.memory.weights["products"]["b"] == 0


def test_mirroring_ends_with_the_first_step(scene: Scene) -> None:
    rollout = mirroring(scene)
    while scene.get(rollout).weight_percent == 0:
        scene.run(rollout, 1, until="running")
    assert mirrored(scene) == 0


def test_where_no_gate_had_to_pass_while_mirroring_none_is_said_to_have_passed(scene: Scene) -> None:
    rollout = mirroring(scene)
    scene.run(rollout, 10)
    told = RolloutEvent.objects.filter(rollout=rollout, weight_percent=5).first()
    assert told is not None
    assert told.reason.startswith("mirrored for ")
    assert "passed" not in told.reason


@pytest.mark.parametrize("command", ["abort", "rollback", "promote"])
def test_a_command_ends_the_mirroring(scene: Scene, command: str) -> None:
    rollout = mirroring(scene)
    commands.act(rollout.pk, command, actor="ann", reason="enough", now=scene.now)
    scene.run(rollout, 1)
    assert mirrored(scene) == 0


def test_a_mirror_that_a_dead_worker_left_is_ended_by_the_upkeep(scene: Scene) -> None:
    driver = drivers.of(scene.fleet)
    assert isinstance(driver, MemoryDriver)
    driver.set_mirror(RouteSpec("products", "a"), 20)
    upkeep.keep(timezone.now())
    assert mirrored(scene) == 0


def test_a_pause_goes_on_mirroring(scene: Scene) -> None:
    rollout = mirroring(scene)
    commands.act(rollout.pk, "pause", actor="ann", reason="lunch", now=scene.now)
    scene.run(rollout, 20)
    assert mirrored(scene) == 20


def test_a_plan_that_mirrors_is_refused_where_the_router_cannot(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind(MemoryDriver):
        set_mirror = None  # type: ignore[assignment]

    monkeypatch.setitem(drivers.DRIVERS, "memory", Blind)
    with pytest.raises(Problem, match="cannot mirror") as refused:
        scene.start(scene.version("v2"), SHADOWED)
    assert refused.value.errors[0]["pointer"] == "/plan/shadow"
    assert not Rollout.objects.filter(version__name="v2").exists()


def test_what_needs_no_mirror_asks_for_none(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"))
    scene.memory.calls.clear()
    scene.run(rollout, 5)
    assert {call[0] for call in scene.memory.calls}.isdisjoint({"set_mirror", "observed_mirror"})


def test_a_tick_that_is_repeated_changes_nothing(scene: Scene) -> None:
    rollout = mirroring(scene)
    scene.memory.calls.clear()
    tick.tick(rollout.pk, scene.now)
    assert "set_mirror" not in {call[0] for call in scene.memory.calls}
