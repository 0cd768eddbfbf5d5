"""What Envoy is told: which clusters there are, who belongs to which arm, and how a split reads back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.drivers.envoy import routes as envoy_routes
from rollout.drivers.envoy.routes import TOTAL_WEIGHT, Kind, Server, Split

SERVERS = {"a": Server("127.0.0.1", 8500), "b": Server("triton-b.internal", 8600)}
GRPC = {"a": Server("127.0.0.1", 8500, 8501), "b": Server("127.0.0.1", 8600, 8601)}
SLOTS = st.sampled_from(["a", "b"])


def clusters(servers: dict[str, Server] | None = None, **options: Any) -> dict[str, Any]:
    return {c["name"]: c for c in envoy_routes.clusters("shoes", servers or SERVERS, **options)}


def members(cluster: dict[str, Any]) -> list[str]:
    return list(cluster["cluster_type"]["typed_config"]["clusters"])


def endpoint(cluster: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return found


def live(split: Split, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = envoy_routes.routes(split, **options)[-1]
    return found


def config(*splits: Split) -> dict[str, Any]:
    """The route configuration of these splits, as Envoy would report it."""
    file = envoy_routes.route_configuration({s.model: envoy_routes.routes(s) for s in splits}, "1")
    found: dict[str, Any] = json.loads(json.dumps(file))["resources"][0]
    return found


# Clusters


@pytest.mark.parametrize("role", ["canary", "stable"])
def test_each_arm_has_its_own_slot_first_in_a_cluster_that_no_other_arm_uses(role: str) -> None:
    found = clusters()

    def ports(arm: str) -> list[int]:
        servers = (endpoint(found[name])["address"]["socket_address"] for name in members(found[arm]))
        return [int(server["port_value"]) for server in servers]

    assert members(found[f"shoes/{role}/a-then-b"]) == [f"shoes/{role}/a-then-b/own", "shoes/b"]
    assert ports(f"shoes/{role}/a-then-b") == [8500, 8600]
    assert ports(f"shoes/{role}/b-then-a") == [8600, 8500]


def test_pinned_requests_reach_their_slot_alone_and_no_arm_s_own_cluster() -> None:
    routes = envoy_routes.routes(Split("shoes", "a", 5))
    pinned = {r["name"]: r["route"]["cluster"] for r in routes[:-1]}
    assert pinned == {"shoes/pin-canary": "shoes/b", "shoes/pin-stable": "shoes/a"}


def test_without_a_fallback_an_arm_is_its_own_slot_only() -> None:
    found = clusters(fallback=False)
    assert members(found["shoes/canary/b-then-a"]) == ["shoes/canary/b-then-a/own"]
    assert found.keys() == clusters().keys()


def test_an_unhealthy_server_gets_nothing_and_retries_are_not_rationed() -> None:
    for name, cluster in clusters().items():
        limits = cluster["circuit_breakers"]["thresholds"][0]
        assert min(limits.values()) >= 1_000_000 or name in {"shoes/shadow/a", "shoes/shadow/b"}
        if "cluster_type" not in cluster:
            assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}


def test_only_a_canary_is_ejected() -> None:
    ejecting = {name for name, cluster in clusters().items() if "outlier_detection" in cluster}
    assert ejecting == {"shoes/canary/a-then-b/own", "shoes/canary/b-then-a/own"}


def test_names_are_resolved_and_addresses_are_not() -> None:
    found = clusters()
    assert (found["shoes/a"]["type"], found["shoes/b"]["type"]) == ("STATIC", "STRICT_DNS")


def test_a_grpc_slot_serves_on_one_port_and_is_asked_for_its_health_on_the_other() -> None:
    cluster = clusters(GRPC)["shoes/b"]
    assert endpoint(cluster)["address"]["socket_address"]["port_value"] == 8601
    assert endpoint(cluster)["health_check_config"]["port_value"] == 8600
    (check,) = cluster["health_checks"]
    assert check["http_health_check"] == {"path": "/v2/models/shoes/ready", "codec_client_type": "HTTP1"}
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}


# Routes


@given(SLOTS, st.floats(0, 100))
def test_the_canary_is_last_and_the_weights_add_up(slot: str, percent: float) -> None:
    split = Split("shoes", slot, percent)
    stable, canary = live(split)["route"]["weighted_clusters"]["clusters"]
    assert stable["name"] == f"shoes/stable/{slot}-then-{split.canary_slot}"
    assert canary["name"] == f"shoes/canary/{split.canary_slot}-then-{slot}"
    assert stable["weight"] + canary["weight"] == TOTAL_WEIGHT
    assert canary["weight"] == pytest.approx(percent * 100, abs=0.5)


@given(SLOTS, st.integers(0, TOTAL_WEIGHT))
def test_a_split_reads_back_as_it_was_set(slot: str, hundredths: int) -> None:
    split = Split("shoes", slot, hundredths / 100)
    read = envoy_routes.split_of(config(Split("hats", "a", 1), split), "shoes")
    assert read is not None
    assert (read.stable_slot, read.percent) == (slot, pytest.approx(hundredths / 100))


def test_a_model_without_a_route_has_no_split() -> None:
    assert envoy_routes.split_of(config(Split("shoes-v2", "a", 5)), "shoes") is None
    assert envoy_routes.split_of({}, "shoes") is None


def test_users_are_told_apart_by_their_key() -> None:
    route = live(Split("shoes", "a", 5))["route"]
    assert route["hash_policy"] == [{"header": {"header_name": "x-davy-key"}, "terminal": True}]
    assert route["weighted_clusters"]["use_hash_policy"] is True


def test_a_fleet_that_is_not_sticky_draws_each_request_anew() -> None:
    route = live(Split("shoes", "a", 5), sticky=False)["route"]
    assert "hash_policy" not in route
    assert "use_hash_policy" not in route["weighted_clusters"]


def test_a_failed_attempt_is_repeated_once_elsewhere_within_the_timeout() -> None:
    route = live(Split("shoes", "a", 5), timeout_seconds=4.0)["route"]
    policy = route["retry_policy"]
    assert (route["timeout"], policy["per_try_timeout"], policy["num_retries"]) == ("4s", "2s", 1)
    assert policy["retry_priority"]["name"] == "envoy.retry_priorities.previous_priorities"
    assert "unavailable" not in policy["retry_on"]
    grpc = live(Split("shoes", "a", 5), protocol="grpc")["route"]["retry_policy"]
    assert "unavailable" in grpc["retry_on"]


def test_http_names_the_model_in_the_path_and_grpc_in_a_header() -> None:
    split = Split("shoes", "a", 5)
    assert live(split)["match"] == {"path_separated_prefix": "/v2/models/shoes"}
    match = live(split, protocol="grpc")["match"]
    assert match["prefix"] == "/inference.GRPCInferenceService/"
    assert match["headers"] == [{"name": "x-davy-model", "string_match": {"exact": "shoes"}}]


def test_pins_are_asked_before_the_split_and_the_purpose_is_told() -> None:
    for protocol in ("http", "grpc"):
        canary, stable, everybody = envoy_routes.routes(Split("shoes", "b", 5), protocol=protocol)
        for pinned, role in ((canary, "canary"), (stable, "stable")):
            assert pinned["match"]["headers"][-1] == {
                "name": "x-davy-pin",
                "string_match": {"exact": role},
            }
            assert purpose(pinned) == "pinned"
        assert purpose(everybody) == "live"


def purpose(route: dict[str, Any]) -> str:
    headers = {h["header"]["key"]: h for h in route["request_headers_to_add"]}
    assert {h["append_action"] for h in headers.values()} == {"OVERWRITE_IF_EXISTS_OR_ADD"}
    return str(headers["x-davy-purpose"]["header"]["value"])


# Mirrors


def test_only_what_stable_answers_is_mirrored_to_a_cluster_that_no_arm_uses() -> None:
    canary_pin, stable_pin, split = envoy_routes.routes(Split("shoes", "b", 5, mirror_percent=12.5))
    (policy,) = split["route"]["request_mirror_policies"]
    assert policy["runtime_fraction"]["default_value"] == {"numerator": 1250, "denominator": "TEN_THOUSAND"}
    stable, canary = split["route"]["weighted_clusters"]["clusters"]
    (told,) = stable["request_headers_to_add"]
    assert told["header"] == {"key": policy["cluster_header"], "value": "shoes/shadow/a"}
    assert told["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    assert canary["request_headers_to_remove"] == [policy["cluster_header"]]
    assert "shoes/shadow/a" in clusters()
    for pinned in (canary_pin, stable_pin):
        assert "request_mirror_policies" not in pinned["route"]


def test_a_mirrored_request_says_so_and_keeps_its_host() -> None:
    route = live(Split("shoes", "a", 5, mirror_percent=100))["route"]
    (policy,) = route["request_mirror_policies"]
    purposes = [m["append"]["header"]["value"] for m in policy["request_headers_mutations"] if "append" in m]
    assert purposes == ["shadow"]
    assert {"remove": policy["cluster_header"]} in policy["request_headers_mutations"]
    assert policy["disable_shadow_host_suffix_append"] is True


def test_a_hanging_shadow_holds_little_of_envoy() -> None:
    for slot in ("a", "b"):
        limits = clusters()[f"shoes/shadow/{slot}"]["circuit_breakers"]["thresholds"][0]
        assert max(limits.values()) <= 64


def test_without_a_mirror_nothing_of_it_is_told() -> None:
    assert "mirror" not in json.dumps(envoy_routes.routes(Split("shoes", "a", 5)))


@given(SLOTS, st.integers(0, TOTAL_WEIGHT), st.integers(0, 10_000))
def test_a_mirror_reads_back_as_it_was_set(slot: str, hundredths: int, mirrored: int) -> None:
    split = Split("shoes", slot, hundredths / 100, mirrored / 100)
    read = envoy_routes.split_of(config(Split("hats", "a", 1, 50), split), "shoes")
    assert read is not None
    assert read.mirror_percent == pytest.approx(mirrored / 100)


# One model's part


def test_changing_one_model_leaves_the_others_alone_and_gives_a_new_version() -> None:
    shoes = envoy_routes.with_model(
        b"", "routes", "shoes", lambda _: envoy_routes.routes(Split("shoes", "a", 5))
    )
    both = envoy_routes.with_model(
        shoes, "routes", "hats", lambda _: envoy_routes.routes(Split("hats", "b", 7))
    )
    found = json.loads(both)["resources"][0]
    assert envoy_routes.split_of(found, "shoes") == Split("shoes", "a", 5)
    assert envoy_routes.split_of(found, "hats") == Split("hats", "b", 7)
    assert json.loads(shoes)["version_info"] != json.loads(both)["version_info"]


@pytest.mark.parametrize("kind", envoy_routes.KINDS)
def test_changing_nothing_gives_the_same_bytes(kind: Kind) -> None:
    part = {"routes": envoy_routes.routes(Split("shoes", "a", 5)), "clusters": list(clusters().values())}[
        kind
    ]
    once = envoy_routes.with_model(b"", kind, "shoes", lambda _: part)
    assert envoy_routes.with_model(once, kind, "shoes", lambda old: old) == once


@pytest.mark.parametrize("kind", envoy_routes.KINDS)
def test_before_anything_is_set_there_is_an_empty_answer_to_build_on(kind: Kind) -> None:
    empty = envoy_routes.empty(kind)
    assert json.loads(empty)["version_info"] == "0"
    assert envoy_routes.with_model(empty, kind, "shoes", lambda old: old) != b""


@pytest.mark.parametrize("text", [b"not json", b"[]", b'{"resources": [{}]}', b'{"resources": 5}'])
def test_what_davy_did_not_write_is_not_changed(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        envoy_routes.with_model(text, "routes", "shoes", lambda old: old)


def test_files_do_not_depend_on_the_order_in_which_models_came() -> None:
    routes = {m: envoy_routes.routes(Split(m, "a", 5)) for m in ("shoes", "hats")}
    backwards = dict(reversed(routes.items()))
    assert envoy_routes.route_configuration(routes, "1") == envoy_routes.route_configuration(backwards, "1")


# Servers


def test_a_server_is_where_its_url_says() -> None:
    assert Server.parse("http://10.0.0.7:8500") == Server("10.0.0.7", 8500)
    assert Server.parse("http://[::1]:8500", "[::1]:8501") == Server("::1", 8500, 8501)


@pytest.mark.parametrize(
    ("url", "grpc_url"),
    [
        ("https://h:1", None),
        ("http://h", None),
        ("http://:1", None),
        ("h:1", None),
        ("http://h:99999", None),
        ("http://h:1", "h"),
        ("http://h:1", "other:2"),
        ("http://h:1", "grpc://h:2"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, grpc_url: str | None) -> None:
    with pytest.raises(ValueError, match="^url: " if grpc_url is None else "^grpc_url: "):
        Server.parse(url, grpc_url)
