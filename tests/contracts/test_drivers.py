"""What every traffic driver promises: add a driver to its table, give it a rig here, and these tests judge it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from controlplane import outbound
from rollout import drivers
from rollout.drivers import DRIVERS
from rollout.drivers.base import Bundle, CountsRequests, Driver, DriverError, RouterCounts, RouteSpec
from rollout.drivers.envoy import EnvoyDriver
from rollout.drivers.memory import MemoryDriver
from tests.rollout.gateway import Gateway, Served, eventually, free_ports
from tests.rollout.model_server import two_servers

MODEL = "contract"


class Rig(Protocol):
    """A driver with a fleet behind it that can be used and taken away."""

    driver: Driver
    model: str

    def settled(self, route: RouteSpec, percent: float) -> bool:
        """Whether the fleet applies the weight, after the little time that it may take."""
        ...

    def send(self, count: int, *, failing: bool = False) -> None:
        """So many live requests; with `failing` the servers of the canary fail them."""
        ...

    def lost(self) -> Driver:
        """The same driver for a fleet that does not answer."""
        ...


class MemoryRig:
    def __init__(self) -> None:
        MemoryDriver.fleets.pop(MODEL, None)
        self.model = MODEL
        self.driver = MemoryDriver({"name": MODEL})

    def settled(self, route: RouteSpec, percent: float) -> bool:
        return self.driver.observed_weight(route) == percent

    def send(self, count: int, *, failing: bool = False) -> None:
        for slot, percent in self.driver.fleet.weights[MODEL].items():
            n = round(count * percent / 100)
            self.driver.fleet.count(MODEL, slot, n, n if failing and slot == "b" else 0)

    def lost(self) -> Driver:
        self.driver.fleet.refuse = "away"
        return self.driver


class EnvoyRig:
    def __init__(self, gateway: Gateway, servers: dict[str, Any], model: str) -> None:
        self.gateway, self.servers, self.model = gateway, servers, model
        self.driver = EnvoyDriver(gateway.config(servers))

    def settled(self, route: RouteSpec, percent: float) -> bool:
        eventually(lambda: self.driver.observed_weight(route) is not None)
        return math.isclose(self.driver.observed_weight(route) or 0, percent)

    def send(self, count: int, *, failing: bool = False) -> None:
        self.servers["b"].answers[self.model] = lambda _: 500 if failing else 200
        Served(self.gateway, self.driver, self.model).users(count)

    def lost(self) -> Driver:
        slots, admin = free_ports(2), free_ports(1)[0]
        config = self.gateway.config(self.servers, admin_urls=[f"http://127.0.0.1:{admin}"])
        for slot, port in zip(config["slots"].values(), slots, strict=True):
            slot["url"] = f"http://127.0.0.1:{port}"
        config["directory"] = str(self.gateway.folder.parent / "envoy.json" / "no-folder")
        return EnvoyDriver(config)


@pytest.fixture(params=[pytest.param("envoy", marks=pytest.mark.fleet), "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    gateway = request.getfixturevalue("gateway")
    with two_servers(tmp_path) as servers:
        yield EnvoyRig(gateway, servers, f"{MODEL}-{tmp_path.name}".lower().replace("[", "-").strip("]"))


@pytest.fixture
def bundle(rig: Rig, tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    (folder / "1" / "model.onnx").write_bytes(b"weights")
    return Bundle(rig.model, "v1", "1" * 64, lambda: folder)


def route(rig: Rig) -> RouteSpec:
    return RouteSpec(rig.model, "a")


def loaded(rig: Rig, bundle: Bundle, slot: str) -> None:
    """The slot is told to load the version, and does."""
    rig.driver.prepare(bundle, slot)
    eventually(lambda: rig.driver.ready(bundle, slot))


def weighted(rig: Rig, bundle: Bundle, percent: float) -> None:
    """Both slots serve the bundle, and the weight is observed."""
    for slot in ("a", "b"):
        loaded(rig, bundle, slot)
    rig.driver.set_weight(route(rig), percent)
    assert rig.settled(route(rig), percent)


def counts(rig: Rig) -> RouterCounts:
    assert isinstance(rig.driver, CountsRequests)
    return rig.driver.router_counts(route(rig))


def test_every_driver_of_the_table_is_judged_here() -> None:
    assert set(DRIVERS) == {"envoy", "memory"}


# Versions in slots


def test_a_slot_is_ready_for_exactly_the_version_that_it_loaded(rig: Rig, bundle: Bundle) -> None:
    assert not rig.driver.ready(bundle, "b")
    loaded(rig, bundle, "b")
    assert not rig.driver.ready(bundle, "a")
    assert not rig.driver.ready(replace(bundle, version="v2"), "b")
    assert not rig.driver.ready(replace(bundle, digest="2" * 64), "b")


def test_a_slot_takes_another_version(rig: Rig, bundle: Bundle) -> None:
    newer = replace(bundle, version="v2", digest="2" * 64)
    loaded(rig, bundle, "b")
    loaded(rig, newer, "b")
    assert not rig.driver.ready(bundle, "b")


def test_preparing_and_releasing_again_changes_nothing(rig: Rig, bundle: Bundle) -> None:
    for _ in range(2):
        loaded(rig, bundle, "b")
    for _ in range(2):
        rig.driver.release(rig.model, "b")
    assert not rig.driver.ready(bundle, "b")


def test_releasing_one_slot_leaves_the_other_alone(rig: Rig, bundle: Bundle) -> None:
    for slot in ("a", "b"):
        loaded(rig, bundle, slot)
    rig.driver.release(rig.model, "b")
    eventually(lambda: rig.driver.ready(bundle, "a"))


# Weights


def test_the_weight_of_a_route_that_was_never_set_is_unknown(rig: Rig) -> None:
    assert rig.driver.observed_weight(route(rig)) is None


@pytest.mark.parametrize("percent", [0, 0.01, 5, 33.33, 50, 99.99, 100])
def test_a_weight_that_was_set_is_observed(rig: Rig, percent: float) -> None:
    for _ in range(2):
        rig.driver.set_weight(route(rig), percent)
    assert rig.settled(route(rig), percent)


@pytest.mark.parametrize("percent", [-0.01, 100.01, math.nan, math.inf])
def test_a_weight_outside_0_to_100_is_refused_and_the_old_one_stays(
    rig: Rig, bundle: Bundle, percent: float
) -> None:
    weighted(rig, bundle, 5)
    with pytest.raises(DriverError) as refused:
        rig.driver.set_weight(route(rig), percent)
    assert not refused.value.retry
    assert rig.settled(route(rig), 5)


def test_a_promotion_swaps_roles_and_moves_no_traffic(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 100)
    swapped = RouteSpec(rig.model, "b")
    assert rig.driver.observed_weight(swapped) == 0
    rig.driver.set_weight(swapped, 0)
    assert rig.settled(swapped, 0)
    assert rig.driver.observed_weight(route(rig)) == 100


# Counts


def test_counts_only_rise_and_say_how_many_first_attempts_failed(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 50)
    rig.send(100)
    before = counts(rig)
    assert before.canary.assigned + before.stable.assigned == 100
    assert (before.canary.failed, before.stable.failed) == (0, 0)
    rig.send(100, failing=True)
    after = counts(rig)
    new = after.canary.assigned - before.canary.assigned
    assert new > 0
    assert (after.canary.failed, after.stable.failed) == (new, 0)
    assert after.stable.assigned == 200 - after.canary.assigned
    assert after.at > before.at > before.began


def test_counts_belong_to_slots_and_roles_only_name_them(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 100)
    rig.send(20)
    assert isinstance(rig.driver, CountsRequests)
    swapped = rig.driver.router_counts(RouteSpec(rig.model, "b"))
    assert (swapped.stable.assigned, swapped.canary.assigned) == (20, 0)


# Errors


def test_a_fleet_that_is_away_is_a_driver_error_and_nothing_else(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    lost = rig.lost()
    assert isinstance(lost, CountsRequests)
    for call in (
        lambda: lost.prepare(bundle, "b"),
        lambda: lost.set_weight(route(rig), 50),
        lambda: lost.observed_weight(route(rig)),
        lambda: lost.router_counts(route(rig)),
        lambda: lost.release(rig.model, "b"),
        lost.check,
    ):
        with pytest.raises(DriverError) as away:
            call()
        assert away.value.retry
        assert str(away.value)


def test_a_server_that_is_away_is_not_ready(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    lost = rig.lost()
    with contextlib.suppress(DriverError):
        assert not lost.ready(bundle, "b")


def test_check_reads_only(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    assert rig.driver.check()
    assert rig.settled(route(rig), 5)


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_a_config_field_that_is_unknown_or_wrong_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"^colour: "):
        drivers.make(name, {"colour": "red"})


def test_an_unknown_driver_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(LookupError, match="envoy, memory"):
        drivers.make("pigeon", {})


# The Envoy driver's config


def good_config() -> dict[str, Any]:
    slots = {name: {"url": f"http://127.0.0.1:{port}"} for name, port in (("a", 1), ("b", 2))}
    return {"directory": "/envoy", "admin_urls": ["http://127.0.0.1:3"], "slots": slots}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("directory", {"directory": "relative"}),
        ("directory", {"directory": None}),
        ("admin_urls", {"admin_urls": []}),
        ("admin_urls", {"admin_urls": "http://127.0.0.1:3"}),
        ("protocol", {"protocol": "smtp"}),
        ("timeout_seconds", {"timeout_seconds": 0}),
        ("timeout_seconds", {"timeout_seconds": math.nan}),
        ("timeout_seconds", {"timeout_seconds": True}),
        ("fallback", {"fallback": "yes"}),
        ("slots", {"slots": {}}),
        ("slots", {"slots": {"a": {"url": "http://h:1"}}}),
        ("slots/a/url", {"slots": {"a": {}, "b": {}}}),
        ("slots/a", {"slots": {"a": {"url": "https://h"}, "b": {"url": "http://h:1"}}}),
        (
            "slots/a/repository",
            {"slots": {"a": {"url": "http://h:1", "repository": 5}, "b": {"url": "http://h:1"}}},
        ),
        (
            "slots/b/grpc_url",
            {
                "protocol": "grpc",
                "slots": {"a": {"url": "http://h:1", "grpc_url": "h:2"}, "b": {"url": "http://h:1"}},
            },
        ),
        (
            "slots/a",
            {
                "protocol": "grpc",
                "slots": {name: {"url": "http://h:1", "grpc_url": "other:2"} for name in ("a", "b")},
            },
        ),
    ],
)
def test_a_bad_envoy_config_names_its_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        EnvoyDriver(good_config() | changes)


@pytest.mark.parametrize("text", ["<html>", "[]", '"text"', ""])
def test_an_admin_url_that_is_not_envoy_s_is_a_driver_error(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "fleet_get", lambda url, timeout: outbound.Answer(200, text.encode()))
    driver = EnvoyDriver(good_config())
    for call in (driver.check, lambda: driver.observed_weight(RouteSpec("m", "a"))):
        with pytest.raises(DriverError, match="not Envoy's admin interface"):
            call()


@pytest.mark.parametrize("text", ["<html>", "[]", '{"parameters": []}', '{"parameters": {"davy_model": 1}}'])
def test_a_server_whose_answer_is_no_triton_s_is_not_ready(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "fleet_get", lambda url, timeout: outbound.Answer(200, text.encode()))
    slots = {
        name: {"url": f"http://h:{port}", "repository": "/models"} for name, port in (("a", 1), ("b", 2))
    }
    driver = EnvoyDriver(good_config() | {"slots": slots})
    assert driver.ready(Bundle("m", "v1", "1" * 64, Path), "a") is False


def test_while_several_envoys_differ_the_weight_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = EnvoyDriver(good_config() | {"admin_urls": ["http://one:1", "http://two:1"]})
    seen = {"http://one:1": 5.0, "http://two:1": 25.0}
    monkeypatch.setattr(driver, "_observed", lambda url, route: seen[url])
    assert driver.observed_weight(RouteSpec("m", "a")) is None
    seen["http://two:1"] = 5.0
    assert driver.observed_weight(RouteSpec("m", "a")) == 5.0
