"""Traffic through any gateway of the Kubernetes Gateway API: one HTTPRoute for each model, whose rules are Davy's.

Server-side apply as `davy` owns `spec.rules` (and `spec.parentRefs` where the config has `parents`); labels,
annotations, host names and else the parents stay whoever's they are. Reads and writes are tied by resourceVersion, so
that of two writers the later one reads again. What is observed is what the gateway says that it accepted of the present
generation.

The Gateway API has no counters, no fallback and no sticky users: errors come from collectors, and a dead canary's
share fails until it is rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rollout.drivers.base import Bundle, Driver, DriverError, RouteSpec
from rollout.drivers.kube.api import Cluster, Conflict, Json, path_of
from rollout.drivers.kube.config import WAYS, Access, Naming, known_only, text
from rollout.drivers.kube.deployment import OWNED, DeploymentSlot
from rollout.drivers.kube.httproutes import Service, Split, rules, split_of
from rollout.drivers.triton import TritonSlot

GROUP = "apis/gateway.networking.k8s.io/v1"
SLOTS = ("a", "b")
ATTEMPTS = 3
_PARENT_FIELDS = ("group", "kind", "namespace", "name", "sectionName", "port")
_WRONG = {"Accepted": "False", "ResolvedRefs": "False", "Programmed": "False", "PartiallyInvalid": "True"}


class Loader(Protocol):
    """How a slot gets its version."""

    def load(self, bundle: Bundle) -> None: ...

    def serves(self, bundle: Bundle) -> bool: ...

    def unload(self, model: str) -> None: ...


@dataclass(frozen=True)
class Backend:
    """A Service of each model, by name and port."""

    name: Naming
    port: int

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str) -> Backend:
        """Raises ValueError("<where>/<field>: …")."""
        port = given.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise ValueError(f"{where}/port: a port from 1 to 65535 is needed")
        return cls(Naming.parse(given.get("service"), f"{where}/service"), port)

    def of(self, model: str) -> Service:
        return Service(self.name.of(model), self.port)


@dataclass(frozen=True)
class GatewayApiConfig:
    """A fleet's config: its cluster, how its HTTPRoutes are named, and its two slots."""

    cluster: Cluster
    namespace: str
    httproute: Naming
    parents: tuple[Json, ...]  # () : the HTTPRoute is there, with its parents
    path: str
    backends: Mapping[str, Backend]
    mirrors: Mapping[str, Backend]
    loaders: Mapping[str, Loader]

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> GatewayApiConfig:
        """Read and check a fleet's config. Raises ValueError("<field>: …")."""
        known_only(config, "", {*WAYS, "namespace", "httproute", "parents", "path", "slots"})
        cluster = Cluster(Access.parse(config))
        namespace = text(config.get("namespace"), "namespace")
        httproute = Naming.parse(config.get("httproute"), "httproute")
        path = text(config.get("path", "/v2/models/{model}"), "path")
        if not path.startswith("/"):
            raise ValueError("path: a path that begins with / is needed")
        slots = known_only(config.get("slots"), "slots", SLOTS)
        if set(slots) != set(SLOTS):
            raise ValueError("slots: exactly the slots a and b are needed")
        backends, mirrors, loaders = {}, {}, {}
        for name in SLOTS:
            where = f"slots/{name}"
            slot = known_only(slots[name], where, {"service", "port", "mirror", "deployment", "triton"})
            backends[name] = Backend.parse(slot, where)
            if "mirror" in slot:
                mirror = known_only(slot["mirror"], f"{where}/mirror", {"service", "port"})
                mirrors[name] = Backend.parse(mirror, f"{where}/mirror")
            loaders[name] = _loader(slot, where, cluster, namespace)
        a, b = (replace(backends[name], name=replace(backends[name].name, where="")) for name in SLOTS)
        if a == b:
            raise ValueError("slots/b/service: is slot a's too; each slot needs its own")
        if len(mirrors) == 1:
            missing = next(iter(set(SLOTS) - set(mirrors)))
            raise ValueError(f"slots/{missing}/mirror: is needed, because the other slot has one")
        parents = _parents(config.get("parents", []))
        return cls(cluster, namespace, httproute, parents, path, backends, mirrors, loaders)


def _loader(slot: Mapping[str, Any], where: str, cluster: Cluster, namespace: str) -> Loader:
    if ("deployment" in slot) == ("triton" in slot):
        raise ValueError(f"{where}/deployment: either a deployment or a triton is needed")
    if "deployment" in slot:
        return DeploymentSlot.parse(slot["deployment"], f"{where}/deployment", cluster, namespace)
    triton = known_only(slot["triton"], f"{where}/triton", {"url", "grpc_url", "repository"})
    for name in ("url", "repository"):
        text(triton.get(name), f"{where}/triton/{name}")
    if not Path(triton["repository"]).is_absolute():
        raise ValueError(f"{where}/triton/repository: the absolute path of the slot's model folder is needed")
    if "grpc_url" in triton:
        text(triton["grpc_url"], f"{where}/triton/grpc_url")
    return TritonSlot(triton["url"].rstrip("/"), Path(triton["repository"]), triton.get("grpc_url"))


def _parents(raw: object) -> tuple[Json, ...]:
    if not isinstance(raw, list):
        raise ValueError("parents: a list of the HTTPRoute's parentRefs is needed")
    for place, parent in enumerate(raw):
        given = known_only(parent, f"parents/{place}", _PARENT_FIELDS)
        text(given.get("name"), f"parents/{place}/name")
    return tuple(raw)


class GatewayApiDriver:
    """One fleet behind a gateway of its cluster."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        self.config = GatewayApiConfig.parse(config)

    def assignment(self) -> str:
        """Weights draw every request anew."""
        return "request"

    def check(self) -> dict[str, Any]:
        """Read-only: who the API server is, and which fields of the fleet's objects are Davy's. Raises DriverError."""
        config = self.config
        version = config.cluster.version()
        routes = config.cluster.get(path_of(GROUP, config.namespace, "httproutes"))
        deployments = [loader for loader in config.loaders.values() if isinstance(loader, DeploymentSlot)]
        owned = ["HTTPRoute spec.rules", *(["HTTPRoute spec.parentRefs"] if config.parents else [])]
        return {
            "kubernetes": version,
            "httproutes": len((routes or {}).get("items", [])),
            "owned_fields": [*owned, *(OWNED if deployments else ())],
        }

    def prepare(self, bundle: Bundle, slot: str) -> None:
        self.config.loaders[slot].load(bundle)

    def ready(self, bundle: Bundle, slot: str) -> bool:
        return self.config.loaders[slot].serves(bundle)

    def release(self, model: str, slot: str) -> None:
        self.config.loaders[slot].unload(model)

    def capacity_percent(self, route: RouteSpec) -> float:
        """What stable's Deployment can carry; a Triton does not say."""
        loader = self.config.loaders[route.stable_slot]
        return loader.capacity_percent(route.model) if isinstance(loader, DeploymentSlot) else 100.0

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        """Apply the model's rules with this split; mirroring to the canary slot goes on."""
        if not 0 <= percent <= 100:
            raise DriverError(f"weight {percent} is outside 0–100", retry=False)
        self._change(
            route,
            lambda now: Split(route.stable_slot, percent, now.mirror_percent if now is not None else 0.0),
        )

    def observed_weight(self, route: RouteSpec) -> float | None:
        """The canary slot's share in the rules that every gateway has accepted; None while one has not."""
        split = self._accepted(route)
        return None if split is None else split.percent

    def _path(self, model: str) -> tuple[str, str]:
        name = self.config.httproute.of(model)
        return name, path_of(GROUP, self.config.namespace, "httproutes", name)

    def _read(self, route: RouteSpec) -> tuple[Json | None, Split | None]:
        found = self.config.cluster.get(self._path(route.model)[1])
        if found is None:
            return None, None
        services, mirrors = (
            _named(self.config.backends, route.model),
            _named(self.config.mirrors, route.model),
        )
        return found, split_of(found["spec"].get("rules") or [], route.stable_slot, services, mirrors)

    def _change(self, route: RouteSpec, wanted: Callable[[Split | None], Split]) -> None:
        """Read the split, and apply the one that is wanted instead; again when somebody else wrote in between."""
        name, path = self._path(route.model)
        for attempt in range(1, ATTEMPTS + 1):
            found, split = self._read(route)
            if found is None and not self.config.parents:
                where = f"{self.config.namespace}/{name}"
                raise DriverError(f"there is no HTTPRoute {where}: make one, or give `parents`", retry=False)
            try:
                self.config.cluster.apply(path, self._owned(route.model, name, wanted(split), found))
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _owned(self, model: str, name: str, split: Split, found: Json | None) -> Json:
        """What of the HTTPRoute is Davy's, for the version of it that was read."""
        config = self.config
        metadata = {"name": name, "namespace": config.namespace}
        if found is not None:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        path = config.path.replace("{model}", model)
        spec: Json = {
            "rules": rules(split, path, _named(config.backends, model), _named(config.mirrors, model))
        }
        if config.parents:
            spec["parentRefs"] = list(config.parents)
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": metadata,
            "spec": spec,
        }

    def _accepted(self, route: RouteSpec) -> Split | None:
        found, split = self._read(route)
        if found is None or split is None:
            return None
        parents = found["spec"].get("parentRefs") or []
        told = found.get("status", {}).get("parents") or []
        said = [
            [entry for entry in told if _same_parent(entry["parentRef"], parent, found)] for parent in parents
        ]
        settled = [_settled(entry, found["metadata"]["generation"]) for entries in said for entry in entries]
        return split if parents and all(said) and all(settled) else None


class MirroringGatewayApiDriver(GatewayApiDriver):
    """A fleet whose slots name a Service for copies, which tells the slot's server that their purpose is `shadow`.

    The Gateway API cannot: a copy has its request's headers. Copies are taken of every live request of the model.
    """

    def set_mirror(self, route: RouteSpec, percent: float) -> None:
        """Ask that `percent` of the model's live requests are copied to the canary slot."""
        if not 0 <= percent <= 100:
            raise DriverError(f"mirrored share {percent} is outside 0–100", retry=False)

        def mirrored(now: Split | None) -> Split:
            if now is None:
                raise DriverError(f"{route.model} has no split yet that could be mirrored")
            return Split(now.stable_slot, now.percent, percent)

        self._change(route, mirrored)

    def observed_mirror(self, route: RouteSpec) -> float | None:
        """The share that every gateway has accepted; None while one has not."""
        split = self._accepted(route)
        return None if split is None else split.mirror_percent


def driver(config: Mapping[str, Any], fleet: str = "") -> Driver:
    """The driver of a fleet: it mirrors where its slots say how. Raises ValueError("<field>: …")."""
    made = GatewayApiDriver(config)
    return MirroringGatewayApiDriver(config) if made.config.mirrors else made


def _named(backends: Mapping[str, Backend], model: str) -> dict[str, Service]:
    return {slot: backend.of(model) for slot, backend in backends.items()}


def _same_parent(said: Json, wanted: Json, route: Json) -> bool:
    defaults = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": route["metadata"]["namespace"],
    }
    return all((defaults | said).get(key) == (defaults | wanted).get(key) for key in _PARENT_FIELDS)


def _settled(entry: Json, generation: int) -> bool:
    """Whether a gateway has accepted this generation. Raises DriverError with its reason when it has refused."""
    current = {c["type"]: c for c in entry["conditions"] if c.get("observedGeneration") == generation}
    for kind, wrong in _WRONG.items():
        condition = current.get(kind)
        if condition is not None and condition["status"] == wrong:
            gateway = entry["parentRef"]["name"]
            said = f"{kind} is {wrong}, {condition['reason']}: {condition['message']}"
            raise DriverError(f"gateway {gateway} refused the HTTPRoute: {said}"[:400])
    good = ("Accepted", "ResolvedRefs", "Programmed")
    older = any(c["type"] in good and c["type"] not in current for c in entry["conditions"])
    accepted = current.get("Accepted", {}).get("status") == "True"
    return (
        accepted and not older and all(current[kind]["status"] == "True" for kind in good if kind in current)
    )
