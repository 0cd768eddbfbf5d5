"""Idle routes: what was changed behind Davy's back is put right, and slots that nobody needs are released."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.models import Fleet, Model, Route
from rollout import commands, upkeep
from rollout.drivers.memory import MemoryDriver
from rollout.models import Rollout
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
WARM = {**PLAN, "keep_warm_seconds": 100.0}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


def promoted(scene: Scene) -> Rollout:
    """v2 has replaced v1, which is kept warm."""
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), WARM), 10, until="running")
    commands.act(rollout.pk, "promote", actor="ann", reason="because", now=scene.now)
    assert scene.run(rollout, 30).state == "promoted"
    return rollout


def test_a_weight_that_somebody_changed_is_put_back(scene: Scene) -> None:
    scene.live()
    scene.memory.weights["products"] = {"a": 60, "b": 40}
    upkeep.keep(scene.now)
    assert scene.route.observed_weight_percent == 40
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_a_stable_slot_that_lost_its_version_gets_it_again(scene: Scene) -> None:
    scene.live()
    scene.memory.loaded.clear()
    upkeep.keep(scene.now)
    assert scene.memory.loaded["products", "a"].version == "v1"


def test_the_old_version_stays_warm_and_is_released_when_its_time_is_over(scene: Scene) -> None:
    promoted(scene)
    scene.now += timedelta(seconds=80)
    upkeep.keep(scene.now)
    assert scene.memory.loaded["products", "a"].version == "v1"
    scene.now += timedelta(seconds=30)
    upkeep.keep(scene.now)
    assert ("products", "a") not in scene.memory.loaded
    assert (scene.route.previous, scene.route.keep_warm_until) == (None, None)
    assert scene.memory.loaded["products", "b"].version == "v2"


def test_a_version_that_was_rolled_back_leaves_its_slot(scene: Scene) -> None:
    scene.live()
    scene.run(scene.start(scene.version("v2", Behaviour(errors=1))), 60)
    upkeep.keep(scene.now)
    assert ("products", "b") not in scene.memory.loaded
    assert scene.route.canary is None


def test_a_release_that_fails_is_done_the_next_time(scene: Scene) -> None:
    scene.live()
    scene.run(scene.start(scene.version("v2", Behaviour(errors=1))), 60)
    scene.memory.refuse = "away"
    upkeep.keep(scene.now)
    assert scene.route.canary.name == "v2"
    scene.memory.refuse = ""
    upkeep.keep(scene.now)
    assert ("products", "b") not in scene.memory.loaded


def test_a_route_that_a_rollout_moves_is_left_alone(scene: Scene) -> None:
    scene.live()
    scene.run(scene.start(scene.version("v2")), 10, until="running")
    scene.memory.calls.clear()
    upkeep.keep(scene.now)
    assert scene.memory.calls == []


class Meanwhile(list[tuple[str, ...]]):
    """The fleet's calls; the first one of a name lets something else happen just then."""

    def __init__(self, name: str, happens: Any) -> None:
        self.name, self.happens = name, happens

    def append(self, call: tuple[str, ...]) -> None:
        super().append(call)
        if self.happens and call[0] == self.name:
            happens, self.happens = self.happens, None
            happens()


def test_a_rollout_that_starts_meanwhile_keeps_its_slot(scene: Scene) -> None:
    promoted(scene)
    scene.now += timedelta(seconds=1000)
    newer = scene.version("v3")

    def start() -> None:
        scene.run(scene.start(newer), 1)

    scene.memory.calls = Meanwhile("observed_weight", start)
    upkeep.keep(scene.now)
    assert scene.memory.loaded["products", "a"].version == "v3"
    assert scene.route.canary == newer


def test_one_fleet_s_trouble_does_not_stop_the_others(scene: Scene) -> None:
    version = scene.live()
    other = Fleet.objects.create(name="other", driver="memory", config={"name": f"{scene.name}-other"})
    for number in range(2):
        model = Model.objects.create(name=f"model-{number}")
        fleet = other if number else scene.fleet
        Route.objects.create(model=model, fleet=fleet, stable=version)
    scene.memory.refuse = "away"
    upkeep.keep(scene.now)
    assert MemoryDriver(other.config).fleet.weights["model-1"] == {"a": 100, "b": 0}
