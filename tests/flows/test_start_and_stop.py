"""A start finds what runs; a stop leaves nothing behind and loses nothing."""

from __future__ import annotations

from typing import Any

from demo import setup
from tests.system import System


def kept(system: System) -> dict[str, Any]:
    """What must outlive a stop: versions, rollouts, alerts, and what each route serves."""
    davy = system.davy
    routes = {model: system.route(model) for model in setup.MODELS}
    rollouts = davy.get("/rollouts", {"limit": 200})["items"]
    return {
        "versions": {model: setup.versions_of(davy, model) for model in setup.MODELS},
        "rollouts": [(rollout["id"], rollout["state"]) for rollout in rollouts],
        "alerts": {alert["id"] for alert in davy.get("/alerts", {"limit": 200})["items"]},
        "stable": {model: (route["stable"], route["stable_slot"]) for model, route in routes.items()},
    }


def test_a_second_start_says_that_it_runs_already(system) -> None:
    pids = {name: system.pid(name) for name in system.supervisor.processes()}
    assert "Davy is running already." in system.up()
    assert {name: system.pid(name) for name in pids} == pids


def test_a_start_after_a_stop_continues(system) -> None:
    before = kept(system)
    system.down()
    system.up()
    after = kept(system)
    assert after["alerts"] >= before.pop("alerts")
    assert before.items() <= after.items()
    for model in setup.MODELS:
        assert system.served(model)
        assert system.envoy_weights(model)[before["stable"][model][1]] == 100


def test_on_the_substitute_server_the_start_says_so_and_the_story_fails(system) -> None:
    before = kept(system)["stable"]
    system.down()
    assert "NO TRITON: SERVER=substitute was asked for" in system.up(SERVER="substitute", TRAFFIC="0")
    assert kept(system)["stable"] == before
    assert "traffic" not in system.supervisor.processes()
    told = system.command("demo.story", "--only", "server")
    assert told.returncode == 1
    assert "RED  model server: a substitute server" in told.stdout
