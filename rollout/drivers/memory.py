"""A fleet in memory: the driver for tests, dry runs and capacity planning. It passes the real drivers' contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rollout.drivers.base import ArmCounts, Bundle, DriverError, RouterCounts, RouteSpec


@dataclass
class MemoryFleet:
    """What the fleet holds, and switches to make it misbehave."""

    loaded: dict[tuple[str, str], Bundle] = field(default_factory=dict)  # (model, slot) → version
    weights: dict[str, dict[str, float]] = field(default_factory=dict)  # model → slot → percent
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # model → slot → [assigned, failed]
    clock: Callable[[], float] = time.time
    began: float = 0.0
    refuse: str = ""  # a reason: every call fails with it
    unready: set[str] = field(default_factory=set)  # slots that never get ready
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def count(self, model: str, slot: str, assigned: int, failed: int = 0) -> None:
        """Add requests to a slot's counters."""
        arm = self.counts.setdefault(model, {}).setdefault(slot, [0, 0])
        arm[0] += assigned
        arm[1] += failed


class MemoryDriver:
    """Fleets by the name in config["name"]; state lives in this process."""

    fleets: ClassVar[dict[str, MemoryFleet]] = {}

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        for name in config:
            if name not in ("name", "server_note"):
                raise ValueError(f"{name}: unknown; the memory driver takes only a name")
        name = config.get("name", "default")
        if not isinstance(name, str):
            raise ValueError("name: text is needed")
        self.fleet = self.fleets.setdefault(name, MemoryFleet())

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
        self.fleet.weights[route.model] = {route.stable_slot: 100 - percent, route.canary_slot: percent}

    def observed_weight(self, route: RouteSpec) -> float | None:
        self._called("observed_weight", route.model)
        return self.fleet.weights.get(route.model, {}).get(route.canary_slot)

    def release(self, model: str, slot: str) -> None:
        self._called("release", model, slot)
        self.fleet.loaded.pop((model, slot), None)

    def router_counts(self, route: RouteSpec) -> RouterCounts:
        self._called("router_counts", route.model)
        slots = self.fleet.counts.get(route.model, {})
        canary, stable = slots.get(route.canary_slot, [0, 0]), slots.get(route.stable_slot, [0, 0])
        return RouterCounts(self.fleet.clock(), self.fleet.began, ArmCounts(*canary), ArmCounts(*stable))

    def _called(self, *call: str) -> None:
        self.fleet.calls.append(call)
        if self.fleet.refuse:
            raise DriverError(self.fleet.refuse)
