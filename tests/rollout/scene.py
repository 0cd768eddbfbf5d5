"""A model with versions on a memory fleet, and time that moves only when a test says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from davy import wire

from controlplane.models import Fleet, Model, ModelVersion, Route
from monitoring.models import Reporting, Window
from rollout import commands, tick
from rollout.drivers.memory import MemoryDriver, MemoryFleet
from rollout.models import Rollout
from rollout.phases import TERMINAL

START = datetime(2026, 11, 20, 3, 0, 0, tzinfo=UTC)
RATE = 300  # requests a second on the route
PLAN: dict[str, Any] = {
    "name": "test",
    "steps": [{"weight_percent": 5, "dwell_seconds": 5}, {"weight_percent": 50, "dwell_seconds": 5}],
    "gates": [{"name": "errors", "weight": 1.0}],
    "patience_seconds": 60,
    "watch_seconds": 10,
}


@dataclass
class Behaviour:
    """How a version answers: its share of failed requests, of uncertain ones, and its latency bin's shift."""

    errors: float = 0.0
    uncertain: float = 0.1
    latency_seconds: float = 0.005


@dataclass
class Scene:
    """Everything a test needs to move a rollout through simulated time."""

    name: str
    now: datetime = START
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    collectors: bool = True
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(20261120))

    def __post_init__(self) -> None:
        MemoryDriver.fleets.pop(self.name, None)
        self.model = Model.objects.create(name="products")
        self.fleet = Fleet.objects.create(name=self.name, driver="memory", config={"name": self.name})
        self.memory: MemoryFleet = MemoryDriver({"name": self.name}).fleet
        self.memory.clock = lambda: self.now.timestamp()  # noqa: PLW0108 - `now` moves
        self.memory.began = START.timestamp() - 1000

    def version(self, name: str, behaviour: Behaviour | None = None) -> ModelVersion:
        self.behaviour[name] = behaviour or Behaviour()
        digest = f"{abs(hash(name)):064x}"[:64]
        return ModelVersion.objects.create(
            model=self.model, name=name, artifact_uri=f"mem:{name}", digest=digest
        )

    def start(self, version: ModelVersion, plan: dict[str, Any] | str | None = None) -> Rollout:
        chosen = commands.read_plan(PLAN if plan is None else plan)
        return commands.start(version, self.fleet, chosen, actor="pipeline", now=self.now)[0]

    def live(self, name: str = "v1", behaviour: Behaviour | None = None) -> ModelVersion:
        """The route's first version, live without analysis."""
        version = self.version(name, behaviour)
        rollout = self.start(version)
        self.run(rollout, seconds=10)
        assert self.get(rollout).state == "promoted"
        return version

    def get(self, rollout: Rollout) -> Rollout:
        return commands.find(rollout.pk)

    @property
    def route(self) -> Route:
        return Route.objects.select_related("stable", "canary").get(model=self.model, fleet=self.fleet)

    def run(
        self, rollout: Rollout, seconds: int, *, until: str | None = None, traffic: bool = True
    ) -> Rollout:
        """Tick once a simulated second, with traffic, until the state is reached or the time is up."""
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            if traffic:
                self.traffic()
            tick.tick(rollout.pk, self.now)
            state = self.get(rollout).state
            if state == until or (until is None and state in TERMINAL):
                break
        return self.get(rollout)

    def traffic(self) -> None:
        """One second of requests, split as the fleet is set, counted by the router and by collectors."""
        route = self.route
        split = self.memory.weights.get("products", {})
        for slot in ("a", "b"):
            held = self.memory.loaded.get(("products", slot))
            n = int(self.rng.binomial(RATE, split.get(slot, 0) / 100))
            if held is None or not n:
                continue
            does = self.behaviour[held.version]
            failed = int(self.rng.binomial(n, does.errors))
            self.memory.count("products", slot, n, failed)
            if self.collectors:
                self.window(held.version, n, failed, does)
        del route

    def window(self, name: str, n: int, failed: int, does: Behaviour) -> None:
        """What the collector of `name` reports of the last second."""
        version = ModelVersion.objects.get(model=self.model, name=name)
        confidence, latency = np.zeros(100, np.int64), np.zeros(96, np.int64)
        low = int(self.rng.binomial(n - failed, does.uncertain))
        confidence[45], confidence[95] = low, n - failed - low
        seconds = does.latency_seconds * self.rng.lognormal(0, 0.2, n)
        edges = np.geomspace(1e-4, 1e2, 97)
        np.add.at(latency, np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, 95), 1)
        span: dict[str, Any] = {"start": self.now - timedelta(seconds=1), "end": self.now}
        Reporting.objects.create(version=version, reporters=[uuid5(NAMESPACE_OID, name)], **span)
        Window.objects.create(
            version=version,
            **span,
            n=n,
            errors=failed,
            confidence=wire.pack(confidence),
            latency=wire.pack(latency),
        )
