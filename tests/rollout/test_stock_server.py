"""Servers that Davy loads nothing into and that have no collector: the router's view is enough, or it says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from controlplane.models import Fleet, Model, ModelVersion
from rollout import commands, tick
from rollout.drivers.base import RouteSpec
from rollout.drivers.envoy.driver import EnvoyDriver
from rollout.evidence.sources import ROUTER_LATENCY
from rollout.models import ACTIVE, Evidence, Rollout
from tests.rollout.gateway import Gateway, Served, eventually
from tests.rollout.model_server import ModelServer, two_servers

pytestmark = [pytest.mark.fleet, pytest.mark.django_db]
QUICK: dict[str, Any] = {
    "name": "quick",
    "steps": [{"weight_percent": 50, "dwell_seconds": 1}],
    "gates": [{"name": "errors", "settings": {"margin_points": {"50": 10.0}}}],
    "patience_seconds": 60,
    "watch_seconds": 0,
}


class Stock:
    """A route on two stock servers, with v1 live, and users who never stop while a rollout is ticked."""

    def __init__(self, gateway: Gateway, servers: dict[str, ModelServer], name: str) -> None:
        self.servers = servers
        self.model = Model.objects.create(name=name)
        config = gateway.config(servers, assignment="request")  # errors count in full
        self.fleet = Fleet.objects.create(name=name, driver="envoy", config=config)
        self.served = Served(gateway, EnvoyDriver(self.fleet.config), name)
        eventually(lambda: gateway.stat("server.uptime") >= 2)  # when it began is known to a second
        assert self.run("v1").state == "promoted"
        eventually(lambda: self.served.users(1) == {(200, "a"): 1})

    def start(self, version: str, plan: dict[str, Any]) -> Rollout:
        made = ModelVersion.objects.create(
            model=self.model, name=version, artifact_uri="mem:", digest=version[-1] * 64
        )
        chosen = commands.read_plan(plan)
        return commands.start(made, self.fleet, chosen, actor="ann", now=timezone.now())[0]

    def run(self, version: str, plan: dict[str, Any] = QUICK, until: str = "") -> Rollout:
        """Tick in real time until the rollout is over or in the state."""
        rollout = self.start(version, plan)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            tick.tick(rollout.pk, timezone.now())
            found = commands.find(rollout.pk)
            if found.state not in ACTIVE or found.state == until:
                break
            if found.stable_id is not None:
                assert {status for status, _ in self.served.users(60)} == {200}
        return found


@pytest.fixture
def stock(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Stock]:
    with two_servers() as servers:
        yield Stock(gateway, servers, request.node.name.replace("_", "-")[:40])


def test_a_version_is_promoted_by_the_router_s_evidence_alone(stock: Stock) -> None:
    ended = stock.run("v2")
    assert ended.state == "promoted", ended.reason
    assert (ended.route.stable_id, ended.route.stable_slot) == (ended.version_id, "b")
    assert stock.served.driver.observed_weight(RouteSpec(stock.model.name, "b")) == 0
    eventually(lambda: stock.served.users(20) == {(200, "b"): 20})
    assert {row.source for row in Evidence.objects.filter(rollout=ended)} == {"router"}


def test_a_version_that_fails_is_rolled_back_and_users_notice_nothing(stock: Stock) -> None:
    stock.servers["b"].answers[stock.model.name] = lambda count: 500 if count % 3 == 0 else 200
    ended = stock.run("v2")
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("errors failed: canary ")
    assert ended.route.stable.name == "v1"
    assert stock.served.users(20) == {(200, "a"): 20}


def test_a_slow_version_is_rolled_back_by_the_latencies_that_envoy_measured(stock: Stock) -> None:
    def slow(_: int) -> int:
        time.sleep(0.06)
        return 200

    stock.servers["b"].answers[stock.model.name] = slow
    by_router = {"name": "latency", "settings": {"source": "router"}}
    ended = stock.run("v2", {**QUICK, "gates": [*QUICK["gates"], by_router]})
    assert ended.state == "rolled_back", ended.reason
    assert ended.reason.startswith("latency failed: canary ")
    sources = set(Evidence.objects.filter(rollout=ended).values_list("gate", "source"))
    assert sources == {("errors", "router"), ("latency", ROUTER_LATENCY)}


def test_a_plan_that_requires_confidence_is_held_and_says_so(stock: Stock) -> None:
    plan = {**QUICK, "gates": [*QUICK["gates"], {"name": "confidence"}], "patience_seconds": 3}
    held = stock.run("v2", plan, until="held")
    assert (held.state, held.weight_percent) == ("held", 50)
    assert held.reason.startswith("no evidence for confidence since ")
    shown = {gate["name"]: gate for gate in held.gates}
    assert shown["errors"]["verdict"] == "PASS"
    assert shown["confidence"]["verdict"] == "INCONCLUSIVE"
