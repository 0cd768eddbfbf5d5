"""Fleets and rollouts over REST: what is made, what is shown, and which field a refusal names."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import AuditEntry, Fleet, Route, User
from rollout import commands
from rollout.models import Rollout, RolloutEvent
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
V1 = "/api/v1"


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene("local")


def client(*scopes: str) -> Client:
    user, _ = User.objects.get_or_create(username="ann")
    _, text = access.create_token(user, "test", scopes)
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})


@pytest.fixture
def api() -> Client:
    return client("admin")


def post(api: Client, path: str, **body: Any) -> Any:
    return api.post(V1 + path, body, content_type="application/json")


def named(response: Any) -> tuple[int, str, list[str]]:
    """(status, code, pointers) of a problem."""
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["detail"]
    return response.status_code, problem["code"], [error["pointer"] for error in problem["errors"]]


@pytest.fixture
def at_5(scene: Scene) -> Rollout:
    scene.live()
    return scene.run(scene.start(scene.version("v2")), 10, until="running")


# Fleets


def test_a_fleet_is_made_once_and_takes_a_new_config(api: Client) -> None:
    fleet = {"name": "shop", "driver": "memory", "config": {"name": "one"}}
    made = post(api, "/fleets", **fleet)
    assert (made.status_code, made.json()["driver"]) == (201, "memory")
    assert post(api, "/fleets", **fleet).status_code == 200
    changed = post(api, "/fleets", **fleet | {"config": {"name": "two"}})
    assert (changed.status_code, changed.json()["config"]) == (200, {"name": "two"})
    acts = AuditEntry.objects.filter(subject="shop").order_by("id").values_list("act", flat=True)
    assert list(acts) == ["fleet.create", "fleet.configure", "fleet.configure"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ((422, "unknown_driver", ["/driver"]), {"driver": "pigeon"}),
        ((422, "bad_config", ["/config/colour"]), {"config": {"colour": "red"}}),
        ((422, "bad_config", ["/config/directory"]), {"driver": "envoy"}),
        ((422, "bad_name", ["/name"]), {"name": "Not A Name"}),
        ((422, "invalid", ["/name"]), {"name": 7}),
        ((422, "invalid", ["/config"]), {"config": "red"}),
        ((422, "invalid", ["/colour"]), {"colour": "red"}),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_at_its_field(
    api: Client, answer: tuple[int, str, list[str]], body: dict[str, Any]
) -> None:
    response = post(api, "/fleets", **{"name": "shop", "driver": "memory"} | body)
    assert named(response) == answer
    assert not Fleet.objects.exists()


def test_a_fleet_keeps_its_driver(api: Client, scene: Scene, tmp_path: Any) -> None:
    slots = {name: {"url": "http://127.0.0.1:9"} for name in ("a", "b")}
    config = {"directory": str(tmp_path), "admin_urls": ["http://127.0.0.1:9"], "slots": slots}
    response = post(api, "/fleets", name="local", driver="envoy", config=config)
    assert named(response) == (409, "driver_differs", ["/driver"])


def test_a_fleet_shows_each_route_s_roles_and_weights(api: Client, at_5: Rollout, scene: Scene) -> None:
    scene.run(at_5, 1)
    shown = api.get(f"{V1}/fleets/local").json()
    (route,) = shown["routes"]
    assert {key: route[key] for key in ("model", "stable", "stable_slot", "canary")} == {
        "model": "products",
        "stable": "v1",
        "stable_slot": "a",
        "canary": "v2",
    }
    assert (route["weight_percent"], route["observed_weight_percent"]) == (5, 5)
    assert api.get(f"{V1}/fleets").json()["items"] == [shown]


def test_an_unknown_fleet_is_a_problem_that_names_it(api: Client) -> None:
    for response in (api.get(f"{V1}/fleets/mars"), post(api, "/fleets/mars/check")):
        assert named(response) == (404, "unknown_fleet", ["/fleet"])


def test_check_says_whether_the_fleet_answers(api: Client, scene: Scene) -> None:
    assert post(api, "/fleets/local/check").json() == {"ok": True, "loaded": 0}
    scene.memory.refuse = "503 from the gateway"
    answer = post(api, "/fleets/local/check").json()
    assert answer == {"ok": False, "detail": "503 from the gateway", "retry": True}


# Starting


def asked(scene: Scene, **changes: Any) -> dict[str, Any]:
    return {"model": "products", "version": "v1", "fleet": scene.name, "plan": PLAN} | changes


def test_a_rollout_is_made_and_the_same_version_again_is_the_same_rollout(api: Client, scene: Scene) -> None:
    scene.version("v1")
    made = post(api, "/rollouts", **asked(scene))
    assert (made.status_code, made.json()["state"], made.json()["weight_percent"]) == (201, "pending", 0)
    again = post(api, "/rollouts", **asked(scene, plan="careful"))
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert AuditEntry.objects.get(act="rollout.start").actor == "ann"


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ((404, "unknown_model", ["/model"]), {"model": "hats"}),
        ((404, "unknown_version", ["/version"]), {"version": "v9"}),
        ((404, "unknown_fleet", ["/fleet"]), {"fleet": "mars"}),
        ((404, "unknown_plan", ["/plan"]), {"plan": "reckless"}),
        ((422, "bad_plan", ["/plan/steps"]), {"plan": {}}),
        ((422, "bad_plan", ["/plan/gates/0/name"]), {"plan": {**PLAN, "gates": [{"name": "colour"}]}}),
        (
            (422, "bad_plan", ["/plan/steps/1/weight_percent"]),
            {"plan": {**PLAN, "steps": [{"weight_percent": 50}, {"weight_percent": 5}]}},
        ),
        ((422, "invalid", ["/version"]), {"version": 1}),
        ((422, "invalid", ["/dry_run"]), {"dry_run": "yes"}),
        ((422, "invalid", ["/colour"]), {"colour": "red"}),
    ],
)
def test_a_rollout_that_cannot_be_is_refused_at_its_field(
    api: Client, scene: Scene, answer: tuple[int, str, list[str]], changes: dict[str, Any]
) -> None:
    scene.version("v1")
    assert named(post(api, "/rollouts", **asked(scene, **changes))) == answer
    assert not Rollout.objects.exists()
    assert not Route.objects.exists()


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    api: Client, at_5: Rollout, scene: Scene
) -> None:
    scene.version("v3")

    def facts() -> list[int]:
        return [kind.objects.count() for kind in (Rollout, Route, AuditEntry, RolloutEvent)]

    before, calls = facts(), len(scene.memory.calls)
    answer = post(api, "/rollouts", **asked(scene, version="v3", dry_run=True))
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["dry_run"], shown["version"], shown["stable"]) == (True, "v3", "v1")
    assert [step["weight_percent"] for step in shown["plan"]["steps"]] == [5, 50]
    assert (facts(), len(scene.memory.calls)) == (before, calls)
    assert scene.get(at_5).state == "running"


# Showing


def test_a_rollout_is_shown_with_its_gates_and_both_weights(api: Client, at_5: Rollout, scene: Scene) -> None:
    scene.run(at_5, 5)
    shown = api.get(f"{V1}/rollouts/{at_5.pk}").json()
    wanted = {"model": "products", "version": "v2", "stable": "v1", "fleet": "local", "state": "running"}
    assert {key: shown[key] for key in wanted} == wanted
    assert (shown["step"], shown["weight_percent"], shown["observed_weight_percent"]) == (0, 5, 5)
    assert shown["ended_at"] is None
    (gate,) = shown["gates"]
    assert {"name", "verdict", "value", "bound", "n", "reason"} <= set(gate)


def test_23_the_weights_shown_are_the_new_version_s_share(api: Client, at_5: Rollout, scene: Scene) -> None:
    def shares(rollout: Rollout) -> tuple[float, float]:
        shown = api.get(f"{V1}/rollouts/{rollout.pk}").json()
        return shown["weight_percent"], shown["observed_weight_percent"]

    commands.act(at_5.pk, "promote", actor="ann", reason="because", now=scene.now)
    assert scene.run(at_5, 30).state == "promoted"
    assert shares(at_5) == (100, 100)
    bad = scene.run(scene.start(scene.version("v3", Behaviour(errors=1))), 60)
    assert (bad.state, shares(bad)) == ("rolled_back", (0, 0))
    newer = scene.run(scene.start(scene.version("v4")), 10, until="running")
    scene.run(newer, 2)
    assert shares(newer) == (5, 5)
    assert shares(bad) == (0, 0)  # 5 % is another version's
    assert shares(at_5) == (100, 95)


def test_waiting_for_the_end_answers_at_once_when_it_is_over_or_the_time_is_up(
    api: Client, at_5: Rollout, scene: Scene
) -> None:
    waiting = api.get(f"{V1}/rollouts/{at_5.pk}?wait=terminal&timeout=0")
    assert waiting.json()["state"] == "running"
    commands.act(at_5.pk, "abort", actor="ann", reason="because", now=scene.now)
    scene.run(at_5, 5)
    over = api.get(f"{V1}/rollouts/{at_5.pk}?wait=terminal").json()
    assert (over["state"], over["ended_at"] is None) == ("aborted", False)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("wait=forever", (422, "unknown_wait", ["/wait"])),
        ("wait=terminal&timeout=-1", (422, "bad_timeout", ["/timeout"])),
        ("wait=terminal&timeout=61", (422, "bad_timeout", ["/timeout"])),
        ("wait=terminal&timeout=nan", (422, "bad_timeout", ["/timeout"])),
        ("wait=terminal&timeout=soon", (422, "bad_timeout", ["/timeout"])),
    ],
)
def test_a_wait_that_cannot_be_is_refused(
    api: Client, scene: Scene, query: str, answer: tuple[int, str, list[str]]
) -> None:
    rollout = scene.start(scene.version("v1"))
    assert named(api.get(f"{V1}/rollouts/{rollout.pk}?{query}")) == answer


def test_an_unknown_rollout_is_a_problem(api: Client) -> None:
    for path in ("", "/events", "/evidence"):
        assert named(api.get(f"{V1}/rollouts/999999{path}")) == (404, "unknown_rollout", [])
    assert named(post(api, "/rollouts/999999/abort", reason="x")) == (404, "unknown_rollout", [])


def test_rollouts_are_listed_by_state_and_model(api: Client, at_5: Rollout) -> None:
    def ids(query: str) -> list[int]:
        return [item["id"] for item in api.get(f"{V1}/rollouts?{query}").json()["items"]]

    assert ids("state=active") == ids("state=running") == [at_5.pk]
    assert len(ids("state=promoted")) == 1
    assert ids("") == ids("model=products")
    assert ids("")[0] == at_5.pk
    assert named(api.get(f"{V1}/rollouts?state=lost")) == (422, "unknown_state", ["/state"])
    assert named(api.get(f"{V1}/rollouts?model=hats")) == (404, "unknown_model", ["/model"])


def test_the_log_and_the_evidence_can_be_read(api: Client, at_5: Rollout, scene: Scene) -> None:
    scene.run(at_5, 8)
    (event,) = api.get(f"{V1}/rollouts/{at_5.pk}/events").json()["items"]
    assert (event["state"], event["weight_percent"], event["actor"]) == ("running", 5, "davy")
    assert "the version is ready" in event["reason"]
    evidence = f"{V1}/rollouts/{at_5.pk}/evidence"
    items = api.get(f"{evidence}?gate=errors").json()["items"]
    assert len(items) >= 4
    assert set(items[0]) == {"gate", "source", "from", "to", "step", "weight_percent", "arms", "log_e"}
    assert items[0]["arms"]["canary"]["n"] > 0
    assert api.get(f"{evidence}?gate=colour").json()["items"] == []
    first = api.get(f"{evidence}?limit=2").json()
    following = api.get(f"{evidence}?limit=2&cursor={first['next']}").json()
    assert [i["from"] for i in first["items"] + following["items"]] == [i["from"] for i in items[:4]]


def test_the_shipped_plans_are_listed(api: Client) -> None:
    names = [plan["name"] for plan in api.get(f"{V1}/plans").json()["items"]]
    assert {"standard", "careful", "fast", "router-only"} <= set(names)


# Commands


def test_commands_are_accepted_with_a_reason(api: Client, at_5: Rollout) -> None:
    path = f"/rollouts/{at_5.pk}"
    paused = post(api, f"{path}/pause", reason="lunch")
    assert (paused.status_code, paused.json()["state"]) == (202, "paused")
    assert post(api, f"{path}/resume", reason="back").json()["state"] == "running"
    assert post(api, f"{path}/abort", reason="enough").json()["state"] == "rolling_back"


@pytest.mark.parametrize(
    ("command", "body", "answer"),
    [
        ("abort", {"reason": ""}, (422, "required", ["/reason"])),
        ("abort", {"reason": " \n"}, (422, "required", ["/reason"])),
        ("abort", {}, (422, "invalid", ["/reason"])),
        ("abort", {"reason": 5}, (422, "invalid", ["/reason"])),
        ("dance", {"reason": "x"}, (404, "unknown_command", [])),
        ("retry", {"reason": "x"}, (409, "not_now", [])),
        ("retry", {"reason": ""}, (422, "required", ["/reason"])),
    ],
)
def test_a_command_that_cannot_be_is_refused(
    api: Client, scene: Scene, command: str, body: dict[str, Any], answer: tuple[int, str, list[str]]
) -> None:
    rollout = scene.start(scene.version("v1"))
    assert named(post(api, f"/rollouts/{rollout.pk}/{command}", **body)) == answer
    assert scene.get(rollout).state == "pending"


def test_retry_answers_with_the_new_rollout(api: Client, scene: Scene) -> None:
    rollout = scene.start(scene.version("v1"))
    post(api, f"/rollouts/{rollout.pk}/abort", reason="typo")
    again = post(api, f"/rollouts/{rollout.pk}/retry", reason="now it is right")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert again.json()["id"] != rollout.pk


# Who may


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        (("read",), "get", "/fleets", 200),
        (("read",), "get", "/rollouts", 200),
        (("read",), "get", "/plans", 200),
        (("read",), "post", "/fleets", 403),
        (("read",), "post", "/rollouts", 403),
        (("read",), "post", "/rollouts/1/abort", 403),
        (("deploy",), "post", "/fleets", 403),
        (("deploy",), "get", "/fleets", 403),
        (("telemetry", "label"), "get", "/rollouts", 403),
        (("telemetry", "label"), "post", "/rollouts/1/abort", 403),
    ],
)
def test_a_token_does_only_what_its_scopes_allow(
    scopes: tuple[str, ...], method: str, path: str, status: int
) -> None:
    call = getattr(client(*scopes), method)
    response = call(V1 + path, {}, content_type="application/json")
    assert response.status_code == status


def test_without_a_token_nothing_is_shown() -> None:
    nobody = Client(raise_request_exception=False)
    assert named(nobody.get(f"{V1}/fleets")) == (401, "not_authenticated", [])
