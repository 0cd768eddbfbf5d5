"""Traffic through Envoys: weights, mirrors and clusters as files that they watch, or as rows that they ask Davy for.

Envoys whose admin interfaces Davy can reach tell what they really do, and count (`EnvoyDriver`). Of others Davy knows
what they report when they ask (`DistantEnvoyDriver`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from rollout.drivers.base import Bundle, DriverError, RouterCounts, RouteSpec
from rollout.drivers.envoy import counts, routes
from rollout.drivers.envoy.admin import Admin
from rollout.drivers.envoy.config import EnvoyConfig
from rollout.drivers.envoy.counts import Counted
from rollout.drivers.envoy.routes import Json, Split
from rollout.drivers.envoy.stores import Change, Files, Rows, Store


class _Envoys(ABC):
    """What both kinds share: what the Envoys are told, and the model servers behind them."""

    def __init__(self, config: EnvoyConfig, store: Store) -> None:
        self.config = config
        self.store = store

    def prepare(self, bundle: Bundle, slot: str) -> None:
        """Load the version; Envoy gets the model's clusters now, so that it has checked them before traffic."""
        self.store.edit(bundle.model, {"clusters": self._clusters(bundle.model)})
        self.config.slots[slot].load(bundle)

    def assignment(self) -> str:
        """The unit of the split, as the routes make it; without the header a request is drawn anew in any case."""
        return self.config.assignment

    def release(self, model: str, slot: str) -> None:
        """Unload the model from the slot's server."""
        self.config.slots[slot].unload(model)

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        """Store the route's split (and its clusters, when they changed) for the Envoys to pick up."""
        if not 0 <= percent <= 100:
            raise DriverError(f"weight {percent} is outside 0–100", retry=False)

        def change(old: list[Json]) -> list[Json]:
            before = routes.split_in(old, route.model)
            same_roles = before is not None and before.stable_slot == route.stable_slot
            mirrored = before.mirror_percent if before is not None and same_roles else 0.0
            return self._routes(Split(route.model, route.stable_slot, percent, mirrored))

        self.store.edit(route.model, {"clusters": self._clusters(route.model), "routes": change})

    def set_mirror(self, route: RouteSpec, percent: float) -> None:
        """Store which share of stable's requests is copied to the canary slot."""
        if not 0 <= percent <= 100:
            raise DriverError(f"mirrored share {percent} is outside 0–100", retry=False)

        def change(old: list[Json]) -> list[Json]:
            before = routes.split_in(old, route.model)
            if before is None:
                raise DriverError(f"{route.model} has no split yet that could be mirrored")
            if before.stable_slot != route.stable_slot:
                raise DriverError(f"{route.model} has not yet the roles whose requests are to be mirrored")
            return self._routes(replace(before, mirror_percent=percent))

        self.store.edit(route.model, {"clusters": self._clusters(route.model), "routes": change})

    def observed_weight(self, route: RouteSpec) -> float | None:
        """The canary slot's share that every Envoy applies; None while they differ."""
        split = self._applied(route.model)
        if split is None:
            return None
        return split.percent if split.stable_slot == route.stable_slot else 100 - split.percent

    def observed_mirror(self, route: RouteSpec) -> float | None:
        """The share that every Envoy copies to the canary slot; None while they differ."""
        split = self._applied(route.model)
        if split is None:
            return None
        return split.mirror_percent if split.stable_slot == route.stable_slot else 0.0

    @abstractmethod
    def _applied(self, model: str) -> Split | None:
        """The split that all Envoys apply; None while they differ. Raises DriverError, where one refuses it."""

    def _clusters(self, model: str) -> Change:
        wanted = routes.clusters(model, self.config.servers, self.config.fallback)
        return lambda _: wanted

    def _routes(self, split: Split) -> list[Json]:
        config = self.config
        return routes.routes(
            split,
            protocol=config.protocol,
            timeout_seconds=config.timeout_seconds,
            sticky=config.assignment == "key",
        )

    def _warnings(self) -> list[str]:
        return [
            f"slots/{name}/grpc_url is not given: loading a version over HTTP stalls the server's other models"
            for name, slot in sorted(self.config.slots.items())
            if slot.repository is not None and slot.grpc_address is None
        ]


class EnvoyDriver(_Envoys):
    """A fleet whose Envoys can be asked and counted at their admin interfaces."""

    def __init__(self, config: Mapping[str, Any], fleet: str = "") -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        parsed = EnvoyConfig.parse(config)
        if not parsed.admin_urls:
            raise ValueError("admin_urls: a list of at least one URL of Envoy's admin interface is needed")
        super().__init__(parsed, Files(parsed.directory) if parsed.directory else Rows(fleet))
        self.admins = [Admin(url) for url in parsed.admin_urls]

    def check(self) -> dict[str, Any]:
        """Read-only: what Envoy and the servers say of themselves. Raises DriverError."""
        found: dict[str, Any] = {"envoys": [admin.version() for admin in self.admins]}
        if self.config.directory is not None:
            found["directory_exists"] = self.config.directory.is_dir()
        return {**found, "warnings": self._warnings()}

    def ready(self, bundle: Bundle, slot: str) -> bool:
        """Whether the server runs this version and every Envoy counts it as healthy, in either role."""
        return self.config.slots[slot].serves(bundle) and all(
            admin.healthy(bundle.model, slot) for admin in self.admins
        )

    def _applied(self, model: str) -> Split | None:
        seen = {self._seen(admin, model) for admin in self.admins}
        return seen.pop() if len(seen) == 1 else None

    def _seen(self, admin: Admin, model: str) -> Split | None:
        found = admin.routes()
        if found is None:
            return None
        version, config = found
        self._check_taken(admin, version)
        return routes.split_of(config, model)

    def _check_taken(self, admin: Admin, applied: str) -> None:
        """Envoy takes what is new in a moment; what it has not taken by then, it has refused."""
        wanted = self.store.wanted("routes")
        if wanted is None or wanted.version == applied:
            return
        if isinstance(self.store, Rows):
            self.store.check_not_refused()
        if wanted.age_seconds > self.store.take_seconds:
            raise DriverError(
                f"Envoy at {admin.url} serves routes {applied}, not {wanted.version} of {wanted.where}: "
                "it refused them (its log says why), or it does not look there"
            )

    def router_counts(self, route: RouteSpec) -> RouterCounts:
        """Both arms, added over the fleet's Envoys: see envoy_counts."""
        at = time.time()
        counted = reduce(Counted.plus, (counts.read(admin, route) for admin in self.admins))
        return RouterCounts(at, at - counted.uptime_seconds, counted.canary, counted.stable)


class DistantEnvoyDriver(_Envoys):
    """A fleet whose Envoys only ask: what they have is what they say when they ask again."""

    store: Rows

    def __init__(self, config: Mapping[str, Any], fleet: str = "") -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        super().__init__(EnvoyConfig.parse(config), Rows(fleet))

    def check(self) -> dict[str, Any]:
        """Read-only: how many Envoys ask, and whether one refuses what it is told. Raises DriverError."""
        self.store.check_not_refused()
        unseen = (
            "no admin_urls: errors are counted by collectors only, and a server's health is not known here"
        )
        return {"asking": self.store.asking(), "warnings": [unseen, *self._warnings()]}

    def ready(self, bundle: Bundle, slot: str) -> bool:
        """Whether the server runs this version and every Envoy knows the model's clusters."""
        wanted = self.store.wanted("clusters")
        known = wanted is not None and self.store.taken("clusters", wanted.version)
        return known and self.config.slots[slot].serves(bundle)

    def _applied(self, model: str) -> Split | None:
        self.store.check_not_refused()
        found = self.store.routes()
        if found is None or not self.store.taken("routes", found[0]):
            return None
        return routes.split_of(found[1], model)


def driver(config: Mapping[str, Any], fleet: str = "") -> EnvoyDriver | DistantEnvoyDriver:
    """The driver of an Envoy fleet. Raises ValueError("<field>: …") for a bad config."""
    asks_only = config.get("discovery") == "rest" and not config.get("admin_urls")
    return DistantEnvoyDriver(config, fleet) if asks_only else EnvoyDriver(config, fleet)
