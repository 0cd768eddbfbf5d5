"""Real Envoys that ask Davy over HTTP: weights, refusals, restarts, wrong tokens, and Davy being away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone

from controlplane.models import Alert, Fleet
from demo import fleet_venv, places
from rollout.drivers.base import Bundle, CountsRequests, DriverError, RouteSpec
from rollout.drivers.envoy.driver import DistantEnvoyDriver, EnvoyDriver, driver
from rollout.models import EnvoyNode, EnvoyResource
from tests.rollout import distant
from tests.rollout.distant import DistantEnvoy
from tests.rollout.gateway import Served, eventually
from tests.rollout.model_server import ModelServer, two_servers

pytestmark = [pytest.mark.fleet, pytest.mark.django_db(transaction=True)]
Servers = dict[str, ModelServer]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with two_servers() as servers:
        yield servers


@pytest.fixture
def binary() -> Path:
    found = fleet_venv.envoy_binary(places.here())
    if not found.exists():
        pytest.skip("no .venv-fleet: run `make test`")
    return found


@pytest.fixture
def fleet(transactional_db: None, servers: Servers) -> Fleet:
    """A fleet whose Envoys can only ask."""
    slots = {name: {"url": server.url} for name, server in servers.items()}
    return Fleet.objects.create(name="shop", driver="envoy", config={"discovery": "rest", "slots": slots})


@pytest.fixture
def web(transactional_db: None) -> Iterator[int]:
    with distant.web() as port:
        yield port


@pytest.fixture
def edge(binary: Path, tmp_path: Path, web: int, fleet: Fleet) -> Iterator[DistantEnvoy]:
    """A running Envoy of the fleet."""
    envoy = distant.envoy(binary, tmp_path, web, fleet)
    envoy.start()
    try:
        envoy.ready()
        yield envoy
    finally:
        envoy.stop()


def by_reports(fleet: Fleet) -> DistantEnvoyDriver:
    found = driver(fleet.config, fleet.name)
    assert isinstance(found, DistantEnvoyDriver)
    return found


ROUTE = RouteSpec("shoes", "a")


def applied(fleet: Fleet, percent: float) -> bool:
    return by_reports(fleet).observed_weight(ROUTE) == pytest.approx(percent)


def seen_from(edge: DistantEnvoy, fleet: Fleet) -> Served:
    """The route as this Envoy's admin interface shows it."""
    config = fleet.config | {"admin_urls": [edge.admin_url]}
    return Served(edge, EnvoyDriver(config, fleet.name), ROUTE.model)


def serve(fleet: Fleet, edge: DistantEnvoy, percent: float) -> Served:
    """Move the weight and wait until the fleet's Envoys say that they have it."""
    by_reports(fleet).set_weight(ROUTE, percent)
    eventually(lambda: applied(fleet, percent))
    served = seen_from(edge, fleet)
    eventually(served.known_everywhere)
    return served


def test_weights_change_and_are_confirmed_by_what_the_envoy_reports(
    fleet: Fleet, edge: DistantEnvoy, servers: Servers
) -> None:
    served = serve(fleet, edge, 0)
    assert served.users(20) == {(200, "a"): 20}
    serve(fleet, edge, 100)
    assert served.users(20) == {(200, "b"): 20}
    assert served.driver.observed_weight(ROUTE) == 100  # its admin interface says the same


def test_a_mirror_is_told_like_a_weight(fleet: Fleet, edge: DistantEnvoy, servers: Servers) -> None:
    served = serve(fleet, edge, 0)
    by_reports(fleet).set_mirror(ROUTE, 100)
    eventually(lambda: by_reports(fleet).observed_mirror(ROUTE) == 100)
    assert served.users(20) == {(200, "a"): 20}
    eventually(lambda: len(servers["b"].headers["shoes"]) >= 20)


def test_the_weight_is_unknown_until_every_envoy_has_it(
    fleet: Fleet, edge: DistantEnvoy, binary: Path, tmp_path: Path, web: int
) -> None:
    serve(fleet, edge, 5)
    EnvoyNode.objects.create(
        fleet=fleet, kind="routes", node_id="edge-9", version="older", seen_at=timezone.now()
    )
    assert by_reports(fleet).observed_weight(ROUTE) is None
    EnvoyNode.objects.filter(node_id="edge-9").update(seen_at=timezone.now() - timezone.timedelta(seconds=61))
    assert applied(fleet, 5)


def test_an_update_that_envoy_rejects_is_told_and_the_old_routes_stay(
    fleet: Fleet, edge: DistantEnvoy, servers: Servers
) -> None:
    served = serve(fleet, edge, 100)
    good = EnvoyResource.objects.get(fleet=fleet, kind="routes")
    bad = good.body.replace(good.version, "by-hand").replace('"*"', "")
    EnvoyResource.objects.filter(pk=good.pk).update(version="by-hand", body=bad)
    with pytest.raises(
        DriverError, match="1 of 1 Envoys serve older routes than by-hand: edge-1 refused them"
    ):
        eventually(lambda: by_reports(fleet).observed_weight(ROUTE) is not None)
    with pytest.raises(DriverError, match="refused them"):  # the admin interface's way to say so
        served.driver.observed_weight(ROUTE)
    assert edge.stat("http.davy.rds.davy.update_rejected") > 0
    assert served.users(5) == {(200, "b"): 5}
    EnvoyResource.objects.filter(pk=good.pk).update(version=good.version, body=good.body)
    eventually(lambda: not refused(fleet))
    assert applied(fleet, 100)


def refused(fleet: Fleet) -> bool:
    try:
        return by_reports(fleet).observed_weight(ROUTE) is None
    except DriverError:
        return True


def test_a_restarted_envoy_gets_the_last_weights(fleet: Fleet, edge: DistantEnvoy, servers: Servers) -> None:
    served = serve(fleet, edge, 100)
    edge.stop()
    edge.start()
    edge.ready()
    eventually(served.known_everywhere)
    assert served.users(20) == {(200, "b"): 20}


def test_a_new_envoy_of_the_fleet_gets_the_same(
    fleet: Fleet, edge: DistantEnvoy, binary: Path, tmp_path: Path, web: int
) -> None:
    serve(fleet, edge, 100)
    another = distant.envoy(binary, tmp_path, web, fleet, "edge-2")
    another.start()
    try:
        another.ready()
        served = seen_from(another, fleet)
        eventually(served.known_everywhere)
        assert served.users(10) == {(200, "b"): 10}
        eventually(lambda: by_reports(fleet).check()["asking"] == 2)
    finally:
        another.stop()


def test_a_wrong_token_is_refused_with_one_alert_of_the_fleet(
    fleet: Fleet, binary: Path, tmp_path: Path, web: int
) -> None:
    other = Fleet.objects.create(name="other", driver="envoy", config=fleet.config)
    stranger = distant.envoy(binary, tmp_path, web, fleet)
    stranger.token = distant.token_for(other)
    stranger.start()
    try:
        eventually(lambda: stranger.stat("cluster_manager.cds.update_failure") >= 2)
        assert stranger.stat("cluster.davy.upstream_rq_403") >= 2
    finally:
        stranger.stop()
    (alert,) = Alert.objects.all()
    assert (alert.fleet, alert.resolved_at) == (fleet, None)
    assert "token" in alert.summary
    assert not EnvoyNode.objects.exists()


def test_while_davy_is_away_envoy_serves_on(
    fleet: Fleet, binary: Path, tmp_path: Path, servers: Servers
) -> None:
    with distant.web() as port:
        edge = distant.envoy(binary, tmp_path, port, fleet)
        edge.start()
        edge.ready()
        served = serve(fleet, edge, 100)
    try:
        eventually(lambda: edge.stat("http.davy.rds.davy.update_failure") >= 1)
        assert served.users(20) == {(200, "b"): 20}
    finally:
        edge.stop()


def test_a_slot_is_ready_once_every_envoy_knows_its_clusters(
    fleet: Fleet, edge: DistantEnvoy, servers: Servers
) -> None:
    bundle = Bundle("shoes", "v1", "1" * 64, Path)
    assert not by_reports(fleet).ready(bundle, "b")
    by_reports(fleet).prepare(bundle, "b")
    eventually(lambda: by_reports(fleet).ready(bundle, "b"))
    assert edge.stat("cluster.shoes/canary/b-then-a/own.membership_total") == 1


def test_what_cannot_be_counted_is_not_offered(fleet: Fleet) -> None:
    assert not isinstance(by_reports(fleet), CountsRequests)
    assert isinstance(driver(fleet.config | {"admin_urls": ["http://127.0.0.1:1"]}, "shop"), CountsRequests)
    assert by_reports(fleet).check()["asking"] == 0


def test_envoys_that_ask_are_counted_at_their_admin_interfaces_where_davy_reaches_them(
    fleet: Fleet, edge: DistantEnvoy
) -> None:
    served = serve(fleet, edge, 100)
    before = served.counts().canary.assigned
    served.users(30)
    assert served.counts().canary.assigned - before == 30
