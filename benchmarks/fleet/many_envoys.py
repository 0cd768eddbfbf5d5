"""How soon does every one of many Envoys elsewhere have a change? Simulated Envoys that ask Davy, by REST long poll.

    python -m benchmarks.fleet.many_envoys --envoys 200 --workers 2

Starts a PostgreSQL and a web server with so many worker processes of its own. Each simulated Envoy does what a real one
does (checked against Envoy 1.40 in test_distant_envoys.py): it asks for clusters and routes on two
connections with a request of 77 KB, takes what it is answered, and asks again after refresh_delay to twice that. The
weight is set through the driver, as a rollout's tick does. Times are from before that call: until an Envoy has read its
new routes; until the driver's observed weight says that all of them have reported it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FLEET = "many"
NODE_BYTES = 77_000  # what Envoy 1.40 says of itself
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.05
AIM_SECONDS = 5.0


@dataclass
class Envoy:
    """One simulated Envoy; `taken` holds when (time.monotonic) it had each version of its routes."""

    name: str
    token: str
    refresh_seconds: float
    taken: dict[str, float] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)

    async def run(self, port: int) -> None:
        """Ask for both kinds until cancelled."""
        await asyncio.gather(*(self._ask_forever(port, kind) for kind in ("clusters", "routes")))

    async def _ask_forever(self, port: int, kind: str) -> None:
        version, streams = "", None
        while True:
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
                status, body = await self._ask(*streams, kind, version)
            except (OSError, asyncio.IncompleteReadError):
                status, body, streams = 0, b"", None
            self.answers[status] = self.answers.get(status, 0) + 1
            if status == 200:
                version = json.loads(body)["version_info"]
                if kind == "routes":
                    self.taken.setdefault(version, time.monotonic())
            await asyncio.sleep(self.refresh_seconds * (1 + random.random()))

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, version: str
    ) -> tuple[int, bytes]:
        metadata = {"fleet": FLEET, "token": self.token}
        node = {"id": self.name, "cluster": FLEET, "metadata": metadata, "extensions": "x" * NODE_BYTES}
        body = json.dumps({"version_info": version, "node": node}).encode()
        head = f"POST /v3/discovery:{kind} HTTP/1.1\r\nhost: davy\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(line for line in answer.split("\r\n") if line.startswith("content-length:"))
        return int(answer.split(" ", 2)[1]), await reader.readexactly(int(length.partition(":")[2]))


def prepare(models: int) -> tuple[Any, str]:
    """A migrated database with one fleet of so many models: (its driver, a token for its Envoys)."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from controlplane import access
    from controlplane.models import Fleet, User
    from rollout import drivers
    from rollout.drivers.base import RouteSpec

    slots = {name: {"url": f"http://10.0.0.{number}:8500"} for number, name in enumerate(("a", "b"), 1)}
    fleet = Fleet.objects.create(name=FLEET, driver="envoy", config={"discovery": "rest", "slots": slots})
    user = User.objects.create_user("operator")
    driver = drivers.of(fleet)
    for number in range(models):
        driver.set_weight(RouteSpec(f"model-{number}", "a"), 0)
    return driver, access.create_token(user, "edge", [access.FLEET_SCOPE], fleet=fleet)[1]


def start_web(port: int, workers: int, log: Path) -> subprocess.Popen[bytes]:
    """The web application in so many processes, answering."""
    words = ("-m", "uvicorn", "controlplane.asgi:application", "--port", str(port), "--workers", str(workers))
    quiet = ("--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "1")
    with log.open("wb") as file:
        web = subprocess.Popen([sys.executable, *words, *quiet], cwd=ROOT, stdout=file, stderr=file)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            return web
        except urllib.error.HTTPError:
            return web
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the web application does not answer; see {log}")


def wanted_version() -> str:
    from rollout.models import EnvoyResource

    return EnvoyResource.objects.get(fleet__name=FLEET, kind="routes").version


def change(driver: Any, percent: float) -> tuple[float, str, float]:
    """Set the weight and wait for the driver's word: (when it was set, the version, seconds until confirmed)."""
    from rollout.drivers.base import RouteSpec

    route, began = RouteSpec("model-0", "a"), time.monotonic()
    driver.set_weight(route, percent)
    while driver.observed_weight(route) != percent:
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise RuntimeError(f"{percent} % was not observed within {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return began, wanted_version(), time.monotonic() - began


async def measure(driver: Any, envoys: list[Envoy], port: int, changes: int) -> list[dict[str, Any]]:
    """Run the Envoys, and change the weight so many times once all of them have the first one."""
    running = [asyncio.create_task(envoy.run(port)) for envoy in envoys]
    first = await asyncio.to_thread(wanted_version)
    began = time.monotonic()
    while not all(first in envoy.taken for envoy in envoys):
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise RuntimeError(f"not every Envoy started: {sum(first in e.taken for e in envoys)} did")
        await asyncio.sleep(LOOK_SECONDS)
    print(f"{len(envoys)} Envoys had their first routes after {time.monotonic() - began:.2f} s", flush=True)
    found = []
    for number in range(changes):
        await asyncio.sleep(random.uniform(1, 4))
        set_at, version, confirmed = await asyncio.to_thread(change, driver, (number + 1) % 100)
        seconds = sorted(envoy.taken[version] - set_at for envoy in envoys)
        row = {"p50": statistics.median(seconds), "max": seconds[-1], "confirmed": confirmed}
        found.append(row)
        print(", ".join(f"{name} {value:.3f} s" for name, value in row.items()), flush=True)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return found


def processor_seconds(pids: list[int]) -> float:
    """What these processes have used of a core."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """A process and its direct children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def main() -> int:
    """Print the table; 1 when a change took longer than the aim."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envoys", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--refresh-seconds", type=float, default=0.5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="davy-envoys-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root: its own user has to get there
    os.environ |= {"DAVY_VAR": str(folder), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    os.environ |= {"DAVY_SECRET_KEY": secrets.token_hex(32), "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}
    from controlplane import embedded

    os.environ["DATABASE_URL"] = embedded.start_postgres(folder)
    os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1/0")  # not used here
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web = None
    try:
        driver, token = prepare(options.models)
        web = start_web(port, options.workers, folder / "web.log")
        envoys = [Envoy(f"edge-{i}", token, options.refresh_seconds) for i in range(options.envoys)]
        began, used = time.monotonic(), processor_seconds(children(web.pid))
        rows = asyncio.run(measure(driver, envoys, port, options.changes))
        cores = (processor_seconds(children(web.pid)) - used) / (time.monotonic() - began)
        answers: dict[int, int] = {}
        for envoy in envoys:
            for status, count in envoy.answers.items():
                answers[status] = answers.get(status, 0) + count
        print(f"answers by status: {answers}; the web processes used {cores:.2f} cores on average")
        worst = max(row["max"] for row in rows)
        medians = statistics.median(row["p50"] for row in rows)
        confirmed = max(row["confirmed"] for row in rows)
        print(
            f"{options.envoys} Envoys, {options.workers} web processes, {options.changes} changes: "
            f"p50 {medians:.2f} s, max {worst:.2f} s, all confirmed within {confirmed:.2f} s"
        )
        return int(worst > AIM_SECONDS)
    finally:
        if web is not None:
            web.terminate()
            web.wait(30)
        embedded.stop_postgres(folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
