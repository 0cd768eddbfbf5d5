"""Envoys that ask Davy: a web server in a thread of the test, a fleet with a token, and real Envoys that use it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from controlplane import access
from controlplane.asgi import application
from controlplane.models import Fleet, User
from demo import envoy_bootstrap
from tests.ports import free_ports
from tests.rollout.gateway import Gateway, eventually

REFRESH_SECONDS = 0.05


@contextlib.contextmanager
def web() -> Iterator[int]:
    """Davy's web application on a port; ends with its connections to the database closed."""
    (port,) = free_ports(1)
    config = uvicorn.Config(application, port=port, log_level="error", lifespan="off")
    config.timeout_graceful_shutdown = 0  # who waits is sent away
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def token_for(fleet: Fleet) -> str:
    user, _ = User.objects.get_or_create(username="operator")
    return access.create_token(user, "edge", [access.FLEET_SCOPE], fleet=fleet)[1]


@dataclass
class DistantEnvoy(Gateway):
    """An Envoy that asks instead of watching a folder. `folder` holds its bootstrap and log."""

    web_port: int = 0
    fleet: str = ""
    token: str = ""
    node_id: str = "edge-1"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        written = envoy_bootstrap.distant(
            gateway_port=self.gateway_port,
            admin_port=self.admin_port,
            davy=("127.0.0.1", self.web_port),
            fleet=self.fleet,
            token=self.token,
            node_id=self.node_id,
            refresh_seconds=REFRESH_SECONDS,
        )
        bootstrap = self.folder / "envoy.json"
        bootstrap.write_text(json.dumps(written))
        words = [str(self.binary), "-c", str(bootstrap), "--disable-hot-restart", "--concurrency", "2"]
        with (self.folder / "envoy.log").open("ab") as log:
            self.process = subprocess.Popen([*words, "--log-level", "warning"], stdout=log, stderr=log)

    def ready(self) -> None:
        eventually(lambda: self.ask("/ready")[0] == 200)


def envoy(binary: Path, folder: Path, web_port: int, fleet: Fleet, node_id: str = "edge-1") -> DistantEnvoy:
    """An Envoy of the fleet that is not running yet."""
    return DistantEnvoy(
        folder / node_id,
        binary,
        *free_ports(2),
        web_port=web_port,
        fleet=fleet.name,
        token=token_for(fleet),
        node_id=node_id,
    )
