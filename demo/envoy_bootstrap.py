"""How is Envoy set up before any route exists? One gateway; routes and clusters come from watched files, or from Davy.

The Envoy driver replaces `routes.json` (RDS) and `clusters.json` (CDS) by atomic renames within the folder;
Envoy follows the folder's moves, so a change takes effect within milliseconds and outlives a restart.
An Envoy on another machine asks Davy instead (REST, held until there is news): see `distant`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROUTE_CONFIG = "davy"
STAT_PREFIX = "davy"
NODE_ID = "davy-local"
DAVY = "davy"  # Envoy's cluster for Davy itself
BUCKETS_PER_DECADE = 16
SLOWEST_MS = 60_000
TYPES = "type.googleapis.com/"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"


def latency_buckets_ms() -> list[int]:
    """Upper edges of Envoy's request time histograms: whole milliseconds, 16 to the decade, 1 ms to 60 s.

    Envoy measures whole milliseconds: below 10 ms every value has an edge; above, neighbours differ by 15 %.
    """
    edges = {round(10 ** (step / BUCKETS_PER_DECADE)) for step in range(BUCKETS_PER_DECADE * 5)}
    return sorted(edge for edge in edges | set(range(1, 10)) if edge <= SLOWEST_MS)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _watched(folder: Path, name: str) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
    }


def _asked(refresh_seconds: float) -> dict[str, Any]:
    """Ask Davy again so long after each answer; Davy holds a request for up to 20 s."""
    source = {
        "api_type": "REST",
        "transport_api_version": "V3",
        "cluster_names": [DAVY],
        "refresh_delay": f"{refresh_seconds:g}s",
        "request_timeout": "30s",
    }
    return {"resource_api_version": "V3", "api_config_source": source}


def _gateway(port: int, routes: dict[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": TYPES + MANAGER,
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "generate_request_id": True,
        "rds": {"route_config_name": ROUTE_CONFIG, "config_source": routes},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": TYPES + ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": "gateway", "address": _address(port), "filter_chains": [{"filters": filters}]}


def bootstrap(*, gateway_port: int, admin_port: int, folder: Path) -> dict[str, Any]:
    """Envoy's bootstrap (proto3 JSON).

    folder   where routes.json and clusters.json lie; watched for renames
    """
    return {
        "node": {"id": NODE_ID, "cluster": "davy"},
        "admin": {"address": _address(admin_port)},
        **_statistics(),
        "dynamic_resources": {"cds_config": _watched(folder, "clusters.json")},
        "static_resources": {"listeners": [_gateway(gateway_port, _watched(folder, "routes.json"))]},
    }


def distant(
    *,
    gateway_port: int,
    admin_port: int,
    davy: tuple[str, int],
    fleet: str,
    token: str,
    node_id: str,
    refresh_seconds: float = 0.5,
) -> dict[str, Any]:
    """The bootstrap of an Envoy that asks Davy at `davy` (host, port), in plain HTTP, for the fleet's configuration.

    token    one of scope `envoy` for this fleet; Envoy's admin interface shows it, so keep that private
    node_id  different for each Envoy of the fleet
    """
    host, port = davy
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    cluster = {
        "name": DAVY,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": DAVY, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    source = _asked(refresh_seconds)
    return {
        "node": {"id": node_id, "cluster": fleet, "metadata": {"fleet": fleet, "token": token}},
        "admin": {"address": _address(admin_port)},
        **_statistics(),
        "dynamic_resources": {"cds_config": source},
        "static_resources": {"listeners": [_gateway(gateway_port, source)], "clusters": [cluster]},
    }


def _statistics() -> dict[str, Any]:
    """Histograms that are told every second, in buckets fine enough for people to read."""
    buckets = {"match": {"suffix": "upstream_rq_time"}, "buckets": latency_buckets_ms()}
    return {"stats_flush_interval": "1s", "stats_config": {"histogram_bucket_settings": [buckets]}}


def empty_routes() -> dict[str, Any]:
    """A routes.json without a route: the gateway answers 404."""
    kind = TYPES + "envoy.config.route.v3.RouteConfiguration"
    return {"version_info": "0", "resources": [{"@type": kind, "name": ROUTE_CONFIG, "virtual_hosts": []}]}


def empty_clusters() -> dict[str, Any]:
    """A clusters.json without a cluster."""
    return {"version_info": "0", "resources": []}


def move_servers(folder: Path, moved: Mapping[int, int]) -> None:
    """Point the clusters in `folder` to the ports that their servers moved to (old number to new).

    Else Envoy would send to whoever took the old port until Davy writes the clusters again.
    """
    path = folder / "clusters.json"
    if not moved or not path.exists():
        return
    fresh = path.with_name(".clusters.json.moved")
    fresh.write_text(json.dumps(_moved(json.loads(path.read_text()), moved), indent=1))
    fresh.rename(path)


def _moved(part: Any, moved: Mapping[int, int]) -> Any:
    match part:
        case {"port_value": int(port), **others}:
            return {**others, "port_value": moved.get(port, port)}
        case dict():
            return {name: _moved(value, moved) for name, value in part.items()}
        case list():
            return [_moved(value, moved) for value in part]
    return part


def write(path: Path, *, gateway_port: int, admin_port: int, folder: Path) -> None:
    """Write the bootstrap to `path`, and empty routes and clusters where `folder` has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("routes.json", empty_routes()), ("clusters.json", empty_clusters())):
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(content, indent=1))
    config = bootstrap(gateway_port=gateway_port, admin_port=admin_port, folder=folder)
    path.write_text(json.dumps(config, indent=1))
