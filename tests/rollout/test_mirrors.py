"""Shadow traffic through a real Envoy: the canary sees copies, users never see it, and no arm counts them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from rollout.drivers.base import DriverError, RouteSpec
from tests.rollout.gateway import Gateway, Served, eventually
from tests.rollout.model_server import ModelServer, two_servers

pytestmark = pytest.mark.fleet
Servers = dict[str, ModelServer]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with two_servers() as servers:
        yield servers


def mirrored(gateway: Gateway, servers: Servers, weight: float, mirror: float) -> Served:
    """A route of its own with so much traffic on the canary (slot b), and so much of stable's copied to it."""
    served = gateway.serve(servers, weight)
    mirror_now(served, mirror)
    return served


def mirror_now(served: Served, percent: float) -> None:
    served.driver.set_mirror(served.route, percent)
    eventually(lambda: served.driver.observed_mirror(served.route) == pytest.approx(percent))


def purposes(server: ModelServer, served: Served) -> Counter[str]:
    return Counter(headers["x-davy-purpose"] for headers in list(server.headers[served.model]))


def shadows(server: ModelServer, served: Served) -> int:
    return purposes(server, served)["shadow"]


def test_29_every_request_is_copied_to_the_canary_and_users_get_stable_s_answers(
    gateway: Gateway, servers: Servers
) -> None:
    served = mirrored(gateway, servers, 0, 100)
    assert served.users(200) == {(200, "a"): 200}
    eventually(lambda: shadows(servers["b"], served) == 200)
    assert purposes(servers["a"], served) == {"live": 200}
    assert purposes(servers["b"], served) == {"shadow": 200}


def test_a_share_of_the_requests_is_copied(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 10)
    served.users(2000)
    eventually(lambda: gateway.stat(f"cluster.{served.model}/shadow/b.upstream_rq_active") == 0)
    assert shadows(servers["b"], served) == pytest.approx(200, abs=60)  # four and a half standard deviations


def test_a_copy_has_the_request_s_id_host_and_time_of_receipt(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    served.users(20, {"x-davy-key": "ann", "host": "shop.example"})
    eventually(lambda: shadows(servers["b"], served) == 20)
    kept = ("x-request-id", "x-davy-start", "x-davy-key", "host")
    seen = {
        name: sorted(tuple(headers[key] for key in kept) for headers in servers[name].headers[served.model])
        for name in ("a", "b")
    }
    assert seen["a"] == seen["b"]
    assert len(set(seen["a"])) == 20
    assert {headers["host"] for headers in servers["b"].headers[served.model]} == {"shop.example"}


def test_copies_count_for_no_arm_even_when_they_fail(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    servers["b"].answers[served.model] = lambda _: 500
    assert served.users(100) == {(200, "a"): 100}
    eventually(lambda: shadows(servers["b"], served) == 100)
    assert served.arms() == {"canary": (0, 0), "stable": (100, 0)}


def test_a_dead_shadow_harms_nobody(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    servers["b"].stop()
    assert served.users(200) == {(200, "a"): 200}
    assert served.arms() == {"canary": (0, 0), "stable": (200, 0)}


def test_a_hanging_shadow_harms_nobody_and_holds_little_of_envoy(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    servers["b"].answers[served.model] = lambda _: "hang"
    began = time.monotonic()
    assert served.users(300) == {(200, "a"): 300}
    assert time.monotonic() - began < 5  # the route's timeout, for which each copy hangs
    active = gateway.stat(f"cluster.{served.model}/shadow/b.upstream_rq_active")
    assert 0 < active <= 64
    assert served.arms() == {"canary": (0, 0), "stable": (300, 0)}


def test_pinned_requests_are_not_copied(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    served.users(10, {"x-davy-pin": "stable"})
    served.users(10, {"x-davy-pin": "canary"})
    served.users(1)
    eventually(lambda: shadows(servers["b"], served) == 1)
    assert purposes(servers["b"], served) == {"pinned": 10, "shadow": 1}


def test_the_canary_s_own_requests_are_not_copied_to_it(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 50, 100)
    answers = served.users(200)
    live = answers[200, "b"]
    assert live + answers[200, "a"] == 200
    eventually(lambda: shadows(servers["b"], served) == 200 - live)
    assert purposes(servers["b"], served) == {"live": live, "shadow": 200 - live}


@pytest.mark.parametrize("weight", [0, 100])
def test_a_client_can_neither_mirror_nor_redirect_a_mirror(
    gateway: Gateway, servers: Servers, weight: float
) -> None:
    served = mirrored(gateway, servers, weight, 100)
    forged = {"x-davy-mirror": f"{served.model}/canary/b-then-a", "x-davy-purpose": "shadow"}
    served.users(20, forged)
    wanted = {"live": 20} if weight else {"shadow": 20}
    eventually(lambda: purposes(servers["b"], served) == wanted)
    assert served.arms()["canary"] == (20 if weight else 0, 0)


def test_the_mirror_stays_when_the_weight_changes_and_the_weight_when_the_mirror_does(
    gateway: Gateway, servers: Servers
) -> None:
    served = mirrored(gateway, servers, 5, 20)
    served.split(25)
    assert served.driver.observed_mirror(served.route) == pytest.approx(20)
    mirror_now(served, 0)
    assert served.driver.observed_weight(served.route) == pytest.approx(25)


def test_the_mirror_ends_when_the_roles_swap(gateway: Gateway, servers: Servers) -> None:
    """Else the old version would go on to be asked in vain."""
    served = mirrored(gateway, servers, 100, 20)
    swapped = RouteSpec(served.model, "b")
    assert served.driver.observed_mirror(swapped) == 0
    served.driver.set_weight(swapped, 0)
    eventually(lambda: served.driver.observed_weight(swapped) == 0)
    assert served.driver.observed_mirror(swapped) == 0
    assert served.driver.observed_mirror(served.route) == 0


def test_a_mirror_of_roles_that_the_route_has_not_is_refused(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 0)
    with pytest.raises(DriverError, match="not yet the roles"):
        served.driver.set_mirror(RouteSpec(served.model, "b"), 5)


def test_a_large_image_is_copied_whole(gateway: Gateway, servers: Servers) -> None:
    served = mirrored(gateway, servers, 0, 100)
    body = json.dumps({"id": "r1", "image": "x" * 600_000})
    connection = HTTPConnection("127.0.0.1", gateway.gateway_port, timeout=30)
    connection.request("POST", f"/v2/models/{served.model}/infer", body)
    assert connection.getresponse().status == 200
    connection.close()
    eventually(lambda: shadows(servers["b"], served) == 1)
    seen = servers["b"].headers[served.model][0]
    assert seen.get("content-length", seen.get("transfer-encoding")) in {str(len(body)), "chunked"}
