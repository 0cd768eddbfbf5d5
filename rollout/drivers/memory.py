"""A fleet in memory: the driver for tests, dry runs and capacity planning. It passes the real drivers' contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rollout.drivers.base import ArmCounts, Bundle, DriverError, RouterCounts, RouteSpec


@dataclass
class MemoryFleet:
    """What the fleet holds, and switches to make it misbehave."""

    loaded: dict[tuple[str, str], Bundle] = field(default_factory=dict)  # (model, slot) → version
    weights: dict[str, dict[str, float]] = field(default_factory=dict)  # model → slot → percent
    mirrors: dict[str, tuple[str, float]] = field(default_factory=dict)  # model → (canary slot, percent)
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # model → slot → [assigned, failed]
    latency: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # (model, slot) → 96 bins
    clock: Callable[[], float] = time.time
    began: float = 0.0
    refuse: str = ""  # a reason: every call fails with it
    for_good: bool = False  # whether `refuse` says that no further attempt will succeed
    refuse_weights: str = ""  # a reason: only new weights are refused
    unready: set[str] = field(default_factory=set)  # slots that never get ready
    capacity: dict[str, float] = field(
        default_factory=dict
    )  # slot → percent of the traffic that it can carry
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def count(
        self, model: str, slot: str, assigned: int, failed: int = 0, latency: Sequence[int] | None = None
    ) -> None:
        """Add requests to a slot's counters, and their latencies (96 bins) where the router is to tell them."""
        arm = self.counts.setdefault(model, {}).setdefault(slot, [0, 0])
        arm[0] += assigned
        arm[1] += failed
        if latency is not None:
            bins = self.latency.setdefault((model, slot), [0] * len(latency))
            self.latency[model, slot] = [one + more for one, more in zip(bins, latency, strict=True)]


class MemoryDriver:
    """Fleets by the name in config["name"]; state lives in this process."""

    fleets: ClassVar[dict[str, MemoryFleet]] = {}

    def __init__(self, config: Mapping[str, Any], fleet: str = "") -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        for name in config:
            if name not in ("name", "server_note", "assignment"):
                raise ValueError(f"{name}: unknown; the memory driver takes a name and an assignment")
        name = config.get("name", "default")
        if not isinstance(name, str):
            raise ValueError("name: text is needed")
        self.fleet = self.fleets.setdefault(name, MemoryFleet())
        self._assignment = config.get("assignment", "request")
        if self._assignment not in ("request", "connection", "key"):
            raise ValueError(f"assignment: {self._assignment!r} is neither request, connection nor key")

    def check(self) -> dict[str, Any]:
        self._called("check")
        return {"loaded": len(self.fleet.loaded)}

    def prepare(self, bundle: Bundle, slot: str) -> None:
        self._called("prepare", bundle.model, bundle.version, slot)
        self.fleet.loaded[(bundle.model, slot)] = bundle

    def ready(self, bundle: Bundle, slot: str) -> bool:
        self._called("ready", bundle.model, bundle.version, slot)
        held = self.fleet.loaded.get((bundle.model, slot))
        wanted = (bundle.version, bundle.digest)
        return held is not None and (held.version, held.digest) == wanted and slot not in self.fleet.unready

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        self._called("set_weight", route.model, f"{percent:g}")
        if not 0 <= percent <= 100:
            raise DriverError(f"weight {percent} is outside 0–100", retry=False)
        if self.fleet.refuse_weights:
            raise DriverError(self.fleet.refuse_weights)
        self.fleet.weights[route.model] = {route.stable_slot: 100 - percent, route.canary_slot: percent}
        if self.fleet.mirrors.get(route.model, ("", 0.0))[0] != route.canary_slot:
            self.fleet.mirrors.pop(route.model, None)  # the roles have swapped

    def observed_weight(self, route: RouteSpec) -> float | None:
        self._called("observed_weight", route.model)
        return self.fleet.weights.get(route.model, {}).get(route.canary_slot)

    def release(self, model: str, slot: str) -> None:
        self._called("release", model, slot)
        self.fleet.loaded.pop((model, slot), None)

    def set_mirror(self, route: RouteSpec, percent: float) -> None:
        self._called("set_mirror", route.model, f"{percent:g}")
        if not 0 <= percent <= 100:
            raise DriverError(f"mirrored share {percent} is outside 0–100", retry=False)
        if route.model not in self.fleet.weights:
            raise DriverError(f"{route.model} has no split yet that could be mirrored")
        self.fleet.mirrors[route.model] = (route.canary_slot, percent)

    def observed_mirror(self, route: RouteSpec) -> float | None:
        self._called("observed_mirror", route.model)
        if route.model not in self.fleet.weights:
            return None
        slot, percent = self.fleet.mirrors.get(route.model, ("", 0.0))
        return percent if slot == route.canary_slot else 0.0

    def capacity_percent(self, route: RouteSpec) -> float:
        self._called("capacity_percent", route.model)
        return self.fleet.capacity.get(route.stable_slot, 100.0)

    def assignment(self) -> str:
        return str(self._assignment)

    def router_counts(self, route: RouteSpec) -> RouterCounts:
        self._called("router_counts", route.model)
        canary, stable = self._arm(route.model, route.canary_slot), self._arm(route.model, route.stable_slot)
        return RouterCounts(self.fleet.clock(), self.fleet.began, canary, stable)

    def _arm(self, model: str, slot: str) -> ArmCounts:
        assigned, failed = self.fleet.counts.get(model, {}).get(slot, [0, 0])
        latency = self.fleet.latency.get((model, slot))
        return ArmCounts(assigned, failed, latency=tuple(latency) if latency else None)

    def _called(self, *call: str) -> None:
        self.fleet.calls.append(call)
        if self.fleet.refuse:
            raise DriverError(self.fleet.refuse, retry=not self.fleet.for_good)
