"""What does the demo fleet start with? Versions in MLflow, taken over by Davy, references, a fleet, v1 live everywhere.

Safe to repeat: what is there already is left alone. It speaks HTTP only, as any user would.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from davy.client import ApiError, Client, path

from demo import places
from demo.mlflow_registry import Registry

MODELS = {
    "products": "what customers buy",
    "returns": "what customers send back",
    "kiosk": "what the kiosk's camera sees",
    "shelf": "what stands on the shelf",
}
VERSIONS = ("v1", "v2", "v3", "v4", "v1-faulty")
FIRST = "v1"
FLEET = places.FLEET
ARTIFACTS = Path(os.environ.get("DEMO_ARTIFACTS") or Path(__file__).resolve().parent / "artifacts")
CALM = {"models": {model: {"rate": 60, "look": "plain"} for model in MODELS}}
WAIT_SECONDS = 120.0

Found = TypeVar("Found")


class SetupError(RuntimeError):
    """The demo could not be set up; the message says what did not happen."""


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = WAIT_SECONDS) -> Found:
    """Look until something is there; SetupError when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise SetupError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.2)
    return found


def fill_registry(registry: Registry) -> None:
    """Upload the artifacts once and register every version of every model that MLflow does not have."""
    missing = {model: [v for v in VERSIONS if v not in registry.known(model)] for model in MODELS}
    if any(missing.values()):
        run_id, artifact_uri = registry.upload(ARTIFACTS / version for version in VERSIONS)
        for model, versions in missing.items():
            registry.register(model, versions, run_id, artifact_uri)


def versions_of(davy: Client, model: str) -> set[str]:
    """The names of the versions that Davy knows; empty when it does not know the model."""
    try:
        items = davy.get(path("models", model, "versions"), {"limit": 200})["items"]
    except ApiError as err:
        if err.status != 404:
            raise
        return set()
    return {item["version"] for item in items}


def take_over(davy: Client) -> None:
    """Wait until Davy has taken the versions over from MLflow; then freeze their references."""
    for model in MODELS:
        wait_for(f"Davy taking over {model}", partial(_all_known, davy, model))
        for version in VERSIONS:
            freeze(davy, model, version)


def _all_known(davy: Client, model: str) -> bool | None:
    return versions_of(davy, model) >= set(VERSIONS) or None


def freeze(davy: Client, model: str, version: str, *, like: str = "") -> None:
    """Give the version the reference of its own name, or of the demo version it is `like`, unless it has one."""
    where = path("models", model, "versions", version, "reference")
    try:
        davy.get(where)
    except ApiError as err:
        if err.status != 404:
            raise
        davy.put(where, (ARTIFACTS / f"{like or version}.reference.npz").read_bytes(), "application/x-npz")


def configure_fleet(davy: Client, here: places.Places) -> None:
    """Tell Davy where the fleet is (ports may have moved) and which server serves it."""
    described = json.loads(here.fleet_file.read_text())
    config = described["config"]
    if described["server"] != "triton":
        config["server_note"] = (
            "a substitute server of the V2 protocol serves this fleet; Triton cannot run here"
        )
    davy.post("/fleets", {"name": FLEET, "driver": "envoy", "config": config})


def ask_for_traffic(here: places.Places) -> None:
    """What live traffic sends, unless somebody has already said."""
    if not here.traffic_control.exists():
        here.traffic_control.write_text(json.dumps(CALM, indent=1) + "\n")


def make_channel(davy: Client) -> None:
    """A log channel, so that alerts are seen in the worker's log."""
    names = {channel["name"] for channel in davy.get("/channels")["items"]}
    if "log" not in names:
        davy.post("/channels", {"name": "log", "kind": "log"})


def serve_first(davy: Client) -> None:
    """Make v1 live on every route that has no stable version yet."""
    routes = {route["model"]: route for route in davy.get(path("fleets", FLEET))["routes"]}
    started = []
    for model in MODELS:
        if not routes.get(model, {}).get("stable"):
            started.append(davy.post("/rollouts", {"model": model, "version": FIRST, "fleet": FLEET})["id"])
    for rollout_id in started:
        ended = davy.wait_rollout(rollout_id, WAIT_SECONDS)
        if ended["state"] != "promoted":
            raise SetupError(
                f"rollout {rollout_id} of {ended['model']} {FIRST} ended {ended['state']}: {ended['reason']}"
            )


def main() -> int:
    """Set the demo up; return the exit code."""
    davy = Client(os.environ["DAVY_URL"], os.environ["DAVY_TOKEN"])
    here = places.here()
    try:
        ask_for_traffic(here)
        configure_fleet(davy, here)
        make_channel(davy)
        if any(versions_of(davy, model) < set(VERSIONS) for model in MODELS):
            fill_registry(Registry(os.environ["MLFLOW_TRACKING_URI"]))
        take_over(davy)
        serve_first(davy)
    except SetupError as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
