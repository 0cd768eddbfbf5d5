"""What users and counters see through a real Envoy: failures, fallback, pins, sticky users, restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollout.drivers.base import Bundle, DriverError, RouteSpec
from rollout.drivers.envoy.driver import EnvoyDriver
from rollout.evidence import sources as evidence
from tests.rollout.gateway import Gateway, Served, eventually
from tests.rollout.model_server import ModelServer, two_servers

pytestmark = pytest.mark.fleet
Servers = dict[str, ModelServer]


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Stock servers of both slots: a is stable's, b is the canary's."""
    with two_servers() as servers:
        yield servers


def answer(server: ModelServer, served: Served, how: object) -> None:
    server.answers[served.model] = how if callable(how) else lambda _: how


# First attempts


def test_users_of_a_canary_that_fails_one_in_ten_get_answers_and_each_failure_counts_once(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 50)
    answer(servers["b"], served, lambda count: 500 if count % 10 == 0 else 200)
    assert {status for status, _ in served.users(400)} == {200}
    first_attempts, failures = len(servers["b"].headers[served.model]), servers["b"].bad[served.model]
    assert failures == first_attempts // 10 > 0
    assert served.arms() == {"canary": (first_attempts, failures), "stable": (400 - first_attempts, 0)}


def test_a_canary_that_fails_every_request_costs_users_nothing_and_all_of_them_count(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 50)
    answer(servers["b"], served, 500)
    assert served.users(300) == {(200, "a"): 300}
    (assigned, failed), (others, well) = served.arms()["canary"], served.arms()["stable"]
    assert assigned == failed > 0
    assert (assigned + others, well) == (300, 0)


@pytest.mark.parametrize("how", ["close", 503])
def test_dropped_connections_and_refusals_count_as_failures(
    gateway: Gateway, servers: Servers, how: str | int
) -> None:
    served = gateway.serve(servers, 100)
    answer(servers["b"], served, lambda count: how if count % 10 == 0 else 200)
    assert {status for status, _ in served.users(200)} == {200}
    assert served.arms()["canary"] == (200, servers["b"].bad[served.model])


def test_26_a_closed_port_counts_every_request_and_users_get_the_fallback(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 50)
    servers["b"].stop()
    assert served.users(300) == {(200, "a"): 300}
    assigned, failed = served.arms()["canary"]
    assert assigned == failed > 0


def test_a_hanging_server_is_given_up_in_time_and_its_users_get_the_fallback(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 100, timeout_seconds=0.4)
    answer(servers["b"], served, "hang")
    assert served.users(40) == {(200, "a"): 40}
    assert served.arms()["canary"] == (40, 40)


def test_what_goes_straight_to_the_fallback_counts_as_failed(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    servers["b"].unready = True
    healthy = f"cluster.{served.model}/canary/b-then-a/own.membership_healthy"
    eventually(lambda: gateway.stat(healthy) == 0)
    assert served.users(100) == {(200, "a"): 100}
    assert servers["b"].headers[served.model] == []
    assert served.arms()["canary"] == (100, 100)


def test_a_server_that_is_well_again_serves_its_arm_again(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    servers["b"].stop()
    assert served.users(20) == {(200, "a"): 20}
    servers["b"].start()
    eventually(lambda: served.users(5) == {(200, "b"): 5})


def test_a_stable_server_that_hung_serves_at_once_when_it_is_well_even_with_an_empty_fallback(
    gateway: Gateway, servers: Servers
) -> None:
    """Were stable ejected, its users would get 503 for seconds."""
    served = gateway.serve(servers, 0, timeout_seconds=0.4)
    servers["b"].unready = True
    eventually(lambda: gateway.stat(f"cluster.{served.model}/b.membership_healthy") == 0)
    answer(servers["a"], served, lambda count: "hang" if count <= 20 else 200)
    while servers["a"].bad[served.model] < 20:
        served.users(8)
    assert served.users(20) == {(200, "a"): 20}


def test_five_bad_answers_in_a_row_do_not_eject_a_canary(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    answer(servers["b"], served, lambda count: 500 if count <= 10 else 200)
    served.users(100)
    assert served.arms()["canary"] == (100, 10)


def test_when_both_servers_fail_users_see_it_and_both_arms_count_it(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 50)
    for server in servers.values():
        answer(server, served, 500)
    assert {status for status, _ in served.users(100)} <= {500, 503}
    (canary, canary_failed), (stable, stable_failed) = served.arms()["canary"], served.arms()["stable"]
    assert (canary_failed, stable_failed) == (canary, stable)
    assert canary + stable == 100


def test_without_a_fallback_users_see_the_canary_s_failures(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100, fallback=False)
    servers["b"].stop()
    assert {status for status, _ in served.users(20)} == {503}
    assert served.arms()["canary"] == (20, 20)


# Pins and headers


def test_28_pinned_requests_reach_their_slot_and_are_no_evidence(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 0)
    assert served.users(20, {"x-davy-pin": "canary"}) == {(200, "b"): 20}
    assert served.users(20, {"x-davy-pin": "stable"}) == {(200, "a"): 20}
    answer(servers["b"], served, 500)
    assert served.users(5, {"x-davy-pin": "canary"}) == {
        (500, ""): 5
    }  # no fallback: a smoke test wants the truth
    assert served.arms() == {"canary": (0, 0), "stable": (0, 0)}


def test_pins_follow_the_roles(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    served.driver.set_weight(RouteSpec(served.model, "b"), 0)
    eventually(lambda: served.users(1, {"x-davy-pin": "stable"}) == {(200, "b"): 1})
    assert served.users(5) == {(200, "b"): 5}


def test_the_server_hears_why_a_request_came_and_when_and_a_client_cannot_forge_it(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 100)
    forged = {"x-davy-purpose": "pinned", "x-davy-start": "1.0", "x-davy-key": "ann"}
    served.users(1, forged)
    served.users(1, {**forged, "x-davy-pin": "canary", "x-davy-purpose": "live"})
    live, pinned = servers["b"].headers[served.model]
    assert (live["x-davy-purpose"], pinned["x-davy-purpose"]) == ("live", "pinned")
    assert live["x-davy-key"] == "ann"
    assert float(live["x-davy-start"]) == pytest.approx(served.counts().at, abs=30)


def test_a_request_counts_the_same_behind_another_proxy(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    served.users(10, {"x-forwarded-for": "10.1.2.3"})
    served.users(10, {"x-envoy-internal": "true"})
    assert served.arms()["canary"] == (20, 0)


def test_27_raising_the_weight_throws_no_canary_user_back(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 5)
    users = [f"user-{i}" for i in range(400)]
    canary: set[str] = set()
    for percent in (5, 25, 50, 100):
        served.split(percent)
        seen = served.keyed(users)
        assert served.keyed(users[:100]) == {user: seen[user] for user in users[:100]}
        now = {user for user, server in seen.items() if server == "b"}
        assert canary <= now
        assert len(now) == pytest.approx(len(users) * percent / 100, abs=30)
        canary = now


@pytest.mark.parametrize("model", ["shoes.v2", "a-b", "0_x"])
def test_names_with_dots_and_dashes_keep_their_own_counts(
    gateway: Gateway, servers: Servers, model: str
) -> None:
    driver = EnvoyDriver(gateway.config(servers))
    other = Served(gateway, driver, model.replace(".", "x").replace("-", "x").replace("_", "-"))
    served = Served(gateway, driver, model)
    for each in (served, other):
        each.split(100)
    served.users(10)
    assert served.arms()["canary"] == (10, 0)
    assert other.arms()["canary"] == (0, 0)


# Files


def test_workers_that_move_different_routes_at_once_lose_nothing(gateway: Gateway, servers: Servers) -> None:
    moved = [gateway.serve(servers, 0) for _ in range(3)]

    def move(served: Served) -> None:
        driver = EnvoyDriver(gateway.config(servers))
        for percent in (1, 60, 2, 42):
            driver.set_weight(served.route, percent)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(move, moved * 2))
    for served in moved:
        eventually(lambda served=served: served.driver.observed_weight(served.route) == 42)


def test_writing_the_same_weight_again_leaves_the_file_alone(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 5)
    file = gateway.folder / "routes.json"
    before = file.stat().st_ino
    served.driver.set_weight(served.route, 5)
    assert file.stat().st_ino == before


def replace(file: Path, content: bytes) -> None:
    fresh = file.with_name(".by-hand")
    fresh.write_bytes(content)
    fresh.rename(file)


def test_an_update_that_envoy_rejects_is_told_and_the_old_routes_stay(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 100)
    file = gateway.folder / "routes.json"
    good = file.read_bytes()
    bad = json.loads(good)
    bad["version_info"] = "by-hand"
    bad["resources"][0]["virtual_hosts"][0]["domains"] = []
    replace(file, json.dumps(bad).encode())
    try:
        with pytest.raises(DriverError, match="refused them"):
            eventually(lambda: served.driver.observed_weight(served.route) is None)
        assert served.users(5) == {(200, "b"): 5}
    finally:
        replace(file, good)
    eventually(lambda: not rejected(served))
    assert served.driver.observed_weight(served.route) == 100


def rejected(served: Served) -> bool:
    try:
        served.driver.observed_weight(served.route)
    except DriverError:
        return True
    return False


def test_a_file_that_davy_did_not_write_is_not_overwritten(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 5)
    file = gateway.folder / "routes.json"
    good = file.read_bytes()
    for content in (b"not json", b"[]", b'{"resources": [{}]}'):
        replace(file, content)
        try:
            with pytest.raises(DriverError, match="not what Davy wrote"):
                served.driver.set_weight(served.route, 50)
            assert file.read_bytes() == content
        finally:
            replace(file, good)
    assert served.users(10, {"x-davy-pin": "stable"}) == {(200, "a"): 10}
    eventually(lambda: not rejected(served))


# Restarts


def test_a_restarted_envoy_serves_the_last_weights_and_its_counters_begin_again(
    gateway: Gateway, servers: Servers
) -> None:
    served = gateway.serve(servers, 100)
    served.users(50)
    sources, _ = evidence.from_router({}, served.counts())
    gateway.stop()
    for call in (served.driver.observed_weight, served.driver.router_counts):
        with pytest.raises(DriverError):
            call(served.route)
    gateway.start()
    assert served.driver.observed_weight(served.route) == 100
    eventually(lambda: served.users(1) == {(200, "b"): 1})
    eventually(lambda: gateway.stat("server.uptime") >= 3)  # when it began is known to a second
    served.users(60)
    sources, dropped = evidence.from_router(sources, served.counts())
    assert dropped is None
    served.users(7)
    _, reading = evidence.from_router(sources, served.counts())
    assert reading is not None
    assert (reading.interval.canary.n, reading.interval.canary.errors) == (7, 0)


def test_a_slot_is_ready_once_envoy_counts_it_as_healthy_and_its_first_requests_are_its_own(
    gateway: Gateway, servers: Servers
) -> None:
    """Else the first requests after a change of weight would go to the fallback, and count as failed."""
    driver = EnvoyDriver(gateway.config(servers))
    for number in range(5):
        served = Served(gateway, driver, f"fresh-{number}")
        version = Bundle(served.model, "v1", "1" * 64, Path)
        for slot in ("a", "b"):
            driver.prepare(version, slot)
        eventually(lambda v=version: all(driver.ready(v, slot) for slot in ("a", "b")))
        driver.set_weight(served.route, 100)
        eventually(lambda s=served: driver.observed_weight(s.route) == 100)
        assert served.users(20) == {(200, "b"): 20}
        assert served.arms()["canary"] == (20, 0)
    servers["b"].unready = True
    eventually(lambda: not driver.ready(version, "b"))
    assert driver.ready(version, "a")
