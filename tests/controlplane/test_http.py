"""Claims about auth, problems, limits and pages of a list, made through the real URLs."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from controlplane import registry
from controlplane.models import Role

JSON = "application/json"


def post(client: Client, path: str, body: object, **headers: str):
    return client.post(path, json.dumps(body), content_type=JSON, headers=headers)


def test_a_request_without_identity_is_a_401_problem(db):
    answer = Client().get("/api/v1/models")
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json()["code"] == "not_authenticated"
    assert answer.json()["request_id"] == answer["X-Request-Id"]


def test_a_token_without_the_scope_is_a_403(client_for):
    answer = post(client_for("read"), "/api/v1/models", {"name": "m"})
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


def test_admin_scope_implies_every_other(api):
    assert post(api, "/api/v1/models", {"name": "m"}).status_code == 201


def test_a_bad_bearer_does_not_fall_back_to_the_session(person):
    client = Client()
    client.force_login(person(role=Role.ADMIN))
    assert client.get("/api/v1/models", headers={"Authorization": "Bearer dvy_x_y"}).status_code == 401


def test_a_session_reads_by_role_and_writes_only_with_csrf(person):
    client = Client(enforce_csrf_checks=True)
    client.force_login(person(role=Role.ENGINEER))
    assert client.get("/api/v1/models").status_code == 200
    answer = post(client, "/api/v1/models", {"name": "m"})
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
    client.cookies["csrftoken"] = "a" * 32
    assert post(client, "/api/v1/models", {"name": "m"}, **{"X-CSRFToken": "a" * 32}).status_code == 201


def test_a_viewer_cannot_write(person):
    client = Client()
    client.force_login(person(role=Role.VIEWER))
    assert post(client, "/api/v1/models", {"name": "m"}).json()["code"] == "missing_scope"


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"name": 3}, "/name", "string_type"),
        ({}, "/name", "missing"),
        ({"name": "m", "colour": "red"}, "/colour", "extra_forbidden"),
        ({"name": "Not A Name"}, "/name", "bad_name"),
        ({"name": "m", "task": "juggling"}, "/task", "literal_error"),
    ],
)
def test_bad_fields_are_named_by_json_pointer(api, body, pointer, code):
    answer = post(api, "/api/v1/models", body)
    assert answer.status_code == 422
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [(pointer, code)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "not_json"),
        ('{"name": NaN}', "not_json"),
        ("[" * 100_000, "not_json"),
        ('{"name": "m", "description": "\\u0000"}', "unstorable_text"),
        ('{"name": "m", "description": "\\ud800"}', "unstorable_text"),
        (b"\xff\xfe", "not_json"),
    ],
)
def test_unreadable_bodies_are_400_problems(api, text, code):
    answer = api.post("/api/v1/models", text, content_type=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_unknown_paths_and_wrong_verbs_are_problems(api):
    missing, wrong = api.get("/api/v1/nothing"), api.delete("/api/v1/models")
    assert (missing.status_code, missing["Content-Type"]) == (404, "application/problem+json")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert set(wrong["Allow"].split(", ")) == {"GET", "POST"}


def test_a_nul_in_the_url_is_refused(api):
    assert api.get("/api/v1/models/a%00b").json()["code"] == "nul_in_url"
    assert api.get("/api/v1/models?cursor=%00").json()["code"] == "nul_in_url"


def test_an_announced_body_over_the_limit_is_413_before_it_is_read(api, settings):
    settings.MAX_BODY_BYTES = 100
    answer = post(api, "/api/v1/models", {"name": "m", "description": "x" * 200})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_handler_that_breaks_is_a_500_problem_without_its_insides(api, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(registry, "get_model", broken)
    answer = api.get("/api/v1/models/m")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert b"secret detail" not in answer.content


def test_a_list_is_read_page_by_page_without_gaps(api):
    for name in "abcde":
        post(api, "/api/v1/models", {"name": name})
    first = api.get("/api/v1/models?limit=2")
    assert [m["name"] for m in first.json()["items"]] == ["a", "b"]
    assert first["Link"].endswith('rel="next"')
    second = api.get(f"/api/v1/models?limit=3&cursor={first.json()['next']}")
    assert [m["name"] for m in second.json()["items"]] == ["c", "d", "e"]
    assert second.json()["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=201", "cursor=???", "cursor=W10", "cursor=MQ"]
)
def test_bad_paging_is_a_422_not_a_500(api, query):
    answer = api.get(f"/api/v1/models?{query}")
    assert answer.status_code in ({200, 422} if query == "cursor=MQ" else {422})


def test_every_answer_has_the_content_security_policy(db):
    assert Client().get("/healthz")["Content-Security-Policy"].startswith("default-src 'self'")


def test_a_sane_request_id_is_kept_and_another_replaced(db):
    assert Client().get("/healthz", headers={"X-Request-Id": "abc-1"})["X-Request-Id"] == "abc-1"
    assert Client().get("/healthz", headers={"X-Request-Id": "a b\tc"})["X-Request-Id"] != "a b\tc"
