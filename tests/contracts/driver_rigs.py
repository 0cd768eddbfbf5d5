"""The fleets on which the driver contract is played: in memory, behind an Envoy with files, behind one that asks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from controlplane.models import Fleet
from demo import fleet_venv, places
from rollout.drivers.base import Driver, RouteSpec
from rollout.drivers.envoy.driver import EnvoyDriver
from rollout.drivers.memory import MemoryDriver
from tests.ports import free_ports
from tests.rollout import distant
from tests.rollout.distant import DistantEnvoy
from tests.rollout.gateway import Gateway, Served, eventually

MODEL = "contract"


class Rig(Protocol):
    """A driver with a fleet behind it that can be used and taken away."""

    driver: Driver
    model: str
    takes_fractions: bool  # of a percent

    def act(self) -> None:
        """Let the fleet's controllers act, where the rig plays them."""
        ...

    def settled(self, route: RouteSpec, percent: float) -> bool:
        """Whether the fleet applies the weight, after the little time that it may take."""
        ...

    def send(self, count: int, *, failing: bool = False) -> None:
        """So many live requests; with `failing` the servers of the canary fail them."""
        ...

    def lost(self) -> Driver:
        """The same driver for a fleet that does not answer."""
        ...


class MemoryRig:
    takes_fractions = True

    def __init__(self) -> None:
        MemoryDriver.fleets.pop(MODEL, None)
        self.model = MODEL
        self.driver = MemoryDriver({"name": MODEL})

    def act(self) -> None:
        pass

    def settled(self, route: RouteSpec, percent: float) -> bool:
        return self.driver.observed_weight(route) == percent

    def send(self, count: int, *, failing: bool = False) -> None:
        for slot, percent in self.driver.fleet.weights[MODEL].items():
            n = round(count * percent / 100)
            self.driver.fleet.count(MODEL, slot, n, n if failing and slot == "b" else 0)

    def lost(self) -> Driver:
        self.driver.fleet.refuse = "away"
        return self.driver


class EnvoyRig:
    takes_fractions = True

    def __init__(self, gateway: Gateway, servers: dict[str, Any], model: str) -> None:
        self.gateway, self.servers, self.model = gateway, servers, model
        self.driver = EnvoyDriver(gateway.config(servers))

    def act(self) -> None:
        pass

    def settled(self, route: RouteSpec, percent: float) -> bool:
        eventually(lambda: self.driver.observed_weight(route) is not None)
        return math.isclose(self.driver.observed_weight(route) or 0, percent)

    def send(self, count: int, *, failing: bool = False) -> None:
        self.servers["b"].answers[self.model] = lambda _: 500 if failing else 200
        Served(self.gateway, self.driver, self.model).users(count)

    def lost(self) -> Driver:
        slots, admin = free_ports(2), free_ports(1)[0]
        config = self.gateway.config(self.servers, admin_urls=[f"http://127.0.0.1:{admin}"])
        for slot, port in zip(config["slots"].values(), slots, strict=True):
            slot["url"] = f"http://127.0.0.1:{port}"
        config["directory"] = str(self.gateway.folder.parent / "envoy.json" / "no-folder")
        return EnvoyDriver(config)


class RestRig(EnvoyRig):
    """An Envoy that asks Davy: what the driver is asked is kept until then."""

    def __init__(self, edge: DistantEnvoy, fleet: str, servers: dict[str, Any], model: str) -> None:
        self.gateway, self.servers, self.model = edge, servers, model
        self.config = edge.config(servers, discovery="rest")
        self.config.pop("directory")
        self.fleet = fleet
        self.driver = EnvoyDriver(self.config, fleet)

    def settled(self, route: RouteSpec, percent: float) -> bool:
        eventually(lambda: math.isclose(self.driver.observed_weight(route) or 0, percent))
        return True

    def lost(self) -> Driver:
        ports = iter(free_ports(3))
        slots = {
            name: slot | {"url": f"http://127.0.0.1:{next(ports)}"}
            for name, slot in self.config["slots"].items()
        }
        admin = f"http://127.0.0.1:{next(ports)}"
        return EnvoyDriver(self.config | {"slots": slots, "admin_urls": [admin]}, self.fleet)


@contextlib.contextmanager
def asking_envoy(folder: Path) -> Iterator[DistantEnvoy]:
    """A running Envoy of a fleet of its own, and the web application that it asks."""
    fleet = Fleet.objects.create(name=MODEL, driver="envoy")
    binary = fleet_venv.envoy_binary(places.here())
    if not binary.exists():
        pytest.skip("no .venv-fleet: run `make test`")
    with distant.web() as port:
        edge = distant.envoy(binary, folder, port, fleet)
        edge.start()
        try:
            edge.ready()
            yield edge
        finally:
            edge.stop()
