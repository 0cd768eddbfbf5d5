"""The rigs of the Kubernetes drivers: a real API server, whose controllers the rig plays."""

from __future__ import annotations

import math
from typing import Any

from rollout import drivers
from rollout.drivers.base import Driver, RouteSpec
from tests.ports import free_ports
from tests.rollout.kube import Namespace
from tests.rollout.kube_controllers import Controllers
from tests.rollout.kube_fleets import gateway_fleet, kserve_fleet

FLEETS = {"gateway_api": gateway_fleet, "kserve": kserve_fleet}


class KubeRig:
    """A driver with a namespace of its own."""

    def __init__(self, name: str, space: Namespace) -> None:
        self.name, self.model = name, "products"
        self.takes_fractions = name != "kserve"
        self.config: dict[str, Any] = FLEETS[name](space, self.model)
        self.driver: Driver = drivers.make(name, self.config)
        self.controllers = Controllers(space)

    def act(self) -> None:
        self.controllers.round()

    def settled(self, route: RouteSpec, percent: float) -> bool:
        self.act()
        observed = self.driver.observed_weight(route)
        return observed is not None and math.isclose(observed, percent)

    def send(self, count: int, *, failing: bool = False) -> None:
        raise AssertionError("no gateway runs here, so there is nobody to send requests through")

    def lost(self) -> Driver:
        server = f"https://127.0.0.1:{free_ports(1)[0]}"
        return drivers.make(self.name, {**self.config, "credentials": {"server": server, "token": "t"}})
