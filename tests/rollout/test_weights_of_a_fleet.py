"""Weights that a fleet's router cannot apply are refused when they are submitted, not at their step."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.models import Fleet
from controlplane.problems import Problem
from rollout import commands, waves
from rollout.dry_run import dry_run
from rollout.models import Rollout
from tests.rollout.scene import PLAN, Scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


FRACTION = {**PLAN, "steps": [{"weight_percent": 5}, {"weight_percent": 12.5}]}


def kserve_fleet() -> Fleet:
    where = {"in_cluster": True, "namespace": "shop"}
    config = {**where, "service": "{model}", "storage_uri": "s3://models/{model}/{digest}"}
    return Fleet.objects.create(name="kserve", driver="kserve", config=config)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [(FRACTION, "/plan/steps/1/weight_percent"), ({"holdback_percent": 0.5}, "/plan/holdback_percent")],
)
def test_12_a_weight_that_the_fleet_s_router_cannot_apply_is_refused_at_its_field(
    scene: Scene, changes: dict[str, Any], pointer: str
) -> None:
    chosen = commands.read_plan({**PLAN, **changes})
    fleet = kserve_fleet()
    for submit in (
        lambda: commands.start(scene.version("v1"), fleet, chosen, actor="ann", now=scene.now),
        lambda: waves.start(
            scene.version("v2"), [[scene.fleet], [fleet]], chosen, actor="ann", now=scene.now
        ),
        lambda: dry_run(scene.version("v3"), fleet, chosen, scene.now),
    ):
        with pytest.raises(Problem, match="KServe takes whole percents") as refused:
            submit()
        assert (refused.value.status, refused.value.errors[0]["pointer"]) == (422, pointer)
    assert not Rollout.objects.exists()


def test_whole_percents_are_what_kserve_takes(scene: Scene) -> None:
    chosen = commands.read_plan(PLAN)
    made = commands.start(scene.version("v1"), kserve_fleet(), chosen, actor="ann", now=scene.now)
    assert made[0].state == "pending"
