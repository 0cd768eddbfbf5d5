"""Stored plans: every edit has a number, nothing is overwritten, and a running rollout keeps its copy."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from controlplane.models import AuditEntry
from controlplane.problems import Problem
from rollout import commands
from rollout.models import Rollout, StoredPlan
from rollout.plans import stored as plans
from tests.labeling.threads import together
from tests.rollout.api.test_rollouts import client, named, post
from tests.rollout.scene import Scene

pytestmark = pytest.mark.django_db
V1 = "/api/v1"
MINE: dict[str, Any] = {
    "name": "mine",
    "steps": [{"weight_percent": 5, "dwell_seconds": 60}, {"weight_percent": 50}],
    "gates": [{"name": "errors", "weight": 1.0}],
}


@pytest.fixture
def api() -> Client:
    return client("read", "deploy")


@pytest.fixture
def stored() -> StoredPlan:
    return plans.create(MINE, actor="ann", now=timezone.now())[0]


def put(api: Client, body: dict[str, Any], etag: str | None, method: str = "put", name: str = "mine") -> Any:
    headers = {"If-Match": etag} if etag is not None else {}
    call = getattr(api, method)
    return call(f"{V1}/plans/{name}", body, content_type="application/json", headers=headers)


def test_a_plan_is_stored_under_number_1_and_the_same_body_again_is_the_same_plan(api: Client) -> None:
    made = post(api, "/plans", **MINE)
    assert (made.status_code, made.json()["number"], made.json()["plan"]) == (201, 1, MINE)
    assert made.json()["created_by"] == "ann"
    again = post(api, "/plans", **MINE)
    assert (again.status_code, again.json()["number"]) == (200, 1)
    assert StoredPlan.objects.count() == 1
    assert AuditEntry.objects.get(act="plan.create").subject == "plan mine"


def test_another_plan_of_the_same_name_is_a_conflict(api: Client, stored: StoredPlan) -> None:
    assert named(post(api, "/plans", **MINE | {"alpha": 0.05})) == (409, "plan_exists", ["/name"])
    assert StoredPlan.objects.count() == 1


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ((409, "name_taken", ["/name"]), {"name": "standard"}),
        ((422, "bad_name", ["/name"]), {"name": "Not A Name"}),
        ((422, "required", ["/name"]), {"name": None}),
        ((422, "bad_plan", ["/steps"]), {"steps": []}),
        (
            (422, "bad_plan", ["/steps/1/weight_percent"]),
            {"steps": [{"weight_percent": 5}, {"weight_percent": 1}]},
        ),
        ((422, "bad_plan", ["/gates/0/name"]), {"gates": [{"name": "colour"}]}),
        (
            (422, "bad_plan", ["/gates/0/settings/theta0"]),
            {"gates": [{"name": "errors", "settings": {"theta0": 0}}]},
        ),
        ((422, "bad_plan", ["/colour"]), {"colour": "red"}),
    ],
)
def test_12_a_plan_that_cannot_run_is_refused_at_its_field_and_not_stored(
    api: Client, answer: tuple[int, str, list[str]], changes: dict[str, Any]
) -> None:
    assert named(post(api, "/plans", **MINE | changes)) == answer
    assert not StoredPlan.objects.exists()


def test_an_edit_makes_a_new_number_and_the_old_one_stays_as_it_was(api: Client, stored: StoredPlan) -> None:
    shown = api.get(f"{V1}/plans/mine")
    edited = put(api, MINE | {"alpha": 0.05}, shown["ETag"])
    assert (edited.status_code, edited.json()["number"], edited.json()["plan"]["alpha"]) == (200, 2, 0.05)
    assert edited["ETag"] != shown["ETag"]
    first = api.get(f"{V1}/plans/mine?number=1").json()
    assert (first["number"], first["plan"]) == (1, MINE)
    assert api.get(f"{V1}/plans/mine").json()["number"] == 2


def test_an_edit_that_changes_nothing_makes_no_number(api: Client, stored: StoredPlan) -> None:
    etag = api.get(f"{V1}/plans/mine")["ETag"]
    assert put(api, MINE, etag).json()["number"] == 1


def test_patch_replaces_single_fields_and_null_takes_one_away(api: Client, stored: StoredPlan) -> None:
    etag = api.get(f"{V1}/plans/mine")["ETag"]
    second = put(api, {"alpha": 0.05, "watch_seconds": 5}, etag, "patch")
    assert second.json()["plan"] == MINE | {"alpha": 0.05, "watch_seconds": 5}
    third = put(api, {"alpha": None}, second["ETag"], "patch")
    assert third.json()["plan"] == MINE | {"watch_seconds": 5}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_change_needs_the_etag_of_what_was_seen(api: Client, stored: StoredPlan, method: str) -> None:
    seen = api.get(f"{V1}/plans/mine")["ETag"]
    assert named(put(api, MINE | {"alpha": 0.05}, None, method))[:2] == (428, "if_match_required")
    assert put(api, MINE | {"alpha": 0.05}, seen, method).status_code == 200
    assert named(put(api, MINE | {"alpha": 0.1}, seen, method))[:2] == (412, "changed_meanwhile")
    assert StoredPlan.objects.filter(name="mine").count() == 2


def test_a_plan_keeps_its_name(api: Client, stored: StoredPlan) -> None:
    etag = api.get(f"{V1}/plans/mine")["ETag"]
    assert named(put(api, MINE | {"name": "yours"}, etag)) == (422, "name_differs", ["/name"])


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_a_shipped_plan_cannot_be_changed(api: Client, method: str) -> None:
    assert named(put(api, MINE, "*", method, "standard")) == (409, "shipped", ["/plan"])


def test_the_list_marks_shipped_plans_and_shows_the_latest_number_of_stored_ones(
    api: Client, stored: StoredPlan
) -> None:
    put(api, MINE | {"alpha": 0.05}, api.get(f"{V1}/plans/mine")["ETag"])
    post(api, "/plans", **MINE | {"name": "other"})
    items = {item["name"]: item for item in api.get(f"{V1}/plans").json()["items"]}
    assert {"standard", "careful", "fast", "router-only", "shadow-first", "on-device"} <= set(items)
    assert items["standard"]["shipped"] is True
    assert (items["mine"]["shipped"], items["mine"]["number"]) == (False, 2)
    assert "other" in items


def test_pages_of_plans_bring_the_shipped_ones_once(api: Client) -> None:
    for name in ("a", "b", "c"):
        post(api, "/plans", **MINE | {"name": name})
    first = api.get(f"{V1}/plans?limit=2").json()
    following = api.get(f"{V1}/plans?limit=2&cursor={first['next']}").json()
    assert [item["name"] for item in first["items"] if not item["shipped"]] == ["a", "b"]
    assert [item["name"] for item in following["items"]] == ["c"]


def test_a_shipped_plan_is_shown_like_a_stored_one(api: Client) -> None:
    shown = api.get(f"{V1}/plans/careful").json()
    assert (shown["shipped"], shown["number"], shown["plan"]["name"]) == (True, 0, "careful")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/plans/reckless", (404, "unknown_plan", ["/plan"])),
        ("/plans/mine?number=7", (404, "unknown_number", ["/number"])),
        ("/plans/mine?number=x", (422, "bad_number", ["/number"])),
        ("/plans/standard?number=3", (404, "unknown_plan", ["/plan"])),
    ],
)
def test_a_plan_that_is_not_there_is_a_problem(
    api: Client, stored: StoredPlan, path: str, answer: tuple[int, str, list[str]]
) -> None:
    assert named(api.get(V1 + path)) == answer


def test_a_retired_plan_starts_nothing_and_stays_readable(api: Client, stored: StoredPlan) -> None:
    retired = api.delete(f"{V1}/plans/mine")
    assert retired.status_code == 200
    assert retired.json()["retired_at"]
    assert api.delete(f"{V1}/plans/mine").json()["retired_at"] == retired.json()["retired_at"]
    assert api.get(f"{V1}/plans/mine?number=1").json()["plan"] == MINE
    assert "mine" not in {item["name"] for item in api.get(f"{V1}/plans").json()["items"]}
    with pytest.raises(Problem) as refused:
        commands.read_plan("mine")
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (409, "/plan")
    assert named(put(api, MINE, retired["ETag"])) == (409, "retired", ["/plan"])


def test_a_retired_name_goes_on_with_the_next_number(api: Client, stored: StoredPlan) -> None:
    api.delete(f"{V1}/plans/mine")
    again = post(api, "/plans", **MINE)
    assert (again.status_code, again.json()["number"]) == (201, 2)
    assert commands.read_plan("mine").number == 2


def test_a_rollout_says_which_number_of_its_plan_it_runs(stored: StoredPlan, api: Client) -> None:
    scene = Scene("local")
    scene.version("v1")
    body = {"model": "products", "version": "v1", "fleet": "local", "plan": "mine"}
    made = post(api, "/rollouts", **body).json()
    assert (made["plan"]["name"], made["plan"]["number"]) == ("mine", 1)
    missing = post(api, "/rollouts", **body | {"plan": "reckless"})
    assert named(missing) == (404, "unknown_plan", ["/plan"])
    assert "mine" in missing.json()["detail"]


def test_11_an_edit_applies_to_the_next_rollout_never_to_the_running_one(
    api: Client, stored: StoredPlan
) -> None:
    scene = Scene("local")
    scene.live()
    running = scene.run(scene.start(scene.version("v2"), "mine"), 10, until="running")
    put(api, MINE | {"steps": [{"weight_percent": 1}]}, api.get(f"{V1}/plans/mine")["ETag"])
    scene.run(running, 5)
    assert [step["weight_percent"] for step in Rollout.objects.get(pk=running.pk).plan["steps"]] == [5, 50]
    following = scene.start(scene.version("v3"), "mine")
    assert (following.plan["number"], following.plan["steps"][0]["weight_percent"]) == (2, 1)


def test_the_database_writes_a_number_of_a_plan_once(stored: StoredPlan) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        StoredPlan.objects.create(name="mine", number=1, body=MINE, created_by="bob")


@pytest.mark.django_db(transaction=True)
def test_of_two_edits_at_once_one_wins_and_the_other_is_told() -> None:
    seen = plans.create(MINE, actor="ann", now=timezone.now())[0]

    def edit(alpha: float) -> int:
        try:
            return plans.change("mine", MINE | {"alpha": alpha}, seen, actor="ann", now=timezone.now()).number
        except Problem as refused:
            return refused.status

    assert sorted(together(lambda index: edit((0.05, 0.06)[index]), 2)) == [2, 412]


@pytest.mark.parametrize(
    ("scopes", "method", "status"),
    [
        (("read",), "post", 403),
        (("deploy",), "get", 403),
        (("read",), "delete", 403),
        (("telemetry",), "get", 403),
    ],
)
def test_reading_plans_needs_read_and_changing_them_deploy(
    scopes: tuple[str, ...], method: str, status: int
) -> None:
    path = "/plans" if method == "post" else "/plans/standard"
    call = getattr(client(*scopes), method)
    assert call(V1 + path, {}, content_type="application/json").status_code == status
