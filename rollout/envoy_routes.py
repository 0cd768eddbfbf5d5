"""What does Envoy need to serve a fleet's routes? Clusters and route configuration as JSON. PURE.

Per model: `<model>/a` and `<model>/b`, which serve pinned requests and are the other arm's fallback; and for either
role the aggregates `<model>/<role>/a-then-b` and `…/b-then-a`, whose first member `…/own` only that arm uses,
so that its counts belong to one arm. A canary that does not answer is ejected at once; stable never is: its fallback
may be empty.
The canary's entry is last in the weighted list: with a hash policy, raising the weight throws no canary user back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Json = dict[str, Any]
Role = Literal["canary", "stable"]

ROUTE_CONFIG = "davy"
ROLES: tuple[Role, ...] = ("canary", "stable")
TOTAL_WEIGHT = 10_000  # weights in hundredths of a percent
_TYPE = "type.googleapis.com/envoy."
_GRPC_PREFIX = "/inference.GRPCInferenceService/"
_CONNECT_SECONDS = "0.3s"
_MANY = 1_000_000  # Envoy's default of 3 concurrent retries would turn a dead canary into failed users


@dataclass(frozen=True)
class Server:
    """A slot's model server. `grpc_port` is set when the route speaks gRPC."""

    host: str
    http_port: int
    grpc_port: int | None = None

    @classmethod
    def parse(cls, url: str, grpc_url: str | None = None) -> Server:
        """From `http://host:port` and, for gRPC, `host:port`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"{url!r} is not http://host:port")
        if grpc_url is None:
            return cls(parts.hostname, parts.port)
        grpc = urlsplit(f"//{grpc_url}")
        if grpc.hostname != parts.hostname or not grpc.port:
            raise ValueError(f"{grpc_url!r} is not host:port on {parts.hostname}")
        return cls(parts.hostname, parts.port, grpc.port)


@dataclass(frozen=True)
class Split:
    """One model's wanted split."""

    model: str
    stable_slot: str
    percent: float

    @property
    def canary_slot(self) -> str:
        return _other(self.stable_slot)


def arm_cluster(model: str, role: Role, slot: str) -> str:
    """The aggregate that serves the arm in `role` whose own slot is `slot`; it falls back to the other slot."""
    return f"{model}/{role}/{slot}-then-{_other(slot)}"


def own_cluster(model: str, role: Role, slot: str) -> str:
    """The member of `arm_cluster` that is the arm's own slot."""
    return f"{arm_cluster(model, role, slot)}/own"


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
    return [{"@type": _TYPE + "config.cluster.v3.Cluster", **cluster} for cluster in found]


def _other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def _aggregate(name: str, members: list[str]) -> Json:
    config = {"@type": _TYPE + "extensions.clusters.aggregate.v3.ClusterConfig", "clusters": members}
    return {
        "name": name,
        "connect_timeout": _CONNECT_SECONDS,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _no_limits(),
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


def _no_limits() -> Json:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _MANY)
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
        "circuit_breakers": _no_limits(),
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


def routes(split: Split, *, protocol: str = "http", timeout_seconds: float = 5.0) -> list[Json]:
    """One model's routes: pinned to canary, pinned to stable, and the split of everybody else."""
    match: Json = _match(split.model, protocol)
    canary = round(split.percent * TOTAL_WEIGHT / 100)
    weighted = [
        {"name": arm_cluster(split.model, "stable", split.stable_slot), "weight": TOTAL_WEIGHT - canary},
        {"name": arm_cluster(split.model, "canary", split.canary_slot), "weight": canary},
    ]
    live: Json = {
        "name": f"{split.model}/split",
        "match": match,
        "request_headers_to_add": _headers("live"),
        "route": {
            "timeout": f"{timeout_seconds:g}s",
            "weighted_clusters": {"clusters": weighted, "use_hash_policy": True},
            "hash_policy": [{"header": {"header_name": "x-davy-key"}, "terminal": True}],
            "retry_policy": _retries(protocol, timeout_seconds),
        },
    }
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


def _match(model: str, protocol: str) -> Json:
    """HTTP names the model in the path; gRPC hides it in the message, so there a header names it."""
    if protocol == "grpc":
        return {"prefix": _GRPC_PREFIX, "headers": [_exact("x-davy-model", model)]}
    return {"path_separated_prefix": f"/v2/models/{model}"}


def _exact(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _headers(purpose: str) -> list[Json]:
    """What the model server is told of each request: why it came and when the router received it."""
    pairs = {"x-davy-purpose": purpose, "x-davy-start": "%START_TIME(%s.%6f)%"}
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in pairs.items()
    ]


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


def split_of(config: Json, model: str) -> Split | None:
    """Read one model's split back from a route configuration, as Envoy reports it; None when it has none."""
    for host in config.get("virtual_hosts", []):
        for route in host.get("routes", []):
            if route.get("name") == f"{model}/split":
                stable, canary = route["route"]["weighted_clusters"]["clusters"]
                slot = stable["name"].removeprefix(f"{model}/stable/")[0]
                return Split(model, slot, canary.get("weight", 0) * 100 / TOTAL_WEIGHT)
    return None
