"""docs/kubernetes.md says what works: its configs are taken, and its role is enough for everything the drivers do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.places import ROOT
from rollout import drivers
from rollout.drivers.base import Bundle, RouteSpec
from tests.contracts.kube_rigs import FLEETS
from tests.rollout.kube import Kube, Namespace
from tests.rollout.kube_controllers import Controllers

TEXT = (ROOT / "docs" / "kubernetes.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", blocks("json"))
def test_a_config_of_the_document_is_taken(block: str) -> None:
    fleet = json.loads(block)
    assert drivers.make(fleet["driver"], fleet["config"])


def allow(space: Namespace, user: str) -> None:
    """Give the user the document's role in this namespace, and no more."""
    (role,) = (yaml.safe_load(block) for block in blocks("yaml"))
    binding = {
        "metadata": {"name": "davy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "davy"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    }
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space.name}"
    for kind, body in (("roles", role), ("rolebindings", binding)):
        status, answer = space.kube.ask("POST", f"{path}/{kind}", body)
        assert status == 201, answer


@pytest.mark.system
@pytest.mark.parametrize("name", sorted(FLEETS))
def test_the_role_of_the_document_is_enough(kube: Kube, name: str) -> None:
    space = kube.namespace()
    allow(space, "nobody")
    config: dict[str, Any] = FLEETS[name](space, "products")
    config |= kube.credentials(token=f"{kube.token}-nobody")
    driver, controllers = drivers.make(name, config), Controllers(space)
    route, bundle = RouteSpec("products", "a"), Bundle("products", "v1", "1" * 64, Path)
    for slot in ("a", "b"):
        driver.prepare(bundle, slot)
        controllers.round()
        assert driver.ready(bundle, slot)
    driver.set_weight(route, 0)
    controllers.round()
    assert driver.observed_weight(route) == 0
    driver.release("products", "b")
    assert driver.check()
