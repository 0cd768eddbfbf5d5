"""How soon is a canary that suddenly answers 500 without traffic? On the demo fleet, as Envoy itself reports it.

    python -m benchmarks.fleet.answering_500 --runs 20        (a system has to be up: make up)

Each run rolls a byte-identical copy of v1 out to 25 %, lets it serve, and kills its Python process in the
canary's Triton (SIGKILL): from then on the server answers 500 to every request of that model while it still says that
it is ready. Timed from the kill until Envoy's own configuration says weight 0. Users' failed requests are counted, too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from davy.client import Client, path

from benchmarks.fleet.rollouts import Case, register
from demo import credentials, places
from demo.setup import FLEET, wait_for
from demo.stages import begin_with
from demo.users import Users
from rollout.drivers.envoy import routes as envoy_routes

MODEL = "products"
RATE = 200.0
WEIGHT = 25.0
SERVES_SECONDS = 5.0
LOOK_SECONDS = 0.02
PLAN: dict[str, Any] = {
    "name": "answering-500",
    "steps": [{"weight_percent": WEIGHT, "dwell_seconds": 600}],
    "gates": [{"name": name} for name in ("errors", "latency", "confidence")],
}


def envoy_weight(admin_url: str) -> float:
    """The canary's share of the model in the routes that Envoy applies."""
    with urllib.request.urlopen(
        f"{admin_url}/config_dump?resource=dynamic_route_configs", timeout=5
    ) as answer:
        configs = json.load(answer)["configs"]
    for entry in configs:
        split = envoy_routes.split_of(entry["route_config"], MODEL)
        if split is not None:
            return split.percent
    raise LookupError(f"Envoy has no route of {MODEL}")


def stub(folder: Path) -> int:
    """The process that runs the Python model of this repository folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "triton_python_backend_stub" in words.split("\0")[0] and f"{folder}/" in words:
            return int(process.name)
    raise LookupError(f"no stub serves {folder}")


def one_run(davy: Client, here: places.Places, admin_url: str, name: str) -> float:
    """Seconds from the kill to weight 0."""
    begin_with(davy, MODEL, "v1")
    version = register(davy, MODEL, Case(name, "v1", "rolled_back"), time.strftime("%m%d%H%M%S"))
    rollout = davy.post("/rollouts", {"model": MODEL, "version": version, "fleet": FLEET, "plan": PLAN})
    wait_for("25 %", lambda: envoy_weight(admin_url) == WEIGHT or None)
    time.sleep(SERVES_SECONDS)
    routes = davy.get(path("fleets", FLEET))["routes"]
    stable_slot = next(route["stable_slot"] for route in routes if route["model"] == MODEL)
    process = stub(here.repository("b" if stable_slot == "a" else "a") / MODEL)
    begun = time.monotonic()
    os.kill(process, signal.SIGKILL)
    while envoy_weight(admin_url) > 0:
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - begun
    ended = davy.wait_rollout(rollout["id"], 60)
    print(f"{name}: {seconds:.2f} s; {ended['state']}: {ended['reason']}", flush=True)
    return seconds


def main() -> int:
    """Print the quantiles; return 0 when the p95 is within 3 s and no user saw a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    here = places.here()
    known = credentials.read(here.credentials_file)
    davy = Client(known["DAVY_URL"], known["DAVY_TOKEN"])
    admin_url = json.loads(here.fleet_file.read_text())["config"]["admin_urls"][0]
    users = Users(here.traffic_control, here.traffic_counts)
    before = users.ask({MODEL: RATE})
    failed_before = users.count(MODEL).failed
    try:
        seconds = sorted(one_run(davy, here, admin_url, f"dying-{i + 1:02}") for i in range(options.runs))
    finally:
        users.restore(before)
    failed = users.count(MODEL).failed - failed_before
    p95 = seconds[min(len(seconds) - 1, math.ceil(0.95 * len(seconds)) - 1)]
    print(
        f"median {statistics.median(seconds):.2f} s, p95 {p95:.2f} s, most {seconds[-1]:.2f} s; "
        f"{failed} users' requests failed"
    )
    return 0 if p95 <= 3 and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
