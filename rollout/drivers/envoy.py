"""Traffic through Envoy: weights and clusters by watched files (RDS, CDS), counts from its admin interface.

Files are read, changed and replaced under a lock in their directory, so several workers may move several routes;
Envoy sees a change within milliseconds, and after a restart it serves the last files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from controlplane import outbound
from rollout import envoy_routes
from rollout.drivers.base import ArmCounts, Bundle, DriverError, RouterCounts, RouteSpec
from rollout.envoy_routes import Json, Server, Split
from rollout.triton import TritonSlot

ASK_SECONDS = 2.0
TAKE_SECONDS = 2.0
SLOTS = ("a", "b")
CLUSTERS, ROUTES = "clusters.json", "routes.json"


@dataclass(frozen=True)
class EnvoyConfig:
    """A fleet's config: where Envoy watches, where it answers, and the two slots."""

    directory: Path
    admin_urls: tuple[str, ...]
    protocol: str
    fallback: bool
    timeout_seconds: float
    servers: Mapping[str, Server]
    slots: Mapping[str, TritonSlot]

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> EnvoyConfig:
        """Read and check a fleet's config. Raises ValueError("<field>: …")."""
        known = {"directory", "admin_urls", "protocol", "fallback", "timeout_seconds", "slots", "server_note"}
        for name in config:
            if name not in known:
                raise ValueError(f"{name}: unknown; known are {', '.join(sorted(known))}")
        directory = config.get("directory")
        if not isinstance(directory, str) or not Path(directory).is_absolute():
            raise ValueError("directory: the absolute path of the folder that Envoy watches is needed")
        admin_urls = config.get("admin_urls")
        if (
            not isinstance(admin_urls, list)
            or not admin_urls
            or not all(isinstance(u, str) for u in admin_urls)
        ):
            raise ValueError("admin_urls: a list of at least one URL of Envoy's admin interface is needed")
        protocol = config.get("protocol", "http")
        if protocol not in ("http", "grpc"):
            raise ValueError(f"protocol: {protocol!r} is neither http nor grpc")
        timeout = config.get("timeout_seconds", 5.0)
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0.1 <= timeout <= 300:
            raise ValueError("timeout_seconds: a number from 0.1 to 300 is needed")
        servers, slots = _parse_slots(config.get("slots"), protocol)
        fallback = config.get("fallback", True)
        if not isinstance(fallback, bool):
            raise ValueError("fallback: true or false is needed")
        urls = tuple(url.rstrip("/") for url in admin_urls)
        return cls(Path(directory), urls, protocol, fallback, float(timeout), servers, slots)


def _parse_slots(slots: object, protocol: str) -> tuple[dict[str, Server], dict[str, TritonSlot]]:
    if not isinstance(slots, dict) or set(slots) != set(SLOTS):
        raise ValueError("slots: exactly the slots a and b are needed")
    servers, loaders = {}, {}
    for name in SLOTS:
        slot = slots[name]
        if not isinstance(slot, dict) or not isinstance(slot.get("url"), str):
            raise ValueError(f"slots/{name}/url: http://host:port of the slot's model server is needed")
        if protocol == "grpc" and not isinstance(slot.get("grpc_url"), str):
            raise ValueError(f"slots/{name}/grpc_url: host:port is needed with protocol grpc")
        try:
            server = Server.parse(slot["url"], slot.get("grpc_url"))
        except ValueError as err:
            raise ValueError(f"slots/{name}: {err}") from None
        servers[name] = server if protocol == "grpc" else replace(server, grpc_port=None)
        repository = slot.get("repository")
        if repository is not None and not (isinstance(repository, str) and Path(repository).is_absolute()):
            raise ValueError(
                f"slots/{name}/repository: the absolute path of the slot's model folder is needed"
            )
        loaders[name] = TritonSlot(
            slot["url"].rstrip("/"), Path(repository) if repository else None, slot.get("grpc_url")
        )
    return servers, loaders


class EnvoyDriver:
    """One fleet behind one or more Envoys that watch the same files."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        self.config = EnvoyConfig.parse(config)

    def check(self) -> dict[str, Any]:
        """Read-only: what Envoy and the servers say of themselves. Raises DriverError."""
        envoys = [self._admin_json(url, "/server_info").get("version") for url in self.config.admin_urls]
        loads_over_http = [
            f"slots/{name}/grpc_url is not given: loading a version over HTTP stalls the server's other models"
            for name, slot in sorted(self.config.slots.items())
            if slot.repository is not None and slot.grpc_address is None
        ]
        exists = self.config.directory.is_dir()
        return {"envoys": envoys, "directory_exists": exists, "warnings": loads_over_http}

    def prepare(self, bundle: Bundle, slot: str) -> None:
        """Load the version; Envoy gets the model's clusters now, so that it has checked them before traffic."""
        with self._files():
            self._replace_clusters(bundle.model)
        self.config.slots[slot].load(bundle)

    def ready(self, bundle: Bundle, slot: str) -> bool:
        """Whether the server runs this version and every Envoy counts it as healthy, in either role."""
        return self.config.slots[slot].serves(bundle) and all(
            self._healthy(url, bundle.model, slot) for url in self.config.admin_urls
        )

    def _healthy(self, url: str, model: str, slot: str) -> bool:
        own = [envoy_routes.own_cluster(model, role, slot) for role in envoy_routes.ROLES]
        wanted = rf"^cluster\.({'|'.join(map(re.escape, own))})\.membership_healthy$"
        healthy = self._stats(url, wanted)
        return len(healthy) == len(own) and min(healthy.values()) > 0

    def release(self, model: str, slot: str) -> None:
        self.config.slots[slot].unload(model)

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        """Write the route's split (and its clusters, when they changed) for Envoy to pick up."""
        if not 0 <= percent <= 100:
            raise DriverError(f"weight {percent} is outside 0–100", retry=False)
        split = Split(route.model, route.stable_slot, percent)
        config = self.config
        routes = envoy_routes.routes(split, protocol=config.protocol, timeout_seconds=config.timeout_seconds)
        with self._files():
            self._replace_clusters(route.model)
            self._replace(ROUTES, route.model, routes, _routes_by_model, envoy_routes.route_configuration)

    def _replace_clusters(self, model: str) -> None:
        clusters = envoy_routes.clusters(model, self.config.servers, self.config.fallback)
        self._replace(CLUSTERS, model, clusters, _clusters_by_model, envoy_routes.cluster_discovery)

    def observed_weight(self, route: RouteSpec) -> float | None:
        """The canary slot's share in the configuration that every Envoy reports; None while they differ."""
        seen = {self._observed(url, route) for url in self.config.admin_urls}
        return seen.pop() if len(seen) == 1 else None

    def _observed(self, url: str, route: RouteSpec) -> float | None:
        dump = self._admin_json(url, "/config_dump?resource=dynamic_route_configs")
        for entry in dump.get("configs", []):
            config = entry.get("route_config", {})
            if config.get("name") == envoy_routes.ROUTE_CONFIG:
                self._check_taken(url, entry.get("version_info", ""))
                split = envoy_routes.split_of(config, route.model)
                if split is None:
                    return None
                return split.percent if split.stable_slot == route.stable_slot else 100 - split.percent
        return None

    def _check_taken(self, url: str, applied: str) -> None:
        """Envoy takes a file within milliseconds; one that it has not taken by then, it has refused."""
        file = self.config.directory / ROUTES
        try:
            seconds = time.time() - file.stat().st_mtime
            wanted = json.loads(file.read_bytes())["version_info"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise DriverError(f"{file} cannot be read: {err!r}") from err
        if wanted != applied and seconds > TAKE_SECONDS:
            raise DriverError(
                f"Envoy at {url} serves routes {applied}, not {wanted} of {file}: "
                "it refused them (its log says why), or it watches another folder"
            )

    def router_counts(self, route: RouteSpec) -> RouterCounts:
        """Assigned requests and failed first attempts of both arms, added over the fleet's Envoys.

        A first attempt is good when the arm's own server answered it well (`rq_success` of the endpoint in the
        cluster that only this arm uses); everything else that the split assigned failed: 5xx, timeouts, resets,
        closed ports, and what went straight to the fallback because the server was ejected.
        Envoy reads the clusters' counters before the endpoints', and requests complete in between: within one
        reading they look good and not assigned, from the first to the second one assigned and not good.
        """
        model = re.escape(route.model)
        completed = rf"cluster\.{model}/(canary|stable)/.-then-.\.external\.upstream_rq_completed"
        answered = rf"cluster\.{model}/(canary|stable)/.-then-./own\.endpoint\..*\.rq_success"
        wanted = rf"^(server\.uptime|{completed}|{answered})$"
        at, began = time.time(), 0.0
        canary = stable = ArmCounts(0, 0)
        for url in self.config.admin_urls:
            first, second = self._stats(url, wanted), self._stats(url, wanted)
            began = max(began, at - second.get("server.uptime", 0))
            canary = _added(canary, _arm(first, second, route.model, route.canary_slot))
            stable = _added(stable, _arm(first, second, route.model, route.stable_slot))
        return RouterCounts(at, began, canary, stable)

    def _stats(self, url: str, regex: str) -> dict[str, int]:
        lines = self._admin(url, "/stats", {"filter": regex}).splitlines()
        pairs = (line.rsplit(": ", 1) for line in lines if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}

    def _admin_json(self, url: str, path: str) -> Json:
        text = self._admin(url, path)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DriverError(f"{url} is not Envoy's admin interface: {path} answered {text[:100]!r}")
        return found

    def _admin(self, url: str, path: str, query: Mapping[str, str] | None = None) -> str:
        try:
            answer = outbound.fleet_get(url + path + (f"?{urlencode(query)}" if query else ""), ASK_SECONDS)
        except outbound.OutboundError as err:
            raise DriverError(f"Envoy's admin interface at {url} does not answer: {err}") from err
        if answer.status != 200:
            raise DriverError(
                f"Envoy's admin interface at {url}{path} answered {answer.status}: {answer.text[:200]}"
            )
        return answer.text

    @contextmanager
    def _files(self) -> Iterator[None]:
        """The directory's lock; its file stays, for removing it would let two holders in. Raises DriverError."""
        directory = self.config.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as err:
            raise DriverError(f"cannot write Envoy's files in {directory}: {err}") from err

    def _replace(self, name: str, model: str, part: list[Json], read: Any, build: Any) -> None:
        """Change one model's part of a file; Envoy watches the directory and takes atomic renames only."""
        path = self.config.directory / name
        old = path.read_bytes() if path.exists() else b""
        try:
            by_model = read(json.loads(old)) if old else {}
        except (ValueError, KeyError, TypeError) as err:
            raise DriverError(
                f"{path} is not what Davy wrote ({err!r}); put back what Envoy's /config_dump shows",
                retry=False,
            ) from err
        by_model[model] = part
        version = hashlib.sha256(json.dumps(by_model, sort_keys=True).encode()).hexdigest()[:16]
        new = json.dumps(build(by_model, version), indent=1).encode()
        if new == old:
            return
        incoming = path.with_name(f".{name}.{os.getpid()}")
        with incoming.open("wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        incoming.rename(path)


def _arm(first: Mapping[str, int], second: Mapping[str, int], model: str, slot: str) -> ArmCounts:
    """One slot's counts, in either role, at the second of two readings of one Envoy."""
    arms = [f"cluster.{envoy_routes.arm_cluster(model, role, slot)}" for role in envoy_routes.ROLES]
    assigned = tuple(f"{arm}.external.upstream_rq_completed" for arm in arms)
    answered = tuple(f"{arm}/own.endpoint." for arm in arms)
    n, good = ([_sum(reading, names) for reading in (first, second)] for names in (assigned, answered))
    failed = max(0, n[0] - good[0], n[1] - good[1])
    return ArmCounts(n[1], failed, max(0, n[1] - good[0] - failed))


def _sum(reading: Mapping[str, int], beginnings: tuple[str, ...]) -> int:
    return sum(count for name, count in reading.items() if name.startswith(beginnings))


def _added(one: ArmCounts, other: ArmCounts) -> ArmCounts:
    return ArmCounts(one.assigned + other.assigned, one.failed + other.failed, one.unsure + other.unsure)


def _clusters_by_model(file: Json) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for cluster in file["resources"]:
        found.setdefault(cluster["name"].split("/")[0], []).append(cluster)
    return found


def _routes_by_model(file: Json) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for resource in file["resources"]:
        for host in resource["virtual_hosts"]:
            for route in host["routes"]:
                found.setdefault(route["name"].split("/")[0], []).append(route)
    return found
