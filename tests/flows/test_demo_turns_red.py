"""`make demo` can fail: with swapped artifacts and without telemetry (on the substitute: test_start_and_stop)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from davy.client import path

from demo import credentials, setup, stages, story
from demo.receiver import Receiver
from demo.stages import Line, World
from tests.system import System

SERVERS = ("triton-a", "triton-b")
QUICK = {
    **stages.PLAN,
    "steps": [{"weight_percent": weight, "dwell_seconds": 1} for weight in (5, 25, 50)],
    "gates": [{**gate, "settings": {"margin_points": {"1": 20}}} for gate in stages.PLAN["gates"]],
    "patience_seconds": 90,
    "watch_seconds": 1,
}


@pytest.fixture
def world(system) -> Iterator[World]:
    """The story's world, with a plan that decides quickly."""
    receiver = Receiver()
    with system.busy(products=300, returns=300):
        yield World(system.davy, system.users, receiver, system.supervisor, plan=QUICK)
    receiver.close()


def register_again(system: System, model: str, version: str, name: str) -> None:
    """Register what `version` is, artifact and reference, under another name."""
    known = system.davy.get(path("models", model, "versions", version))
    body = {"version": name, "artifact_uri": known["artifact_uri"], "digest": known["digest"]}
    system.davy.post(path("models", model, "versions"), body)
    setup.freeze(system.davy, model, name, like=version)


def red(lines: list[Line]) -> str:
    """What the story's only line saw, when that line does not hold."""
    (line,) = lines
    assert not line.good, line
    return line.seen


def test_with_the_artifacts_of_v2_and_v3_swapped_both_lines_turn_red(system, world) -> None:
    register_again(system, "products", "v3", "v2-swapped")
    register_again(system, "returns", "v2", "v3-swapped")
    swapped = dataclasses.replace(world, better="v2-swapped", bad="v3-swapped")
    promoted, rolled_back = story.tell(swapped, ["promote", "rollback"])
    assert red([promoted]).startswith("rolled_back, 0.0 % observed: ")
    assert red([rolled_back]).startswith("promoted, 100.0 % observed: ")


@pytest.fixture
def silenced(system) -> Iterator[None]:
    """The servers' telemetry token is revoked, as it may happen; afterwards they get another."""
    known = system.known
    system.davy.send("DELETE", path("tokens", known["DAVY_TELEMETRY_TOKEN"].split("_")[1]))
    yield
    for rollout in system.davy.get("/rollouts", {"state": "active"})["items"]:
        system.davy.post(path("rollouts", rollout["id"], "abort"), {"reason": "the test is over"})
        system.davy.wait_rollout(rollout["id"], 60)
    made = system.davy.post("/tokens", {"name": "model servers", "scopes": ["telemetry"]})
    credentials.write(system.here.credentials_file, {**known, "DAVY_TELEMETRY_TOKEN": made["token"]})
    system.supervisor.restart(SERVERS)
    for model in setup.MODELS:
        system.wait_for(f"{model} served again", lambda model=model: system.served(model) or None)


def test_without_telemetry_nothing_is_promoted_and_the_line_is_red(system, world, silenced) -> None:
    impatient = dataclasses.replace(world, plan={**QUICK, "patience_seconds": 15})
    seen = red(story.tell(impatient, ["promote"]))
    assert seen.startswith("held, 5.0 % observed: no evidence for latency since ")
