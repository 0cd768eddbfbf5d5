"""Claims about versions in Deployments, on a real API server: what is rolled, what is left alone, when it is ready."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout import drivers
from rollout.drivers.base import Bundle, DriverError
from tests.rollout.gateway import eventually
from tests.rollout.kube import Kube, Namespace
from tests.rollout.kube_controllers import Controllers
from tests.rollout.kube_fleets import CONTAINER, gateway_fleet
from tests.rollout.model_server import two_servers

pytestmark = pytest.mark.system
V1 = Bundle("products", "v1", "1" * 64, Path)
V2 = replace(V1, version="v2", digest="2" * 64)
NAME = "products-b"


@pytest.fixture
def space(kube: Kube) -> Namespace:
    return kube.namespace()


@pytest.fixture
def controllers(space: Namespace) -> Controllers:
    return Controllers(space)


def driver(space: Namespace, **changes: Any) -> Any:
    config = gateway_fleet(space, "products")
    config["slots"]["b"]["deployment"] |= changes
    return drivers.make("gateway_api", config)


def pod(space: Namespace) -> dict[str, Any]:
    return dict(space.get("deployments", NAME)["spec"]["template"])


def containers(space: Namespace) -> dict[str, dict[str, Any]]:
    return {container["name"]: container for container in pod(space)["spec"]["containers"]}


def environment(space: Namespace, container: str = CONTAINER) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in containers(space)[container].get("env", [])}


def test_the_pods_say_and_are_told_which_version_they_run(space: Namespace) -> None:
    driver(space).prepare(V1, "b")
    wanted = {"davy/model": "products", "davy/version": "v1", "davy/digest": "1" * 64}
    assert pod(space)["metadata"]["annotations"] == wanted
    told = {"DAVY_MODEL": "products", "DAVY_VERSION": "v1", "DAVY_DIGEST": "1" * 64}
    assert environment(space) == {"LOG": "info", **told}


def test_the_config_names_image_and_environment_by_version(space: Namespace) -> None:
    fleet = driver(space, image="models/{model}:{version}", env={"MODEL_URI": "s3://{model}/{digest}"})
    fleet.prepare(V2, "b")
    assert containers(space)[CONTAINER]["image"] == "models/products:v2"
    assert environment(space)["MODEL_URI"] == f"s3://products/{'2' * 64}"


def test_without_an_image_in_the_config_the_operator_s_stays(space: Namespace) -> None:
    driver(space).prepare(V1, "b")
    assert containers(space)[CONTAINER]["image"] == "triton:1"


def test_the_other_container_and_the_other_slot_are_left_alone(space: Namespace) -> None:
    fleet = driver(space)
    before = space.get("deployments", "products-a")
    fleet.prepare(V1, "b")
    assert environment(space, "logs") == {}
    assert space.get("deployments", "products-a")["spec"] == before["spec"]


def test_a_person_s_edit_survives_the_next_version(space: Namespace) -> None:
    fleet = driver(space)
    fleet.prepare(V1, "b")
    space.edit("deployments", NAME, {"spec": {"template": {"spec": {"priorityClassName": "gold"}}}})
    fleet.prepare(V2, "b")
    assert pod(space)["spec"]["priorityClassName"] == "gold"
    assert pod(space)["metadata"]["annotations"]["davy/version"] == "v2"


def test_an_autoscaler_keeps_its_replicas(space: Namespace) -> None:
    fleet = driver(space)
    space.edit("deployments", NAME, {"spec": {"replicas": 7}}, manager="autoscaler")
    fleet.prepare(V1, "b")
    assert space.get("deployments", NAME)["spec"]["replicas"] == 7


def test_a_released_slot_stands_at_0_and_comes_back_for_the_next_version(
    space: Namespace, controllers: Controllers
) -> None:
    fleet = driver(space, replicas=3)
    fleet.prepare(V1, "b")
    fleet.release("products", "b")
    assert space.get("deployments", NAME)["spec"]["replicas"] == 0
    controllers.round()
    assert not fleet.ready(V1, "b")
    fleet.prepare(V2, "b")
    assert space.get("deployments", NAME)["spec"]["replicas"] == 3


def test_ready_is_when_every_pod_is_of_the_new_template_and_available(
    space: Namespace, controllers: Controllers
) -> None:
    fleet = driver(space)
    fleet.prepare(V1, "b")
    controllers.round()
    fleet.prepare(V2, "b")
    assert not fleet.ready(V2, "b")  # the controller has not seen it yet
    seen = {"observedGeneration": space.get("deployments", NAME)["metadata"]["generation"]}
    for status in (
        {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 3, "readyReplicas": 3},
        {"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3, "readyReplicas": 3},
        {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1, "readyReplicas": 1},
    ):
        space.edit("deployments", NAME, {"status": seen | status}, status=True)
        assert not fleet.ready(V2, "b")
    controllers.round()
    assert fleet.ready(V2, "b")
    assert not fleet.ready(V1, "b")


def test_a_rollout_that_is_stuck_says_why(space: Namespace, controllers: Controllers) -> None:
    fleet = driver(space)
    fleet.prepare(V1, "b")
    controllers.stuck.add(NAME)
    controllers.round()
    late = {"type": "Progressing", "status": "False", "message": "the quota is exhausted"}
    space.edit("deployments", NAME, {"status": {"conditions": [late]}}, status=True)
    with pytest.raises(DriverError, match="products-b does not roll out: the quota is exhausted"):
        fleet.ready(V1, "b")


def test_a_deployment_that_is_missing_is_asked_for(kube: Kube) -> None:
    fleet = drivers.make("gateway_api", gateway_fleet(kube.namespace(), "products", made=False))
    with pytest.raises(DriverError, match=r"there is no Deployment .*/products-b: make one") as missing:
        fleet.prepare(V1, "b")
    assert not missing.value.retry
    assert not fleet.ready(V1, "b")
    fleet.release("products", "b")


def test_a_container_that_is_missing_is_named_and_nothing_is_changed(space: Namespace) -> None:
    fleet = driver(space, container="other")
    before = space.get("deployments", NAME)["spec"]
    with pytest.raises(DriverError, match="no container 'other', it has server, logs"):
        fleet.prepare(V1, "b")
    assert space.get("deployments", NAME)["spec"] == before


def test_a_slot_may_be_a_triton_instead(space: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    bundle = replace(V1, fetch=lambda: folder)
    config = gateway_fleet(space, "products")
    with two_servers(tmp_path) as servers:
        del config["slots"]["b"]["deployment"]
        config["slots"]["b"]["triton"] = {"url": servers["b"].url, "repository": str(servers["b"].repository)}
        fleet = drivers.make("gateway_api", config)
        fleet.prepare(bundle, "b")
        eventually(lambda: fleet.ready(bundle, "b"))
        fleet.release("products", "b")
        assert not fleet.ready(bundle, "b")
