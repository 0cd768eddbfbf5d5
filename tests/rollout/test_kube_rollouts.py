"""Claims about whole rollouts on Kubernetes: ticks and upkeep against a real API server with played controllers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane import fleets
from controlplane.models import Model, ModelVersion, Route
from rollout import commands, drivers, tick, upkeep
from rollout.drivers.base import Driver
from rollout.look import bundle, spec
from rollout.models import Rollout
from tests.contracts.kube_rigs import FLEETS
from tests.rollout.kube import Kube
from tests.rollout.kube_controllers import Controllers
from tests.rollout.scene import PLAN

pytestmark = [pytest.mark.system, pytest.mark.django_db]


@dataclass
class Cluster:
    """A model on a stored fleet, and time that moves only when a test says so."""

    model: Model
    driver_name: str
    controllers: Controllers
    now: datetime = datetime(2026, 11, 20, 3, tzinfo=UTC)

    @property
    def route(self) -> Route:
        return Route.objects.select_related("fleet", "model", "stable__model", "canary").get()

    @property
    def driver(self) -> Driver:
        return drivers.of(self.route.fleet)

    def start(self, name: str) -> Rollout:
        digest = name[1:] * 64
        version = ModelVersion.objects.create(
            model=self.model, name=name, artifact_uri=f"mem:{name}", digest=digest
        )
        plan = commands.read_plan(PLAN)
        return commands.start(version, fleets.get_fleet("cluster"), plan, actor="pipeline", now=self.now)[0]

    def act(self, rollout: Rollout, command: str) -> None:
        commands.act(rollout.pk, command, actor="ann", reason="because", now=self.now)

    def run(self, rollout: Rollout, until: str, seconds: int = 40) -> Rollout:
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            tick.tick(rollout.pk, self.now)
            self.controllers.round()
            found = commands.find(rollout.pk)
            if found.state == until:
                return found
        raise AssertionError(f"{found.state} instead of {until}: {found.reason}; {found.trouble}")

    def keep(self, rounds: int = 4) -> None:
        """Some rounds of upkeep, long enough for what is kept warm to get cold."""
        for _ in range(rounds):
            self.now += timedelta(days=1)
            upkeep.keep(self.now)
            self.controllers.round()

    def serves(self, name: str) -> bool:
        """Whether the version is stable, is ready, and has all traffic."""
        route = self.route
        assert route.stable is not None
        ready = self.driver.ready(bundle(route.stable), route.stable_slot)
        return route.stable.name == name and ready and self.driver.observed_weight(spec(route)) == 0


@pytest.fixture(params=sorted(FLEETS))
def cluster(request: pytest.FixtureRequest, kube: Kube) -> Cluster:
    space = kube.namespace()
    config: dict[str, Any] = FLEETS[request.param](space, "products")
    secrets = drivers.secret_fields(request.param)
    fleets.save("cluster", request.param, config, secrets, actor="ann")
    return Cluster(Model.objects.create(name="products"), request.param, Controllers(space))


def test_the_first_version_goes_live(cluster: Cluster) -> None:
    cluster.run(cluster.start("v1"), "promoted")
    assert cluster.serves("v1")


def test_a_canary_gets_its_share_and_an_abort_takes_it_away_and_its_slot(cluster: Cluster) -> None:
    cluster.run(cluster.start("v1"), "promoted")
    canary = cluster.start("v2")
    cluster.run(canary, "running")
    cluster.run(canary, "running", 2)
    assert cluster.driver.observed_weight(spec(cluster.route)) == 5
    cluster.act(canary, "abort")
    cluster.run(canary, "aborted")
    cluster.keep()
    assert cluster.serves("v1")
    assert cluster.route.canary is None
    assert not cluster.driver.ready(bundle(canary.version), "b")


def test_versions_follow_each_other_through_the_two_slots(cluster: Cluster) -> None:
    cluster.run(cluster.start("v1"), "promoted")
    for name in ("v2", "v3", "v4"):
        rollout = cluster.start(name)
        cluster.run(rollout, "running")
        cluster.act(rollout, "promote")
        cluster.run(rollout, "promoted")
        assert cluster.serves(name)
    assert cluster.route.stable_slot == "b"


def test_the_next_version_may_come_right_after_a_rejected_one(cluster: Cluster) -> None:
    cluster.run(cluster.start("v1"), "promoted")
    rejected = cluster.start("v2")
    cluster.run(rejected, "running")
    cluster.act(rejected, "abort")
    cluster.run(rejected, "aborted")
    cluster.keep(1)
    rollout = cluster.start("v3")
    cluster.run(rollout, "running")
    cluster.act(rollout, "promote")
    cluster.run(rollout, "promoted")
    cluster.keep()
    assert cluster.serves("v3")
