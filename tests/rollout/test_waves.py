"""Waves over fleets: each starts when the one before is through its watch, and an abort takes all of them back."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import Alert, Fleet, Model, ModelVersion, Route, User
from controlplane.problems import Problem
from rollout import commands, tick, waves
from rollout.drivers.memory import MemoryDriver
from rollout.models import ACTIVE, Rollout, Waves
from tests.rollout.scene import PLAN

pytestmark = pytest.mark.django_db
_numbers = itertools.count()


class World:
    """Three fleets that serve v1, and a v2; time moves when a test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
        self.names = [f"wave-{next(_numbers)}" for _ in range(3)]
        self.model = Model.objects.create(name="products")
        self.fleets = [self.fleet(name) for name in self.names]
        self.first, self.second = self.version("v1"), self.version("v2")
        for fleet in self.fleets:
            commands.start(self.first, fleet, commands.read_plan(PLAN), actor="ann", now=self.now)
        self.run(10)

    def fleet(self, name: str) -> Fleet:
        MemoryDriver.fleets.pop(name, None)
        return Fleet.objects.create(name=name, driver="memory", config={"name": name})

    def version(self, name: str) -> ModelVersion:
        digest = name.encode().hex().ljust(64, "0")
        return ModelVersion.objects.create(
            model=self.model, name=name, artifact_uri=f"mem:{name}", digest=digest
        )

    def start(self, *given: list[str]) -> Waves:
        found = waves.read(given)
        return waves.start(self.second, found, commands.read_plan(PLAN), actor="ann", now=self.now)

    def run(self, seconds: int) -> None:
        """Every timer, once a second."""
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            for pk in Rollout.objects.filter(state__in=ACTIVE).values_list("pk", flat=True):
                tick.tick(pk, self.now)
            waves.keep(self.now)

    def promote(self, fleet: str) -> None:
        """Somebody promotes the fleet's rollout."""
        rollout = Rollout.objects.get(route__fleet__name=fleet, version=self.second, state__in=ACTIVE)
        commands.act(rollout.pk, "promote", actor="ann", reason="good", now=self.now)

    def stable(self) -> list[str]:
        routes = Route.objects.filter(model=self.model).select_related("stable", "fleet")
        by_fleet = {route.fleet.name: route.stable.name for route in routes if route.stable}
        return [by_fleet[name] for name in self.names]

    def started(self) -> list[str]:
        """The fleets on which a rollout of v2 was started, in order."""
        rollouts = Rollout.objects.filter(version=self.second).order_by("pk")
        return list(rollouts.values_list("route__fleet__name", flat=True))


@pytest.fixture
def world() -> World:
    return World()


def test_39_a_wave_starts_only_when_the_one_before_it_has_passed_its_watch(world: World) -> None:
    one, two, three = world.names
    made = world.start([one], [two, three])
    world.run(3)
    assert world.started() == [one]
    world.promote(one)
    world.run(5)
    assert Rollout.objects.get(version=world.second).state == "watching"
    assert world.started() == [one]
    world.run(PLAN["watch_seconds"] + 2)
    assert world.started() == [one, two, three]
    for name in (two, three):
        world.promote(name)
    world.run(PLAN["watch_seconds"] + 10)
    assert waves.find(made.pk).state == "promoted"
    assert world.stable() == ["v2", "v2", "v2"]


def test_39_an_abort_stops_all_waves_and_rolls_back_those_that_moved(world: World) -> None:
    one, two, three = world.names
    made = world.start([one], [two], [three])
    world.run(3)
    world.promote(one)
    world.run(PLAN["watch_seconds"] + 10)
    assert world.started() == [one, two]
    for _ in range(2):  # twice is the same as once
        waves.abort(made.pk, actor="ann", reason="wrong labels", now=world.now)
    world.run(20)
    assert waves.find(made.pk).state == "aborted"
    assert world.stable() == ["v1", "v1", "v1"]
    assert world.started() == [one, two]


def test_39_a_fleet_whose_rollout_ends_otherwise_stops_the_waves(world: World) -> None:
    one, two, three = world.names
    made = world.start([one, two], [three])
    world.run(3)
    world.promote(one)
    bad = Rollout.objects.get(route__fleet__name=two, version=world.second)
    commands.act(bad.pk, "rollback", actor="ann", reason="slow", now=world.now)
    world.run(30)
    found = waves.find(made.pk)
    assert found.state == "rolled_back"
    assert two in found.reason
    assert world.stable() == ["v1", "v1", "v1"]
    assert three not in world.started()


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ([], "/fleets"),
        ([[]], "/fleets"),
        ([["no-such-fleet"]], "/fleets/0/0"),
        ([["{0}"], ["{0}"]], "/fleets"),
    ],
)
def test_waves_that_cannot_be_are_refused_at_their_field(
    world: World, given: list[list[str]], pointer: str
) -> None:
    with pytest.raises(Problem) as refused:
        waves.read([[name.format(*world.names) for name in wave] for wave in given])
    assert refused.value.errors[0]["pointer"] == pointer
    assert not Waves.objects.exists()


def test_a_wave_whose_start_fails_is_not_half_started(world: World) -> None:
    ModelVersion.objects.filter(pk=world.second.pk).update(retired_at=world.now)
    world.second.refresh_from_db()
    with pytest.raises(Problem, match="retired"):
        world.start(world.names)
    assert not Waves.objects.exists()
    assert world.started() == []


def test_a_wave_that_cannot_start_is_said_and_stops_no_other_waves(world: World) -> None:
    one, two, three = world.names
    stuck, other = world.start([one], [two]), world.start([three])
    world.run(5)
    for fleet in (one, three):
        world.promote(fleet)
    ModelVersion.objects.filter(pk=world.second.pk).update(retired_at=world.now)
    world.run(40)
    stuck.refresh_from_db()
    other.refresh_from_db()
    assert (stuck.state, other.state) == (Waves.State.RUNNING, Waves.State.PROMOTED)
    assert "after wave 1 Davy cannot go on" in stuck.reason
    assert "retired" in Alert.objects.get(cause=f"rollout/waves/{stuck.pk}", resolved_at=None).summary
    waves.abort(stuck.pk, actor="ann", reason="no", now=world.now)
    assert not Alert.objects.filter(cause=f"rollout/waves/{stuck.pk}", resolved_at=None).exists()


@pytest.fixture
def api() -> Client:
    user = User.objects.create(username="ann")
    _, text = access.create_token(user, "test", ("deploy", "read"))
    return Client(headers={"Authorization": f"Bearer {text}"})


def test_rest_starts_waves_shows_them_and_aborts_them(world: World, api: Client) -> None:
    body = {"model": "products", "version": "v2", "fleets": [[world.names[0]], world.names[1:]], "plan": PLAN}
    made = api.post("/api/v1/rollouts", body, content_type="application/json")
    assert made.status_code == 201, made.content
    where = f"/api/v1/waves/{made.json()['id']}"
    assert [row["fleet"] for row in api.get(where).json()["rollouts"]] == world.names[:1]
    ended = api.post(f"{where}/abort", {"reason": "no"}, content_type="application/json")
    assert (ended.status_code, ended.json()["state"]) == (202, "aborted")
    assert api.get("/api/v1/waves").json()["items"][0]["state"] == "aborted"


def test_a_dry_run_of_waves_says_what_each_fleet_would_do_and_starts_nothing(
    world: World, api: Client
) -> None:
    body = {"model": "products", "version": "v2", "fleets": [[world.names[0]], world.names[1:]], "plan": PLAN}
    answer = api.post("/api/v1/rollouts", {**body, "dry_run": True}, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert [len(wave) for wave in answer.json()["rollouts"]] == [1, 2]
    assert not Waves.objects.exists()


def test_fleet_and_fleets_together_are_refused(world: World, api: Client) -> None:
    body = {"model": "products", "version": "v2", "fleet": world.names[0], "fleets": [[world.names[1]]]}
    answer = api.post("/api/v1/rollouts", body, content_type="application/json")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/fleet"
