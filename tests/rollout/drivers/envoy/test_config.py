"""What an Envoy fleet's config may say, and what an Envoy or a server that is none answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from controlplane import outbound
from rollout.drivers.base import (
    Bundle,
    DriverError,
    RouteSpec,
)
from rollout.drivers.envoy import routes
from rollout.drivers.envoy.driver import EnvoyDriver
from rollout.drivers.envoy.routes import Split


def good_config() -> dict[str, Any]:
    slots = {name: {"url": f"http://127.0.0.1:{port}"} for name, port in (("a", 1), ("b", 2))}
    return {"directory": "/envoy", "admin_urls": ["http://127.0.0.1:3"], "slots": slots}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("directory", {"directory": "relative"}),
        ("directory", {"directory": None}),
        ("directory", {"discovery": "rest"}),
        ("discovery", {"discovery": "gossip"}),
        ("admin_urls", {"admin_urls": []}),
        ("admin_urls", {"admin_urls": "http://127.0.0.1:3"}),
        ("protocol", {"protocol": "smtp"}),
        ("timeout_seconds", {"timeout_seconds": 0}),
        ("timeout_seconds", {"timeout_seconds": math.nan}),
        ("timeout_seconds", {"timeout_seconds": True}),
        ("fallback", {"fallback": "yes"}),
        ("assignment", {"assignment": "planet"}),
        ("slots", {"slots": {}}),
        ("slots", {"slots": {"a": {"url": "http://h:1"}}}),
        ("slots/a/url", {"slots": {"a": {}, "b": {}}}),
        ("slots/a/url", {"slots": {"a": {"url": "http://h:many"}, "b": {"url": "http://h:1"}}}),
        ("slots/a/url", {"slots": {"a": {"url": "https://h"}, "b": {"url": "http://h:1"}}}),
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
            "slots/a/grpc_url",
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


def dump(percent: float) -> outbound.Answer:
    """What an Envoy that applies this weight answers to a question for its routes."""
    found = routes.route_configuration({"m": routes.routes(Split("m", "a", percent))}, "1")
    config = {"version_info": "1", "route_config": found["resources"][0]}
    return outbound.Answer(200, json.dumps({"configs": [config]}).encode())


def test_while_several_envoys_differ_the_weight_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = EnvoyDriver(good_config() | {"admin_urls": ["http://one:1", "http://two:1"]})
    seen = {"http://one:1": 5.0, "http://two:1": 25.0}
    monkeypatch.setattr(outbound, "fleet_get", lambda url, timeout: dump(seen[url.rsplit("/", 1)[0]]))
    assert driver.observed_weight(RouteSpec("m", "a")) is None
    seen["http://two:1"] = 5.0
    assert driver.observed_weight(RouteSpec("m", "a")) == 5.0
