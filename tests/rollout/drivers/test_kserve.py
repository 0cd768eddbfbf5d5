"""Claims about traffic through KServe, on a real API server: how slots lie over revisions, and what no step may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rollout import drivers
from rollout.drivers.base import Bundle, DriverError, RouteSpec
from rollout.drivers.kserve import KServeDriver
from tests.rollout.kube import Kube, Namespace, owned_by
from tests.rollout.kube_controllers import Controllers
from tests.rollout.kube_fleets import kserve_fleet

pytestmark = pytest.mark.system
MODEL = "products"
V1 = Bundle(MODEL, "v1", "1" * 64, Path)
V2, V3 = replace(V1, version="v2", digest="2" * 64), replace(V1, version="v3", digest="3" * 64)
ROUTE, SWAPPED = RouteSpec(MODEL, "a"), RouteSpec(MODEL, "b")


@dataclass
class Fleet:
    """One InferenceService of an operator, and KServe, which acts when a test says so."""

    space: Namespace
    config: dict[str, Any]
    driver: Any
    kserve: Controllers

    def service(self) -> dict[str, Any]:
        return self.space.get("inferenceservices", MODEL)

    def predictor(self) -> dict[str, Any]:
        return dict(self.service()["spec"]["predictor"])

    def percent(self) -> int | None:
        found: int | None = self.predictor().get("canaryTrafficPercent")
        return found

    def users(self) -> dict[str, int]:
        """Which version gets how much of the traffic."""
        templates = self.kserve.revisions[MODEL]
        shares: dict[str, int] = {}
        for target in self.service()["status"]["components"]["predictor"]["traffic"]:
            template = templates[int(target["revisionName"].rpartition("-")[2]) - 1]
            version = next(v.version for v in (V1, V2, V3) if v.digest in template.partition("storageUri")[2])
            shares[version] = shares.get(version, 0) + target["percent"]
        return {version: share for version, share in shares.items() if share}

    def put(self, bundle: Bundle, slot: str) -> None:
        self.driver.prepare(bundle, slot)
        self.kserve.round()
        assert self.driver.ready(bundle, slot)

    def split(self, route: RouteSpec, percent: float) -> None:
        self.driver.set_weight(route, percent)
        self.kserve.round()
        assert self.driver.observed_weight(route) == percent

    def live(self) -> None:
        """v1 has all traffic, in slot a."""
        self.put(V1, "a")
        self.split(ROUTE, 0)

    def promoted(self) -> None:
        """v2, in slot b, has followed v1."""
        self.live()
        self.put(V2, "b")
        self.split(ROUTE, 100)
        self.split(SWAPPED, 0)


@pytest.fixture
def fleet(kube: Kube) -> Fleet:
    space = kube.namespace()
    config = kserve_fleet(space, MODEL)
    return Fleet(space, config, drivers.make("kserve", config), Controllers(space))


# A rollout


def test_a_canary_gets_no_traffic_before_it_is_asked_for(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    assert fleet.users() == {"v1": 100}
    assert fleet.driver.observed_weight(ROUTE) == 0


def test_a_promotion_removes_the_percentage_and_moves_no_traffic(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.split(ROUTE, 100)
    assert fleet.percent() == 100
    fleet.split(SWAPPED, 0)
    assert fleet.percent() is None
    assert fleet.users() == {"v2": 100}


def test_after_a_promotion_one_act_returns_to_the_old_version(fleet: Fleet) -> None:
    fleet.promoted()
    assert fleet.driver.ready(V1, "a")
    fleet.split(SWAPPED, 100)
    assert fleet.users() == {"v1": 100}


def test_a_return_can_go_step_by_step_as_a_rollout_of_the_old_version(fleet: Fleet) -> None:
    fleet.promoted()
    fleet.put(V1, "a")
    fleet.split(SWAPPED, 5)
    assert fleet.users() == {"v1": 5, "v2": 95}


def test_the_next_canary_leaves_the_promoted_version_its_traffic(fleet: Fleet) -> None:
    fleet.promoted()
    fleet.driver.release(MODEL, "a")
    fleet.put(V3, "a")
    assert fleet.users() == {"v2": 100}
    fleet.split(SWAPPED, 10)
    assert fleet.users() == {"v2": 90, "v3": 10}


def test_a_newer_canary_takes_the_slot_of_a_rejected_one(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.split(ROUTE, 5)
    fleet.split(ROUTE, 0)
    fleet.put(V3, "b")
    fleet.split(ROUTE, 10)
    assert fleet.users() == {"v1": 90, "v3": 10}


def test_a_released_canary_is_written_out_of_the_service_and_users_never_see_it(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.driver.release(MODEL, "b")
    assert V1.digest in fleet.predictor()["model"]["storageUri"]
    with pytest.raises(DriverError, match="not ready yet"):  # its latest ready revision is still the canary's
        fleet.driver.set_weight(ROUTE, 0)
    fleet.kserve.round()
    assert fleet.users() == {"v1": 100}
    assert fleet.driver.observed_weight(ROUTE) is None  # what has the traffic is in no slot
    fleet.split(ROUTE, 0)
    assert (fleet.users(), fleet.percent()) == ({"v1": 100}, None)


def test_a_rollout_that_follows_a_release_at_once_finishes_that_first(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.driver.release(MODEL, "b")
    for _ in range(2):
        with pytest.raises(DriverError) as waiting:
            fleet.driver.prepare(V3, "b")
        assert waiting.value.retry
        fleet.kserve.round()
        assert fleet.users() == {"v1": 100}
    fleet.put(V3, "b")
    assert fleet.users() == {"v1": 100}


def test_a_version_with_traffic_is_not_released(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.split(ROUTE, 5)
    with pytest.raises(DriverError, match="slot b carries 5 %"):
        fleet.driver.release(MODEL, "b")
    assert fleet.users() == {"v1": 95, "v2": 5}


# Readiness


def test_a_slot_is_not_ready_before_kserve_has_made_its_revision(fleet: Fleet) -> None:
    """Until then the latest ready revision is the one before, and `observedGeneration` says nothing."""
    fleet.live()
    fleet.driver.prepare(V2, "b")
    assert not fleet.driver.ready(V2, "b")
    with pytest.raises(DriverError, match="not ready yet") as early:
        fleet.driver.set_weight(ROUTE, 5)
    assert early.value.retry


def test_a_canary_that_does_not_get_ready_gets_no_traffic(fleet: Fleet) -> None:
    fleet.live()
    fleet.kserve.stuck.add("v2")
    fleet.driver.prepare(V2, "b")
    fleet.kserve.round()
    assert not fleet.driver.ready(V2, "b")
    with pytest.raises(DriverError, match="not ready yet"):
        fleet.driver.set_weight(ROUTE, 5)
    assert fleet.users() == {"v1": 100}


def test_a_model_that_cannot_be_loaded_is_told_in_kserve_s_words(fleet: Fleet) -> None:
    fleet.live()
    fleet.kserve.stuck.add("v2")
    fleet.driver.prepare(V2, "b")
    fleet.kserve.round()
    failure = {"reason": "ModelLoadFailed", "message": "no such bucket"}
    status = {"modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}}
    fleet.space.edit("inferenceservices", MODEL, {"status": status}, status=True)
    with pytest.raises(DriverError, match="BlockedByFailedLoad: ModelLoadFailed no such bucket"):
        fleet.driver.ready(V2, "b")


def test_a_route_that_kserve_cannot_make_is_told_in_its_words(fleet: Fleet) -> None:
    fleet.live()
    broken = {"conditions": [{"type": "PredictorRouteReady", "status": "False", "message": "no ingress"}]}
    fleet.space.edit("inferenceservices", MODEL, {"status": broken}, status=True)
    with pytest.raises(DriverError, match="cannot route products: no ingress"):
        fleet.driver.observed_weight(ROUTE)


# What others do


def test_davy_owns_its_three_fields_and_nothing_else(fleet: Fleet) -> None:
    fleet.promoted()
    fleet.split(SWAPPED, 5)
    owned = owned_by(fleet.service(), "davy")["f:spec"]["f:predictor"]
    assert set(owned) == {"f:annotations", "f:canaryTrafficPercent", "f:model"}
    assert set(owned["f:model"]) == {"f:storageUri"}
    assert all(name == "." or name.startswith("f:davy/") for name in owned["f:annotations"])


def test_a_person_s_edit_of_another_field_survives(fleet: Fleet) -> None:
    fleet.live()
    notes = {"team": "vision"}
    fleet.space.edit(
        "inferenceservices", MODEL, {"spec": {"predictor": {"maxReplicas": 9, "annotations": notes}}}
    )
    fleet.kserve.round()
    fleet.put(V2, "b")
    assert fleet.predictor()["maxReplicas"] == 9
    assert fleet.predictor()["annotations"]["team"] == "vision"


def test_a_percentage_that_somebody_removes_is_seen_and_put_back(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.split(ROUTE, 5)
    fleet.space.edit("inferenceservices", MODEL, {"spec": {"predictor": {"canaryTrafficPercent": None}}})
    fleet.kserve.round()
    assert fleet.driver.observed_weight(ROUTE) == 100
    fleet.split(ROUTE, 5)
    assert fleet.users() == {"v1": 95, "v2": 5}


def test_a_model_that_somebody_else_writes_is_not_the_slot_s(fleet: Fleet) -> None:
    fleet.live()
    other = {"model": {"storageUri": f"s3://models/{V3.digest}"}}
    fleet.space.edit("inferenceservices", MODEL, {"spec": {"predictor": other}})
    fleet.kserve.round()
    assert not fleet.driver.ready(V1, "a")
    fleet.put(V1, "a")
    fleet.split(ROUTE, 0)
    assert fleet.users() == {"v1": 100}


def interrupted(fleet: Fleet, times: int, write: Callable[[], object]) -> None:
    """Somebody else writes between the driver's reading and its writing, so many times."""
    cluster, left = fleet.driver.cluster, [times]
    read = cluster.get

    def get(path: str) -> Any:
        found = read(path)
        if left[0]:
            left[0] -= 1
            write()
        return found

    cluster.get = get


def test_what_another_worker_wrote_since_it_was_read_is_read_again(fleet: Fleet) -> None:
    fleet.live()
    other = drivers.make("kserve", fleet.config)
    interrupted(fleet, 1, lambda: other.prepare(V2, "b"))
    fleet.driver.prepare(V2, "b")
    fleet.kserve.round()
    assert fleet.driver.ready(V2, "b")
    assert len(fleet.kserve.revisions[MODEL]) == 2


def test_a_service_that_somebody_writes_all_the_time_is_left_to_the_next_tick(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    numbers = iter(range(100))
    change = lambda: fleet.space.edit(  # noqa: E731
        "inferenceservices", MODEL, {"metadata": {"labels": {"n": str(next(numbers))}}}
    )
    interrupted(fleet, 100, change)
    with pytest.raises(DriverError) as busy:
        fleet.driver.set_weight(ROUTE, 5)
    assert busy.value.retry
    assert fleet.percent() == 0


# What it refuses


@pytest.mark.parametrize("mode", ["RawDeployment", "Standard"])
def test_a_service_that_would_ignore_the_split_is_refused(fleet: Fleet, mode: str) -> None:
    fleet.live()
    fleet.space.edit("inferenceservices", MODEL, {"status": {"deploymentMode": mode}}, status=True)
    for call in (lambda: fleet.driver.prepare(V2, "b"), lambda: fleet.driver.set_weight(ROUTE, 0)):
        with pytest.raises(DriverError, match=f"runs in {mode} mode") as refused:
            call()
        assert not refused.value.retry
    assert fleet.driver.check()["warnings"] == [f"products runs in {mode} mode, which splits no traffic"]


def test_a_canary_is_not_written_over_a_version_that_has_not_all_traffic(fleet: Fleet) -> None:
    fleet.live()
    fleet.put(V2, "b")
    fleet.split(ROUTE, 5)
    with pytest.raises(DriverError, match="has not got all traffic yet") as early:
        fleet.driver.prepare(V3, "a")
    assert early.value.retry
    assert fleet.users() == {"v1": 95, "v2": 5}


def test_an_empty_slot_gets_no_traffic(fleet: Fleet) -> None:
    with pytest.raises(DriverError, match="no version of products was prepared"):
        fleet.driver.set_weight(ROUTE, 0)
    fleet.live()
    with pytest.raises(DriverError, match="slot b has no version") as empty:
        fleet.driver.set_weight(ROUTE, 5)
    assert not empty.value.retry


def test_a_service_that_is_missing_is_asked_for(kube: Kube) -> None:
    driver = drivers.make("kserve", kserve_fleet(kube.namespace(), MODEL, made=False))
    with pytest.raises(DriverError, match=r"there is no InferenceService .*/products: make one") as missing:
        driver.prepare(V1, "a")
    assert not missing.value.retry
    assert not driver.ready(V1, "a")
    assert driver.observed_weight(ROUTE) is None
    driver.release(MODEL, "a")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("colour", {"colour": "red"}),
        ("namespace", {"namespace": None}),
        ("service", {"service": "shared"}),
        ("storage_uri", {"storage_uri": None}),
        ("storage_uri", {"storage_uri": "s3://models/{model}"}),
        ("kubeconfig", {"kubeconfig": ""}),
    ],
)
def test_a_bad_config_names_its_field(field: str, changes: dict[str, Any]) -> None:
    access = {"credentials": {"server": "https://h", "token": "t"}}
    good = {**access, "namespace": "n", "service": "{model}", "storage_uri": "s3://{version}"}
    KServeDriver(good)
    with pytest.raises(ValueError, match=f"^{field}: "):
        KServeDriver(good | changes)
