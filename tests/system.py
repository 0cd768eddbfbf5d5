"""One real running system for the flows, started and stopped as a person would: `demo.up` and `demo.down`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from davy.client import Client, Unreachable, path

from demo import credentials, leftovers, places, setup, triton
from demo.places import Places
from demo.supervision import Supervisor
from demo.users import Users

PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.1
SHARED_MEMORY = Path("/dev/shm")
GIVEN_PARTS = {
    "DATABASE_URL",
    "REDIS_URL",
    "MLFLOW_TRACKING_URI",
    "DJANGO_SETTINGS_MODULE",
    "TRAFFIC",
    "SERVER",
}

Found = TypeVar("Found")


@dataclass(frozen=True)
class System:
    """A running system, seen from outside: REST, Envoy's own word, its users, and its processes."""

    here: Places

    @property
    def known(self) -> dict[str, str]:
        """The credentials as they are now: addresses may move with a start."""
        return credentials.read(self.here.credentials_file)

    @property
    def davy(self) -> Client:
        return Client(self.known["DAVY_URL"], self.known["DAVY_TOKEN"])

    @property
    def users(self) -> Users:
        return Users(self.here.traffic_control, self.here.traffic_counts)

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.here)

    @property
    def environment(self) -> dict[str, str]:
        """For commands of this system: nothing of the test session's own database and broker."""
        usual = {name: value for name, value in os.environ.items() if not name.startswith("DAVY_")}
        for name in GIVEN_PARTS:
            usual.pop(name, None)
        return {**usual, "DAVY_VAR": str(self.here.var), "DAVY_DRIFT_WINDOW_SECONDS": "20"}

    def command(self, module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m <module>` on this system to its end."""
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.here.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def up(self, **environment: str) -> str:
        """Start, or find it running; return what was printed."""
        done = self.command("demo.up", DETACH="1", **environment)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def down(self) -> None:
        """Stop; nothing that was started may be left."""
        done = self.command("demo.down")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert self.leftovers() == []

    def leftovers(self) -> list[str]:
        """What a stop left behind: processes of this var folder, and shared memory of its model servers."""
        found = [f"process {pid}" for pid in leftovers.find(self.here.var)]
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{self.here.var}/" in line:
                    found.append(f"process {folder.name}: {line}")
        for slot in "ab":
            prefix = triton.shared_memory_prefix(self.here, slot)
            found += [str(file) for file in SHARED_MEMORY.glob(f"{prefix}*")]
        return found

    def wait_for(
        self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE_SECONDS
    ) -> Found:
        """Look until something is there; a web application that is being restarted is looked at again."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Unreachable):
                if (found := look()) is not None:
                    return found
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
            time.sleep(LOOK_SECONDS)

    def pid(self, name: str) -> int:
        """The process id of a supervised process; 0 while it does not run."""
        info = self.supervisor.processes()[name]
        return int(info["pid"]) if info["statename"] == "RUNNING" else 0

    def kill(self, name: str) -> None:
        """kill -9 a supervised process; return when it runs again."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        self.wait_for(f"{name} again", lambda: self.pid(name) not in {0, killed} or None)

    def start_rollout(self, model: str, version: str, plan: dict[str, Any]) -> int:
        body = {"model": model, "version": version, "fleet": setup.FLEET, "plan": plan}
        return int(self.davy.post("/rollouts", body)["id"])

    def rollout(self, rollout_id: int) -> dict[str, Any]:
        return dict(self.davy.get(path("rollouts", rollout_id)))

    def at_weight(self, rollout_id: int, percent: float) -> dict[str, Any]:
        """The rollout once this weight, or a later one, is observed; fails when it ends before."""

        def look() -> dict[str, Any] | None:
            rollout = self.rollout(rollout_id)
            assert not rollout["ended_at"], f"ended {rollout['state']}: {rollout['reason']}"
            return rollout if (rollout["observed_weight_percent"] or 0) >= percent else None

        return self.wait_for(f"{percent} % of rollout {rollout_id}", look)

    def ended(self, rollout_id: int) -> dict[str, Any]:
        """The rollout once it is over; fails when it waits for a person."""

        def look() -> dict[str, Any] | None:
            rollout = self.rollout(rollout_id)
            assert rollout["state"] != "held", rollout["reason"]
            return rollout if rollout["ended_at"] else None

        return self.wait_for(f"the end of rollout {rollout_id}", look)

    def events(self, rollout_id: int) -> list[dict[str, Any]]:
        return list(self.davy.get(path("rollouts", rollout_id, "events"), {"limit": 200})["items"])

    def route(self, model: str) -> dict[str, Any]:
        routes = self.davy.get(path("fleets", setup.FLEET))["routes"]
        return next(route for route in routes if route["model"] == model)

    def envoy_weights(self, model: str) -> dict[str, float]:
        """Each slot's share of a model's live traffic in percent, as Envoy itself says; empty: no route."""
        config = json.loads(self.here.fleet_file.read_text())["config"]
        answer = fetch(f"{config['admin_urls'][0]}/config_dump?resource=dynamic_route_configs")
        for found in json.loads(answer).get("configs", []):
            for host in found["route_config"].get("virtual_hosts", []):
                for route in host["routes"]:
                    if route["name"] == f"{model}/split":
                        return _shares(route["route"]["weighted_clusters"]["clusters"])
        return {}

    def served(self, model: str) -> bool:
        """Whether the gateway answers for a model now."""
        try:
            return bool(fetch(f"{self.known['DAVY_GATEWAY_URL']}/v2/models/{model}/config"))
        except OSError:
            return False

    @contextlib.contextmanager
    def busy(self, **rates: float) -> Iterator[None]:
        """More traffic for some models, for as long as it is needed."""
        before = self.users.ask(rates)
        try:
            yield
        finally:
            self.users.restore(before)


def _shares(clusters: list[dict[str, Any]]) -> dict[str, float]:
    """Weighted clusters such as products/stable/a-then-b as {"a": percent}; Envoy leaves a weight of 0 out."""
    total = sum(cluster.get("weight", 0) for cluster in clusters)
    return {c["name"].split("/")[2][0]: 100 * c.get("weight", 0) / total for c in clusters}


def fetch(url: str) -> bytes:
    """The body of a GET; OSError unless the answer is 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return bytes(answer.read())


def _missing() -> str:
    """What is missing on this machine to start a system; "" when nothing is."""
    here = places.Places(places.ROOT / "var")
    return "" if here.fleet_venv.exists() else "no .venv-fleet (Envoy and the model servers): run `make test`"


@pytest.fixture(scope="package")
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """The system of all flows. Its folder stays when a test failed, for its logs."""
    if why := _missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="davy-flows-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root: its own user has to get there
    running = System(Places(folder / "var"))
    try:
        print(running.up().split("\n\n")[0])  # how long it took; the credentials come after
        yield running
    finally:
        running.down()
    if request.session.testsfailed:
        print(f"a test failed: the logs stay in {running.here.log}")
    else:
        shutil.rmtree(folder)
