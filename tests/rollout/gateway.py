"""A real Envoy in front of whatever a test puts behind it, and users who send requests through it."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from demo import envoy_bootstrap, fleet_venv, places
from rollout.drivers.base import RouterCounts, RouteSpec
from rollout.drivers.envoy.driver import EnvoyDriver
from tests.ports import free_ports
from tests.rollout.model_server import ModelServer

_names = itertools.count()
CLUSTERS_OF_A_MODEL = 12


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until it holds; an AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


@dataclass
class Gateway:
    """A running Envoy and the folder that it watches."""

    folder: Path
    binary: Path
    gateway_port: int
    admin_port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self) -> None:
        bootstrap = self.folder.parent / "envoy.json"
        envoy_bootstrap.write(
            bootstrap, gateway_port=self.gateway_port, admin_port=self.admin_port, folder=self.folder
        )
        words = [str(self.binary), "-c", str(bootstrap), "--disable-hot-restart", "--concurrency", "2"]
        with (self.folder.parent / "envoy.log").open("ab") as log:
            self.process = subprocess.Popen([*words, "--log-level", "warning"], stdout=log, stderr=log)
        eventually(lambda: self.ask("/ready")[0] == 200)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def ask(self, path: str) -> tuple[int, str]:
        """Envoy's admin interface: (status, text); status 0 when it is away."""
        try:
            with urllib.request.urlopen(self.admin_url + path, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def stat(self, name: str) -> int:
        return int(self.ask(f"/stats?filter=^{name}$")[1].rpartition(": ")[2] or 0)

    def config(self, servers: Mapping[str, ModelServer], **changes: Any) -> dict[str, Any]:
        """The config of a fleet whose slots are these servers."""
        slots: dict[str, dict[str, str]] = {}
        for name, server in servers.items():
            slots[name] = {"url": server.url}
            if server.repository is not None:
                slots[name]["repository"] = str(server.repository)
        return {"directory": str(self.folder), "admin_urls": [self.admin_url], "slots": slots, **changes}

    def serve(self, servers: Mapping[str, ModelServer], percent: float, **changes: Any) -> Served:
        """A model of its own, routed to the servers, with `percent` of its traffic on the canary (slot b)."""
        served = Served(self, EnvoyDriver(self.config(servers, **changes)), f"model-{next(_names)}")
        served.split(percent)
        eventually(served.known_everywhere)
        for server in servers.values():
            server.headers.clear()
        return served


@dataclass
class Served:
    """One model behind the gateway, with slot a stable."""

    gateway: Gateway
    driver: EnvoyDriver
    model: str

    @property
    def route(self) -> RouteSpec:
        return RouteSpec(self.model, "a")

    def split(self, percent: float) -> None:
        """Set the weight and wait until Envoy applies it, and knows which servers are ready."""
        self.driver.set_weight(self.route, percent)
        eventually(lambda: self.driver.observed_weight(self.route) == pytest.approx(percent))
        own = f"cluster.{self.model}/.*membership_healthy"
        eventually(lambda: self.gateway.ask(f"/stats?filter=^{own}$")[1].count("\n") >= CLUSTERS_OF_A_MODEL)

    def known_everywhere(self) -> bool:
        """Whether each of Envoy's threads, which learn of new clusters one by one, finds both servers."""
        return {self._ready(role) for role in ("stable", "canary") * 8} == {200}

    def _ready(self, role: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.gateway.gateway_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/v2/models/{self.model}/ready", headers={"x-davy-pin": role})
            return connection.getresponse().status

    def counts(self) -> RouterCounts:
        return self.driver.router_counts(self.route)

    def arms(self) -> dict[str, tuple[int, int]]:
        """(assigned, failed) of canary and stable."""
        counts = self.counts()
        pairs = {"canary": counts.canary, "stable": counts.stable}
        return {role: (arm.assigned, arm.failed) for role, arm in pairs.items()}

    def users(
        self, count: int, headers: Mapping[str, str] | None = None, *, at_once: int = 8
    ) -> Counter[tuple[int, str]]:
        """Send so many requests; how many got which (status, answering server)."""
        shares = [count // at_once + (i < count % at_once) for i in range(at_once)]
        with ThreadPoolExecutor(at_once) as pool:
            return sum(pool.map(lambda n: self._one_user(n, headers or {}), shares), Counter())

    def keyed(self, keys: list[str]) -> dict[str, str]:
        """Which server answers which user."""
        connection = HTTPConnection("127.0.0.1", self.gateway.gateway_port, timeout=30)
        with contextlib.closing(connection):
            return {key: self._ask(connection, {"x-davy-key": key})[1] for key in keys}

    def _one_user(self, count: int, headers: Mapping[str, str]) -> Counter[tuple[int, str]]:
        connection = HTTPConnection("127.0.0.1", self.gateway.gateway_port, timeout=30)
        with contextlib.closing(connection):
            return Counter(self._ask(connection, headers) for _ in range(count))

    def _ask(self, connection: HTTPConnection, headers: Mapping[str, str]) -> tuple[int, str]:
        try:
            connection.request("POST", f"/v2/models/{self.model}/infer", b"{}", dict(headers))
            reply = connection.getresponse()
            body = reply.read()
        except (HTTPException, OSError):
            connection.close()
            return 0, ""
        return reply.status, json.loads(body)["server"] if reply.status == 200 else ""


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One Envoy for the whole session: each test has models of its own behind it. Skips where there is no Envoy."""
    binary = fleet_venv.envoy_binary(places.here())
    if not binary.exists():
        pytest.skip("no .venv-fleet: run `make test`")
    gateway = Gateway(tmp_path_factory.mktemp("gateway") / "routes", binary, *free_ports(2))
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
