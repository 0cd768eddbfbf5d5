"""Claims about the config of a fleet behind a gateway: what is wrong is named by its path."""

from __future__ import annotations

from typing import Any

import pytest

from rollout.drivers.gateway_api import GatewayApiDriver


def good(**changes: Any) -> dict[str, Any]:
    slots = {
        slot: {
            "service": f"{{model}}-{slot}",
            "port": 80,
            "deployment": {"name": f"{{model}}-{slot}", "container": "c"},
        }
        for slot in ("a", "b")
    }
    access = {"credentials": {"server": "https://h", "token": "t"}}
    return {**access, "namespace": "n", "httproute": "{model}", "slots": slots, **changes}


def in_slot(**changes: Any) -> dict[str, Any]:
    slots = good()["slots"]
    slots["b"] = {key: value for key, value in (slots["b"] | changes).items() if value is not None}
    return {"slots": slots}


TRITON = {"url": "http://h:8000", "repository": "/models"}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("colour", {"colour": "red"}),
        ("namespace", {"namespace": ""}),
        ("httproute", {"httproute": "shared"}),
        ("path", {"path": "models"}),
        ("path", {"path": 5}),
        ("parents", {"parents": {"name": "edge"}}),
        ("parents/0", {"parents": ["edge"]}),
        ("parents/0/name", {"parents": [{"namespace": "n"}]}),
        ("parents/0/gateway", {"parents": [{"name": "edge", "gateway": "x"}]}),
        ("slots", {"slots": None}),
        ("slots", {"slots": {"a": good()["slots"]["a"]}}),
        ("slots/c", {"slots": good()["slots"] | {"c": {}}}),
        ("slots/b", {"slots": good()["slots"] | {"b": "b"}}),
        ("slots/b/colour", in_slot(colour="red")),
        ("slots/b/service", in_slot(service="shared")),
        ("slots/b/service", in_slot(service="{model}-a")),
        ("slots/b/port", in_slot(port=None)),
        ("slots/b/port", in_slot(port="80")),
        ("slots/b/port", in_slot(port=True)),
        ("slots/b/port", in_slot(port=65536)),
        ("slots/b/mirror", in_slot(mirror="shadow")),
        ("slots/b/mirror/port", in_slot(mirror={"service": "{model}"})),
        ("slots/a/mirror", in_slot(mirror={"service": "{model}", "port": 80})),
        ("slots/b/deployment", in_slot(deployment=None)),
        ("slots/b/deployment", in_slot(triton=TRITON)),
        ("slots/b/deployment", in_slot(deployment="web")),
        ("slots/b/deployment/name", in_slot(deployment={"name": "web", "container": "c"})),
        ("slots/b/deployment/container", in_slot(deployment={"name": "{model}"})),
        (
            "slots/b/deployment/image",
            in_slot(deployment={"name": "{model}", "container": "c", "image": "i:latest"}),
        ),
        ("slots/b/deployment/env", in_slot(deployment={"name": "{model}", "container": "c", "env": []})),
        (
            "slots/b/deployment/env/A",
            in_slot(deployment={"name": "{model}", "container": "c", "env": {"A": 5}}),
        ),
        (
            "slots/b/deployment/replicas",
            in_slot(deployment={"name": "{model}", "container": "c", "replicas": 0}),
        ),
        ("slots/b/triton/url", in_slot(deployment=None, triton={"repository": "/models"})),
        ("slots/b/triton/repository", in_slot(deployment=None, triton=TRITON | {"repository": "models"})),
        ("slots/b/triton/grpc_url", in_slot(deployment=None, triton=TRITON | {"grpc_url": 5})),
    ],
)
def test_a_bad_config_names_its_field(field: str, changes: dict[str, Any]) -> None:
    GatewayApiDriver(good())
    with pytest.raises(ValueError, match=f"^{field}: "):
        GatewayApiDriver(good(**changes))
