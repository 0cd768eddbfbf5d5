"""The stages of the story: each acts on the running system and says what it expected and what it saw.

What is seen comes from REST, from the alert's receiver and from what users got; nothing is read from the database.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from davy.client import ApiError, Client, path

from demo import looks
from demo.receiver import Receiver
from demo.setup import FLEET, SetupError, wait_for
from demo.supervision import Supervisor
from demo.users import Users

ROLLOUT_SECONDS = 300.0
DRIFT_SECONDS = 150.0
LABELS = 40  # of the measure budget: one task in five
PLAN: dict[str, Any] = {
    "name": "demo",
    "steps": [{"weight_percent": weight, "dwell_seconds": 10} for weight in (5, 25, 50)],
    "gates": [
        {"name": "errors", "weight": 0.35},
        {"name": "latency", "weight": 0.25},
        {"name": "confidence", "weight": 0.15},
    ],
    "patience_seconds": 180,  # longer than a step takes while the machine is busy: a hold turns the line red
    "watch_seconds": 30,
}


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    expected: str
    seen: str
    good: bool
    seconds: float
    needed: int | None = None  # requests that the decision took
    available: int | None = None  # requests that users sent meanwhile


@dataclass
class World:
    """What the stages act on, and which versions they tell of."""

    davy: Client
    users: Users
    receiver: Receiver
    supervisor: Supervisor
    better: str = "v2"
    bad: str = "v3"
    plan: dict[str, Any] = field(default_factory=PLAN.copy)


Stage = Callable[[World], list[Line]]


def start_rollout(davy: Client, model: str, version: str, plan: dict[str, Any]) -> int:
    """Start a rollout; one that ended before (an earlier story) is started afresh."""
    body = {"model": model, "version": version, "fleet": FLEET, "plan": plan}
    return int(davy.post("/rollouts", body)["id"])


def follow(world: World, rollout_id: int, seconds: float) -> dict[str, Any]:
    """The rollout once it is over, or held without telemetry, or the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        rollout: dict[str, Any] = world.davy.get(path("rollouts", rollout_id))
        if rollout["ended_at"] or rollout["state"] == "held" or time.monotonic() > deadline:
            return rollout
        time.sleep(0.5)


def evidence_requests(world: World, rollout_id: int, gate: str) -> int:
    """Requests of both arms that were evidence for a gate."""
    total, params = 0, {"gate": gate, "limit": "200"}
    while True:
        page = world.davy.get(path("rollouts", rollout_id, "evidence"), params)
        total += sum(arm["n"] for row in page["items"] for arm in row["arms"].values())
        if page["next"] is None:
            return int(total)
        params["cursor"] = page["next"]


def begin_with(davy: Client, model: str, version: str) -> None:
    """Have `version` stable: after an earlier story a person puts it back, without analysis."""
    if _route(davy, model)["stable"] == version:
        return
    rollout_id = start_rollout(davy, model, version, PLAN)
    wait_for(f"{version} ready on {model}", lambda: _in_state(davy, rollout_id, "running"), ROLLOUT_SECONDS)
    davy.post(path("rollouts", rollout_id, "promote"), {"reason": "the story starts over"})
    wait_for(f"{version} stable on {model}", lambda: _in_state(davy, rollout_id, "watching"), ROLLOUT_SECONDS)


def _in_state(davy: Client, rollout_id: int, state: str) -> bool | None:
    return davy.get(path("rollouts", rollout_id))["state"] == state or None


def promote(world: World) -> list[Line]:
    """A better version is promoted."""
    begin_with(world.davy, "products", "v1")
    begun, sent = time.monotonic(), world.users.count("products").sent
    rollout_id = start_rollout(world.davy, "products", world.better, world.plan)
    rollout = follow(world, rollout_id, ROLLOUT_SECONDS)
    seen = f"{rollout['state']}, {rollout['observed_weight_percent']} % observed"
    good = rollout["state"] == "promoted" and rollout["observed_weight_percent"] == 100
    return [
        Line(
            f"{world.better} (better) on products",
            "promoted, 100 % observed",
            seen if good else f"{seen}: {rollout['reason']}",
            good,
            time.monotonic() - begun,
            evidence_requests(world, rollout_id, "errors"),
            world.users.count("products").sent - sent,
        )
    ]


def roll_back(world: World) -> list[Line]:
    """A bad version is rolled back by the judge."""
    begun, sent = time.monotonic(), world.users.count("returns").sent
    rollout_id = start_rollout(world.davy, "returns", world.bad, world.plan)
    rollout = follow(world, rollout_id, ROLLOUT_SECONDS)
    failed = [gate["name"] for gate in rollout["gates"] if gate["verdict"] == "FAIL"]
    good = rollout["state"] == "rolled_back" and rollout["observed_weight_percent"] == 0 and bool(failed)
    return [
        Line(
            f"{world.bad} (bad) on returns",
            "rolled back by a gate, 0 % observed",
            f"{rollout['state']}, {rollout['observed_weight_percent']} % observed: {rollout['reason']}",
            good,
            time.monotonic() - begun,
            evidence_requests(world, rollout_id, failed[0]) if failed else None,
            world.users.count("returns").sent - sent,
        )
    ]


def kill_canary(world: World) -> list[Line]:
    """The canary's server dies at 25 %: users notice nothing, the judge takes its traffic away."""
    plan = {**PLAN, "steps": [{"weight_percent": 25, "dwell_seconds": 3600}]}
    rollout_id = start_rollout(world.davy, "kiosk", "v2", plan)
    wait_for("25 % observed on kiosk", lambda: _at_weight(world, rollout_id, 25), ROLLOUT_SECONDS)
    slot = _canary_slot(world.davy, "kiosk")
    world.users.wait_for_more("kiosk", 500)
    before = world.users.totals()
    begun = time.monotonic()
    os.kill(world.supervisor.processes()[f"triton-{slot}"]["pid"], signal.SIGKILL)
    rollout = follow(world, rollout_id, ROLLOUT_SECONDS)
    seconds = time.monotonic() - begun
    world.users.wait_for_more("kiosk", 2000)
    after = world.users.totals()
    sent, failed = after.sent - before.sent, after.failed - before.failed
    back = rollout["state"] == "rolled_back" and rollout["observed_weight_percent"] == 0
    return [
        Line(
            "canary's Triton killed at 25 %",
            "0 failed for users",
            f"{failed} failed",
            failed == 0,
            seconds,
            None,
            sent,
        ),
        Line(
            "the dead canary on kiosk",
            "rolled back, 0 % observed",
            f"{rollout['state']}, {rollout['observed_weight_percent']} % observed: {rollout['reason']}",
            back,
            seconds,
            evidence_requests(world, rollout_id, "errors"),
            sent,
        ),
    ]


def _at_weight(world: World, rollout_id: int, percent: float) -> bool | None:
    rollout = world.davy.get(path("rollouts", rollout_id))
    if rollout["ended_at"]:
        raise SetupError(f"rollout {rollout_id} ended {rollout['state']}: {rollout['reason']}")
    return rollout["observed_weight_percent"] == percent or None


def _canary_slot(davy: Client, model: str) -> str:
    return "b" if _route(davy, model)["stable_slot"] == "a" else "a"


def _route(davy: Client, model: str) -> dict[str, Any]:
    """The model's route on the fleet, as REST shows it."""
    routes = davy.get(path("fleets", FLEET))["routes"]
    return next(route for route in routes if route["model"] == model)


def drift(world: World) -> list[Line]:
    """The camera changes: the drift alert arrives; the change is undone: it resolves."""
    cause = "drift/embedding/shelf"
    with _channel(world):
        wait_for("enough images of shelf", lambda: _drift_status(world) == "STABLE" or None, DRIFT_SECONDS)
        already = len(world.receiver.messages("alert.trigger", cause))
        begun, sent = time.monotonic(), world.users.count("shelf").sent
        world.users.look("shelf", "new-camera")
        try:
            opened = _arrives(world, "alert.trigger", cause, already)
        finally:
            world.users.look("shelf", "plain")
        seconds, used = time.monotonic() - begun, world.users.count("shelf").sent - sent
        lines = [_alert_line("new camera on shelf", "drift alert at the receiver", opened, seconds, used)]
        begun, resolved_before = time.monotonic(), len(world.receiver.messages("alert.resolve", cause))
        resolved = _arrives(world, "alert.resolve", cause, resolved_before) if opened else None
        lines.append(
            _alert_line(
                "old camera again", "alert resolved at the receiver", resolved, time.monotonic() - begun, None
            )
        )
    return lines


@contextmanager
def _channel(world: World) -> Iterator[None]:
    """A signed webhook channel to the receiver, for as long as the stage lasts."""
    config = {"url": world.receiver.url}
    body = {
        "name": f"story-{os.getpid()}",
        "kind": "webhook",
        "config": config,
        "secret": world.receiver.secret,
    }
    channel = world.davy.post("/channels", body)
    try:
        yield
    finally:
        world.davy.send("DELETE", path("channels", channel["id"]))


def _drift_status(world: World) -> str:
    return str(world.davy.get(path("models", "shelf", "versions", "v1", "drift"))["status"])


def _arrives(world: World, kind: str, cause: str, already: int) -> dict[str, Any] | None:
    def look() -> dict[str, Any] | None:
        found = world.receiver.messages(kind, cause)
        return found[-1] if len(found) > already else None

    try:
        return wait_for(f"{kind} at the receiver", look, DRIFT_SECONDS)
    except SetupError:
        return None


def _alert_line(
    what: str, expected: str, message: dict[str, Any] | None, seconds: float, used: int | None
) -> Line:
    seen = message["data"]["summary"] if message else "nothing arrived"
    return Line(what, expected, seen, message is not None, seconds, None, used)


def label(world: World) -> list[Line]:
    """A scripted annotator labels uncertain and measured images; the accuracy estimate appears."""
    begun, sent = time.monotonic(), world.users.count("shelf").sent
    done: dict[str, int] = {"improve": 0, "measure": 0}
    deadline = begun + DRIFT_SECONDS
    while done["measure"] < LABELS and time.monotonic() < deadline:
        lease = world.davy.post("/labeling/tasks/next", {"model": "shelf"})
        if lease is None:
            time.sleep(0.5)
            continue
        try:
            body = {"token": lease["token"], "label": truth(lease["request_id"])}
            world.davy.post(path("labeling", "tasks", lease["task"], "submit"), body)
        except ApiError as err:
            if err.status != 409:
                raise
            continue
        done[lease["budget"]] += 1
    accuracy = world.davy.get(path("models", "shelf", "versions", "v1", "accuracy"))
    return [
        _labels_line(done, begun, world.users.count("shelf").sent - sent),
        _accuracy_line(accuracy, begun),
    ]


def truth(request_id: str) -> str:
    """The true class of the live image that a request carried: its id ends with the image's index."""
    index = int(request_id.rsplit("-", 1)[1])
    return looks.class_names()[int(looks.live_labels()[index])]


def _labels_line(done: dict[str, int], begun: float, sent: int) -> Line:
    seen = f"{done['improve']} uncertain and {done['measure']} measured images"
    good = done["improve"] >= LABELS and done["measure"] >= LABELS
    return Line(
        "scripted annotator on shelf",
        "images of both budgets labelled",
        seen,
        good,
        time.monotonic() - begun,
        None,
        sent,
    )


def _accuracy_line(accuracy: dict[str, Any], begun: float) -> Line:
    expected = f"accuracy of v1 with its interval, n ≥ {LABELS}"
    value, low, high, n = (accuracy.get(name) for name in ("accuracy", "low", "high", "n"))
    if value is None or low is None or high is None or n is None:
        return Line("accuracy of v1 on shelf", expected, str(accuracy), False, time.monotonic() - begun)
    seen = f"{value:.1%} ({low:.1%}–{high:.1%}), n = {n}"
    good = low <= value <= high and n >= LABELS and high - low < 0.5
    return Line("accuracy of v1 on shelf", expected, seen, good, time.monotonic() - begun, n)


def server(world: World) -> list[Line]:
    """The fleet is served by Triton, not by its substitute."""
    note = world.davy.get(path("fleets", FLEET))["config"].get("server_note", "")
    return [Line("model server", "Triton", note or "Triton", not note, 0.0)]
