"""Claims about traffic through the Gateway API, on a real API server: who owns what, what is accepted, who is last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from rollout import drivers
from rollout.drivers.base import DriverError, KnowsCapacity, Mirrors, RouteSpec
from rollout.drivers.kube.httproutes import PIN
from tests.rollout.kube import Kube, Namespace, owned_by
from tests.rollout.kube_controllers import Controllers, condition
from tests.rollout.kube_fleets import gateway_fleet, httproute

pytestmark = pytest.mark.system
MODEL, NAME = "products", "davy-products"
ROUTE, SWAPPED = RouteSpec(MODEL, "a"), RouteSpec(MODEL, "b")


@dataclass
class Fleet:
    """A fleet whose operator has made its objects, with GitOps."""

    space: Namespace
    config: dict[str, Any]
    driver: Any
    controllers: Controllers

    def route(self) -> dict[str, Any]:
        return self.space.get("httproutes", NAME)

    def says(self, *conditions: tuple[str, str], generation: int | None = None, parent: str = "edge") -> None:
        """A gateway tells what it thinks of the route, of its present generation unless another is given."""
        of = generation or self.route()["metadata"]["generation"]
        told = [condition(kind, status, of, message=f"{kind} it is {status}") for kind, status in conditions]
        entry = {"parentRef": {"name": parent}, "controllerName": "example.com/gateway", "conditions": told}
        self.space.edit("httproutes", NAME, {"status": {"parents": [entry]}}, manager="gateway", status=True)

    def weights(self) -> dict[str, int]:
        return {ref["name"]: ref["weight"] for ref in self.route()["spec"]["rules"][-1]["backendRefs"]}


def fleet_in(space: Namespace, **changes: Any) -> Fleet:
    config = gateway_fleet(space, MODEL, **changes)
    return Fleet(space, config, drivers.make("gateway_api", config), Controllers(space))


@pytest.fixture
def fleet(kube: Kube) -> Fleet:
    return fleet_in(kube.namespace())


# Who owns what


def test_davy_owns_the_rules_and_nothing_else(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    assert owned_by(fleet.route(), "davy") == {"f:spec": {"f:rules": {}}}


def test_what_others_wrote_stays_and_what_they_write_later_too(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    manifest = httproute(NAME)
    manifest["spec"]["hostnames"] = ["new.example.com"]
    status, answer = fleet.space.apply("httproutes", manifest, force=True)
    assert status == 200, answer
    fleet.driver.set_weight(ROUTE, 25)
    route = fleet.route()
    assert route["metadata"]["labels"] == {"team": "vision"}
    assert route["metadata"]["annotations"] == {"git": "1234"}
    assert route["spec"]["hostnames"] == ["new.example.com"]
    assert [parent["name"] for parent in route["spec"]["parentRefs"]] == ["edge"]
    assert fleet.weights() == {"products-a": 750_000, "products-b": 250_000}


def test_a_gitops_tool_that_writes_rules_too_is_told_of_the_conflict(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    manifest = httproute(NAME)
    manifest["spec"]["rules"] = [{"backendRefs": [{"name": "products-a", "port": 8000}]}]
    status, answer = fleet.space.apply("httproutes", manifest)
    assert status == 409
    assert 'conflicts with "davy":\n- .spec.rules' in answer["message"]


def test_a_person_s_edit_of_another_field_survives(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    fleet.space.edit("httproutes", NAME, {"metadata": {"labels": {"pager": "ann"}}})
    fleet.driver.set_weight(ROUTE, 25)
    assert fleet.route()["metadata"]["labels"] == {"team": "vision", "pager": "ann"}


def test_a_person_s_edit_of_the_weight_is_seen_and_can_be_corrected(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    rules = fleet.route()["spec"]["rules"]
    for ref in rules[-1]["backendRefs"]:
        ref["weight"] = 1
    fleet.space.edit("httproutes", NAME, {"spec": {"rules": rules}})
    fleet.controllers.round()
    assert fleet.driver.observed_weight(ROUTE) == 50
    fleet.driver.set_weight(ROUTE, 5)
    fleet.controllers.round()
    assert fleet.driver.observed_weight(ROUTE) == 5


def test_setting_the_same_weight_again_is_no_new_generation(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    before = fleet.route()["metadata"]["generation"]
    fleet.driver.set_weight(ROUTE, 5)
    assert fleet.route()["metadata"]["generation"] == before


def test_pins_lead_to_the_roles_slots(fleet: Fleet) -> None:
    fleet.driver.set_weight(SWAPPED, 5)
    pins = {}
    for rule in fleet.route()["spec"]["rules"]:
        for header in rule["matches"][0].get("headers", []):
            assert header["name"] == PIN
            pins[header["value"]] = rule["backendRefs"][0]["name"]
    assert pins == {"canary": "products-a", "stable": "products-b"}


def test_with_parents_in_the_config_davy_makes_the_route(kube: Kube) -> None:
    fleet = fleet_in(kube.namespace(), made=False, parents=[{"name": "edge", "namespace": "infra"}])
    fleet.driver.set_weight(ROUTE, 5)
    assert set(owned_by(fleet.route(), "davy")["f:spec"]) == {"f:parentRefs", "f:rules"}
    fleet.controllers.round()
    assert fleet.driver.observed_weight(ROUTE) == 5


def test_without_parents_a_route_that_is_missing_is_asked_for(kube: Kube) -> None:
    fleet = fleet_in(kube.namespace(), made=False)
    with pytest.raises(DriverError, match=r"there is no HTTPRoute .*/davy-products: make one") as missing:
        fleet.driver.set_weight(ROUTE, 5)
    assert not missing.value.retry
    assert fleet.driver.observed_weight(ROUTE) is None


# What was accepted


ACCEPTED, RESOLVED, PROGRAMMED = ("Accepted", "True"), ("ResolvedRefs", "True"), ("Programmed", "True")


def test_a_weight_counts_once_the_gateway_has_accepted_its_generation(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    assert fleet.driver.observed_weight(ROUTE) is None
    fleet.says(ACCEPTED, RESOLVED)
    assert fleet.driver.observed_weight(ROUTE) == 5
    fleet.driver.set_weight(ROUTE, 25)
    assert fleet.driver.observed_weight(ROUTE) is None
    fleet.says(ACCEPTED, RESOLVED, PROGRAMMED)
    assert fleet.driver.observed_weight(ROUTE) == 25


@pytest.mark.parametrize(
    "told", [[("Accepted", "Unknown")], [ACCEPTED, ("ResolvedRefs", "Unknown")], [RESOLVED], [PROGRAMMED]]
)
def test_a_gateway_that_has_not_made_up_its_mind_has_accepted_nothing(
    fleet: Fleet, told: list[tuple[str, str]]
) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    fleet.says(*told)
    assert fleet.driver.observed_weight(ROUTE) is None


@pytest.mark.parametrize(
    "told",
    [
        [("Accepted", "False")],
        [ACCEPTED, ("ResolvedRefs", "False")],
        [ACCEPTED, RESOLVED, ("Programmed", "False")],
        [ACCEPTED, RESOLVED, ("PartiallyInvalid", "True")],
    ],
)
def test_a_refusal_is_told_in_the_gateway_s_words(fleet: Fleet, told: list[tuple[str, str]]) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    fleet.says(*told)
    with pytest.raises(DriverError, match=r"gateway edge refused .* it is") as refused:
        fleet.driver.observed_weight(ROUTE)
    assert refused.value.retry


def test_a_refusal_of_an_older_generation_is_over(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    old = fleet.route()["metadata"]["generation"]
    fleet.driver.set_weight(ROUTE, 25)
    fleet.says(("Accepted", "False"), generation=old)
    assert fleet.driver.observed_weight(ROUTE) is None


def test_every_parent_has_to_accept(fleet: Fleet) -> None:
    fleet.space.edit("httproutes", NAME, {"spec": {"parentRefs": [{"name": "edge"}, {"name": "inner"}]}})
    fleet.driver.set_weight(ROUTE, 5)
    fleet.says(ACCEPTED, RESOLVED)
    assert fleet.driver.observed_weight(ROUTE) is None
    fleet.controllers.round()
    assert fleet.driver.observed_weight(ROUTE) == 5


def test_a_route_without_parents_is_accepted_by_nobody(fleet: Fleet) -> None:
    fleet.space.edit("httproutes", NAME, {"spec": {"parentRefs": None}})
    fleet.driver.set_weight(ROUTE, 5)
    assert fleet.driver.observed_weight(ROUTE) is None


# Several writers


def test_of_two_workers_with_different_weights_one_wins_as_a_whole(fleet: Fleet) -> None:
    start = threading.Barrier(2)

    def work(route: RouteSpec, percent: float) -> None:
        own = drivers.make("gateway_api", fleet.config)
        start.wait()
        own.set_weight(route, percent)

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, ROUTE, 5), pool.submit(work, SWAPPED, 20)]:
                done.result()
        assert fleet.weights() in (
            {"products-a": 950_000, "products-b": 50_000},
            {"products-a": 200_000, "products-b": 800_000},
        )
        stable = {"products-a": "a", "products-b": "b"}[
            fleet.route()["spec"]["rules"][1]["backendRefs"][0]["name"]
        ]
        fleet.controllers.round()
        assert fleet.driver.observed_weight(RouteSpec(MODEL, stable)) == {"a": 5, "b": 20}[stable]


def interrupted(fleet: Fleet, times: int, write: Callable[[], object]) -> None:
    """Somebody else writes between the driver's reading and its writing, so many times."""
    cluster, left = fleet.driver.config.cluster, [times]
    read = cluster.get

    def get(path: str) -> Any:
        found = read(path)
        if left[0]:
            left[0] -= 1
            write()
        return found

    cluster.get = get


def test_what_was_written_since_it_was_read_is_read_again(fleet: Fleet) -> None:
    other = drivers.make("gateway_api", fleet.config)
    fleet.driver.set_weight(ROUTE, 5)
    assert isinstance(other, Mirrors)
    interrupted(fleet, 1, lambda: other.set_mirror(ROUTE, 40))
    fleet.driver.set_weight(ROUTE, 25)
    fleet.controllers.round()
    assert (fleet.driver.observed_weight(ROUTE), fleet.driver.observed_mirror(ROUTE)) == (25, 40)


def test_a_route_that_somebody_writes_all_the_time_is_left_to_the_next_tick(fleet: Fleet) -> None:
    fleet.driver.set_weight(ROUTE, 5)
    labels = iter(range(100))
    change = lambda: fleet.space.edit("httproutes", NAME, {"metadata": {"labels": {"n": str(next(labels))}}})  # noqa: E731
    interrupted(fleet, 100, change)
    with pytest.raises(DriverError) as busy:
        fleet.driver.set_weight(ROUTE, 25)
    assert busy.value.retry
    assert fleet.weights()["products-b"] == 50_000


# Mirroring


def test_a_mirror_stays_when_the_weight_changes_and_ends_when_the_roles_swap(fleet: Fleet) -> None:
    with pytest.raises(DriverError, match="no split yet"):
        fleet.driver.set_mirror(ROUTE, 100)
    fleet.driver.set_weight(ROUTE, 0)
    fleet.driver.set_mirror(ROUTE, 12.5)
    fleet.driver.set_weight(ROUTE, 5)
    fleet.controllers.round()
    assert fleet.driver.observed_mirror(ROUTE) == 12.5
    fleet.driver.set_weight(SWAPPED, 0)
    fleet.controllers.round()
    assert (fleet.driver.observed_mirror(SWAPPED), fleet.driver.observed_mirror(ROUTE)) == (0, 0)


def test_a_fleet_that_does_not_say_who_marks_copies_does_not_mirror(fleet: Fleet) -> None:
    slots = {
        name: {k: v for k, v in slot.items() if k != "mirror"} for name, slot in fleet.config["slots"].items()
    }
    plain = drivers.make("gateway_api", fleet.config | {"slots": slots})
    assert isinstance(fleet.driver, Mirrors)
    assert not isinstance(plain, Mirrors)


# Capacity and check


def test_stable_carries_what_its_deployment_has_available(fleet: Fleet) -> None:
    assert isinstance(fleet.driver, KnowsCapacity)
    available = {"availableReplicas": 1, "readyReplicas": 1, "replicas": 2}
    fleet.space.edit("deployments", "products-a", {"status": available}, status=True)
    assert fleet.driver.capacity_percent(ROUTE) == 50
    enough = {"conditions": [{"type": "Available", "status": "True"}]}
    fleet.space.edit("deployments", "products-a", {"status": enough}, status=True)
    assert fleet.driver.capacity_percent(ROUTE) == 100


def test_a_stable_slot_without_pods_carries_nothing(fleet: Fleet) -> None:
    fleet.driver.release(MODEL, "a")
    assert fleet.driver.capacity_percent(ROUTE) == 0


def test_check_names_the_fields_that_are_davy_s(fleet: Fleet) -> None:
    said = fleet.driver.check()
    assert said["httproutes"] == 1
    assert said["owned_fields"][0] == "HTTPRoute spec.rules"
    assert any("annotations[davy/*]" in field for field in said["owned_fields"])
