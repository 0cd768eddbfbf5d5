"""What does Envoy need to serve a fleet's routes? Clusters and route configuration as JSON. PURE.

Per model: `<model>/a` and `<model>/b`, which serve pinned requests and are the other arm's fallback; and for either
role the aggregates `<model>/<role>/a-then-b` and `…/b-then-a`, whose first member `…/own` only that arm uses,
so that its counts belong to one arm. A canary that does not answer is ejected at once; stable never is: its fallback
may be empty. `<model>/shadow/a` and `…/b` serve mirrored requests, which therefore count for no arm.
The canary's entry is last in the weighted list: with a hash policy, raising the weight throws no canary user back.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Json = dict[str, Any]
Role = Literal["canary", "stable"]
Kind = Literal["clusters", "routes"]

ROUTE_CONFIG = "davy"
ROLES: tuple[Role, ...] = ("canary", "stable")
KINDS: tuple[Kind, ...] = ("clusters", "routes")  # in this order: routes only name clusters that are there
TOTAL_WEIGHT = 10_000  # weights in hundredths of a percent
_TYPE = "type.googleapis.com/envoy."
_GRPC_PREFIX = "/inference.GRPCInferenceService/"
_CONNECT_SECONDS = "0.3s"
_MIRROR = "x-davy-mirror"  # the split tells the mirror by it; it is overwritten or removed, so no client can
_SHADOWS_AT_ONCE = 64  # what a hanging shadow may hold of Envoy; more mirrored requests are dropped
_MANY = 1_000_000  # Envoy's default of 3 concurrent retries would turn a dead canary into failed users


@dataclass(frozen=True)
class Server:
    """A slot's model server. `grpc_port` is set when the route speaks gRPC."""

    host: str
    http_port: int
    grpc_port: int | None = None

    @classmethod
    def parse(cls, url: str, grpc_url: str | None = None) -> Server:
        """From `http://host:port` and, for gRPC, `host:port`. Raises ValueError("<url or grpc_url>: …")."""
        scheme, host, port = _address(url)
        if scheme != "http" or not host or not port:
            raise ValueError(f"url: {url!r} is not http://host:port")
        if grpc_url is None:
            return cls(host, port)
        _, grpc_host, grpc_port = _address(f"//{grpc_url}")
        if grpc_host != host or not grpc_port:
            raise ValueError(f"grpc_url: {grpc_url!r} is not host:port on {host}")
        return cls(host, port, grpc_port)


def _address(url: str) -> tuple[str, str | None, int | None]:
    """(scheme, host, port); nothing where it is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:  # a port that is none, a bracket that is not closed
        return "", None, None


@dataclass(frozen=True)
class Split:
    """One model's wanted split; `mirror_percent` of the requests that stable answers are copied to the canary slot."""

    model: str
    stable_slot: str
    percent: float
    mirror_percent: float = 0.0

    @property
    def canary_slot(self) -> str:
        return _other(self.stable_slot)


def arm_cluster(model: str, role: Role, slot: str) -> str:
    """The aggregate that serves the arm in `role` whose own slot is `slot`; it falls back to the other slot."""
    return f"{model}/{role}/{slot}-then-{_other(slot)}"


def own_cluster(model: str, role: Role, slot: str) -> str:
    """The member of `arm_cluster` that is the arm's own slot."""
    return f"{arm_cluster(model, role, slot)}/own"


def shadow_cluster(model: str, slot: str) -> str:
    """Where requests that are mirrored to `slot` go."""
    return f"{model}/shadow/{slot}"


def clusters(model: str, servers: Mapping[str, Server], fallback: bool = True) -> list[Json]:
    """All clusters of one model. Without `fallback` an arm has its own slot only (stock servers)."""
    found = [_server_cluster(f"{model}/{slot}", model, server) for slot, server in sorted(servers.items())]
    for role in ROLES:
        for slot, server in sorted(servers.items()):
            own = _server_cluster(own_cluster(model, role, slot), model, server)
            if role == "canary":
                own["outlier_detection"] = _ejection()
            members = [own["name"]] + ([f"{model}/{_other(slot)}"] if fallback else [])
            found += [own, _aggregate(arm_cluster(model, role, slot), members)]
    for slot, server in sorted(servers.items()):
        shadow = _server_cluster(shadow_cluster(model, slot), model, server)
        found.append(shadow | {"circuit_breakers": _limits(_SHADOWS_AT_ONCE)})
    return [{"@type": _TYPE + "config.cluster.v3.Cluster", **cluster} for cluster in found]


def _other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def _aggregate(name: str, members: list[str]) -> Json:
    config = {"@type": _TYPE + "extensions.clusters.aggregate.v3.ClusterConfig", "clusters": members}
    return {
        "name": name,
        "connect_timeout": _CONNECT_SECONDS,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _limits(_MANY),
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": config},
    }


def _ejection() -> Json:
    """Eject a server that does not answer (timeouts, resets, refused connections) for seconds.

    What it does answer never ejects it, 500 neither: a retry serves that user, and five bad images in a row
    would turn every request of the next seconds into a failed first attempt of the canary.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "interval": "0.5s",
        "base_ejection_time": "3s",
        "max_ejection_percent": 100,
    }


def _limits(most: int) -> Json:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), most)
    return {"thresholds": [limits]}


def _server_cluster(name: str, model: str, server: Server) -> Json:
    port = server.grpc_port or server.http_port
    endpoint: Json = {"address": {"socket_address": {"address": server.host, "port_value": port}}}
    endpoint["health_check_config"] = {"port_value": server.http_port}
    cluster: Json = {
        "name": name,
        "type": "STATIC" if _is_ip(server.host) else "STRICT_DNS",
        "connect_timeout": _CONNECT_SECONDS,
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": _limits(_MANY),
        "track_cluster_stats": {"per_endpoint_stats": True},
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0}
        },  # never send users to an ejected server
        "health_checks": [
            {
                "timeout": "2s",  # a server that is busy is not dead; one that is dead refuses connections
                "interval": "2s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": f"/v2/models/{model}/ready", "codec_client_type": "HTTP1"},
            }
        ],
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    if server.grpc_port is not None:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return cluster


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def routes(
    split: Split, *, protocol: str = "http", timeout_seconds: float = 5.0, sticky: bool = True
) -> list[Json]:
    """One model's routes: pinned to canary, pinned to stable, and the split of everybody else.

    sticky  the header x-davy-key decides the arm where it is given; else the arm is drawn for each request
    """
    match: Json = _match(split.model, protocol)
    canary = round(split.percent * TOTAL_WEIGHT / 100)
    weighted: list[Json] = [
        {"name": arm_cluster(split.model, "stable", split.stable_slot), "weight": TOTAL_WEIGHT - canary},
        {"name": arm_cluster(split.model, "canary", split.canary_slot), "weight": canary},
    ]
    live: Json = {
        "name": f"{split.model}/split",
        "match": match,
        "request_headers_to_add": _headers("live"),
        "route": {
            "timeout": f"{timeout_seconds:g}s",
            "weighted_clusters": {"clusters": weighted},
            "retry_policy": _retries(protocol, timeout_seconds),
        },
    }
    if sticky:
        live["route"]["weighted_clusters"]["use_hash_policy"] = True
        live["route"]["hash_policy"] = [{"header": {"header_name": "x-davy-key"}, "terminal": True}]
    if split.mirror_percent:
        _mirror(split, live["route"])
    pinned = [
        {
            "name": f"{split.model}/pin-{role}",
            "match": match | {"headers": [*match.get("headers", []), _exact("x-davy-pin", role)]},
            "request_headers_to_add": _headers("pinned"),
            "route": {"timeout": f"{timeout_seconds:g}s", "cluster": f"{split.model}/{slot}"},
        }
        for role, slot in (("canary", split.canary_slot), ("stable", split.stable_slot))
    ]
    return [*pinned, live]


def _mirror(split: Split, route: Json) -> None:
    """Copy a share of the requests that stable answers to the canary slot, under a purpose of their own.

    Only stable's: a pair of the canary's answers would tell nothing. So stable's entry of the split names the
    mirror's cluster in a header, which the canary's removes.
    """
    stable, canary = route["weighted_clusters"]["clusters"]
    stable["request_headers_to_add"] = [_header(_MIRROR, shadow_cluster(split.model, split.canary_slot))]
    canary["request_headers_to_remove"] = [_MIRROR]
    share = {"numerator": round(split.mirror_percent * 100), "denominator": "TEN_THOUSAND"}
    route["request_mirror_policies"] = [
        {
            "cluster_header": _MIRROR,
            "runtime_fraction": {"default_value": share},
            "disable_shadow_host_suffix_append": True,
            "request_headers_mutations": [
                {"append": _header("x-davy-purpose", "shadow")},
                {"remove": _MIRROR},
            ],
        }
    ]


def _match(model: str, protocol: str) -> Json:
    """HTTP names the model in the path; gRPC hides it in the message, so there a header names it."""
    if protocol == "grpc":
        return {"prefix": _GRPC_PREFIX, "headers": [_exact("x-davy-model", model)]}
    return {"path_separated_prefix": f"/v2/models/{model}"}


def _exact(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _headers(purpose: str) -> list[Json]:
    """What the model server is told of each request: why it came and when the router received it."""
    return [_header("x-davy-purpose", purpose), _header("x-davy-start", "%START_TIME(%s.%6f)%")]


def _header(key: str, value: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _retries(protocol: str, timeout_seconds: float) -> Json:
    retry_on = "5xx,connect-failure,refused-stream,reset"
    if protocol == "grpc":
        retry_on += ",cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"
    return {
        "retry_on": retry_on,
        "num_retries": 1,
        "per_try_timeout": f"{timeout_seconds / 2:g}s",
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": _TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def route_configuration(routes_by_model: Mapping[str, list[Json]], version: str) -> Json:
    """The whole RDS file."""
    every = [route for _, found in sorted(routes_by_model.items()) for route in found]
    resource = {
        "@type": _TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIG,
        "virtual_hosts": [{"name": "models", "domains": ["*"], "routes": every}],
    }
    return {"version_info": version, "resources": [resource]}


def cluster_discovery(clusters_by_model: Mapping[str, list[Json]], version: str) -> Json:
    """The whole CDS file."""
    return {
        "version_info": version,
        "resources": [c for _, found in sorted(clusters_by_model.items()) for c in found],
    }


def empty(kind: Kind) -> bytes:
    """What an Envoy is told before anything was set: no clusters, and a gateway that answers 404."""
    return _text(kind, {}, "0")


def with_model(old: bytes, kind: Kind, model: str, change: Callable[[list[Json]], list[Json]]) -> bytes:
    """The resource `old` (b"" where there is none) with one model's part changed, under a version of its own.

    The version is a hash of the contents: the same bytes come back when nothing changes.
    Raises ValueError, KeyError or TypeError when `old` is not what Davy wrote.
    """
    by_model = _parts(old, kind)
    by_model[model] = change(by_model.get(model, []))
    contents = json.dumps(by_model, sort_keys=True).encode()
    return _text(kind, by_model, hashlib.sha256(contents).hexdigest()[:16])


def _text(kind: Kind, by_model: Mapping[str, list[Json]], version: str) -> bytes:
    build = cluster_discovery if kind == "clusters" else route_configuration
    return json.dumps(build(by_model, version), indent=1).encode()


def _parts(text: bytes, kind: Kind) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for resource in json.loads(text)["resources"] if text else []:
        if kind == "clusters":
            parts = [resource]
        else:
            parts = [route for host in resource["virtual_hosts"] for route in host["routes"]]
        for part in parts:
            found.setdefault(part["name"].split("/")[0], []).append(part)
    return found


def split_in(routes: list[Json], model: str) -> Split | None:
    """The split among one model's routes; None when there is none."""
    return split_of({"virtual_hosts": [{"routes": routes}]}, model)


def split_of(config: Json, model: str) -> Split | None:
    """Read one model's split back from a route configuration, as Envoy reports it; None when it has none."""
    for host in config.get("virtual_hosts", []):
        for route in host.get("routes", []):
            if route.get("name") == f"{model}/split":
                action = route["route"]
                stable, canary = action["weighted_clusters"]["clusters"]
                slot = stable["name"].removeprefix(f"{model}/stable/")[0]
                percent = canary.get("weight", 0) * 100 / TOTAL_WEIGHT
                return Split(model, slot, percent, _mirrored(action.get("request_mirror_policies", [])))
    return None


def _mirrored(policies: list[Json]) -> float:
    shares = (policy["runtime_fraction"]["default_value"].get("numerator", 0) for policy in policies)
    return float(sum(shares)) / 100
