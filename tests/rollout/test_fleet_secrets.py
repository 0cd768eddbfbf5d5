"""Claims about secrets in a fleet's config: they go in by REST, are kept sealed, and never come out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from controlplane import access, sealing
from controlplane.models import AuditEntry, Fleet, User
from rollout import drivers

pytestmark = pytest.mark.django_db
TOKEN = "a-very-secret-token"
CREDENTIALS = {"server": "https://10.0.0.1:6443", "token": TOKEN}
CONFIG: dict[str, Any] = {"namespace": "n", "service": "{model}", "storage_uri": "s3://{model}/{version}"}
KEEP = {"sealed": True}


@pytest.fixture
def api() -> Client:
    user = User.objects.create(username="ann")
    _, text = access.create_token(user, "test", ["admin"])
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})


def post(api: Client, credentials: Any = CREDENTIALS, **changes: Any) -> Any:
    body = {"name": "k8s", "driver": "kserve", "config": CONFIG | {"credentials": credentials} | changes}
    return api.post("/api/v1/fleets", body, content_type="application/json")


def stored() -> dict[str, Any]:
    return Fleet.objects.get(name="k8s").config


def test_a_secret_is_stored_sealed_and_shown_by_no_answer(api: Client) -> None:
    made = post(api)
    assert made.status_code == 201, made.json()
    assert made.json()["config"]["credentials"] == CREDENTIALS | {"token": KEEP}
    with connection.cursor() as cursor:
        cursor.execute("SELECT config::text FROM controlplane_fleet")
        (row,) = cursor.fetchone()
    sealed = stored()["credentials"]["token"]["sealed"]
    for answer in (made, api.get("/api/v1/fleets"), api.get("/api/v1/fleets/k8s"), post(api)):
        assert TOKEN not in answer.content.decode()
        assert sealed not in answer.content.decode()
    assert TOKEN not in row
    assert TOKEN not in json.dumps(list(AuditEntry.objects.values_list("detail", flat=True)))
    assert sealing.open_text(stored()["credentials"]["token"]) == TOKEN


def test_the_text_of_a_kubeconfig_is_a_secret_as_a_whole(api: Client) -> None:
    text = json.dumps(
        {
            "clusters": [{"name": "c", "cluster": {"server": "https://h"}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )
    body = {"name": "k8s", "driver": "kserve", "config": CONFIG | {"kubeconfig": text}}
    made = api.post("/api/v1/fleets", body, content_type="application/json")
    assert made.json()["config"]["kubeconfig"] == KEEP
    assert sealing.open_text(stored()["kubeconfig"]) == text


def test_a_stored_fleet_s_driver_opens_its_secret(api: Client) -> None:
    post(api)
    driver: Any = drivers.of(Fleet.objects.get(name="k8s"))
    assert driver.cluster.access.identity().token == TOKEN


def test_what_is_shown_can_be_posted_again_and_keeps_the_secret(api: Client) -> None:
    shown = post(api).json()["config"]
    changed = api.post(
        "/api/v1/fleets",
        {"name": "k8s", "driver": "kserve", "config": shown | {"namespace": "other"}},
        content_type="application/json",
    )
    assert changed.status_code == 200, changed.json()
    assert stored()["namespace"] == "other"
    assert sealing.open_text(stored()["credentials"]["token"]) == TOKEN


def test_a_kept_token_is_not_sent_to_another_server(api: Client) -> None:
    post(api)
    answer = post(api, {"server": "https://elsewhere.example.com", "token": KEEP})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/config/credentials/token"]
    assert stored()["credentials"]["server"] == CREDENTIALS["server"]


def test_a_new_secret_takes_the_old_one_s_place(api: Client) -> None:
    post(api)
    post(api, CREDENTIALS | {"token": "newer"})
    assert sealing.open_text(stored()["credentials"]["token"]) == "newer"


@pytest.mark.parametrize("token", [KEEP, {"sealed": "gAAAAA"}, {"sealed": False}, 5, None, ["t"]])
def test_a_secret_that_is_not_there_to_be_kept_is_refused_at_its_field(api: Client, token: Any) -> None:
    answer = post(api, CREDENTIALS | {"token": token})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/config/credentials/token"]
    assert not Fleet.objects.exists()


def test_nobody_puts_sealed_text_of_elsewhere_into_a_stored_fleet(api: Client) -> None:
    post(api)
    answer = post(api, CREDENTIALS | {"token": stored()["credentials"]["token"]})
    assert answer.status_code == 422
    assert sealing.open_text(stored()["credentials"]["token"]) == TOKEN


def test_a_refusal_of_another_field_does_not_repeat_the_secret(api: Client) -> None:
    answer = post(api, CREDENTIALS | {"server": "ftp://h", "token": TOKEN})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/config/credentials/server"]
    assert TOKEN not in answer.content.decode()


def test_check_of_a_cluster_that_is_away_says_so_without_the_secret(api: Client) -> None:
    post(api, {"server": "https://127.0.0.1:1", "token": TOKEN})
    answer = api.post("/api/v1/fleets/k8s/check", {}, content_type="application/json").json()
    assert (answer["ok"], answer["retry"]) == (False, True)
    assert TOKEN not in json.dumps(answer)
