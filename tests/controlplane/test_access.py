"""Claims about tokens, roles and scopes."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import Fleet, Role, Token
from controlplane.problems import Problem
from tests.controlplane.conftest import NOW


@pytest.fixture
def made(person):
    return access.create_token(person(), "ci", ["read"], expires_at=NOW + timedelta(days=1))


def test_a_token_names_its_user_and_scopes_and_only_its_hash_is_kept(made):
    token, text = made
    identity = access.authenticate_token(text, NOW)
    assert (identity.user.username, identity.scopes) == ("ann", {"read"})
    assert text.startswith(f"dvy_{token.public_id}_")
    assert text.split("_", 2)[2] not in json.dumps(Token.objects.values().get(), default=str)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text + "x",
        lambda text: text.rpartition("_")[0],
        lambda text: "dvy_000000000000_" + text.split("_", 2)[2],
        lambda text: "dvy__",
        lambda text: "",
        lambda text: "dvy_\x00_a",
        lambda text: "dvy_a_\udcff",
    ],
)
def test_anything_else_than_the_token_is_refused(made, spoil):
    assert access.authenticate_token(spoil(made[1]), NOW) is None


def test_an_expired_or_revoked_token_or_one_of_an_inactive_user_is_refused(made):
    token, text = made
    assert access.authenticate_token(text, NOW + timedelta(days=1)) is None
    token.user.is_active = False
    token.user.save()
    assert access.authenticate_token(text, NOW) is None
    token.user.is_active = True
    token.user.save()
    access.revoke_token(token, NOW)
    assert access.authenticate_token(text, NOW) is None


def test_last_use_is_written_once_a_minute(made):
    token, text = made
    for seconds, expected in ((0, 0), (30, 0), (61, 61)):
        access.authenticate_token(text, NOW + timedelta(seconds=seconds))
        token.refresh_from_db()
        assert token.last_used_at == NOW + timedelta(seconds=expected)


@pytest.mark.parametrize("scopes", [[], ["fly"]])
def test_a_token_needs_known_scopes(person, scopes):
    with pytest.raises(Problem, match="scope"):
        access.create_token(person(), "x", scopes)


# Tokens that Envoys carry


@pytest.fixture
def fleet(db):
    return Fleet.objects.create(name="shop", driver="envoy")


def test_a_token_of_an_envoy_opens_its_fleet_s_configuration_and_no_other(person, fleet):
    other = Fleet.objects.create(name="other", driver="envoy")
    text = access.create_token(person(), "edge", ["envoy"], fleet=fleet)[1]
    assert access.authenticate_fleet(text, NOW) == fleet != other
    assert access.authenticate_fleet(text + "x", NOW) is None


@pytest.mark.parametrize("role", list(Role))
def test_no_role_and_no_other_scope_opens_a_fleet_s_configuration(person, role):
    user = person(role=role)
    assert access.FLEET_SCOPE not in access.role_scopes(user)
    text = access.create_token(user, "x", access.SCOPES)[1]
    assert access.authenticate_fleet(text, NOW) is None


@pytest.mark.parametrize(
    ("scopes", "with_fleet", "pointer"),
    [(["envoy"], False, "/fleet"), (["read"], True, "/fleet"), (["envoy", "read"], True, "/scopes")],
)
def test_a_fleet_goes_with_the_scope_envoy_and_that_with_no_other(person, fleet, scopes, with_fleet, pointer):
    with pytest.raises(Problem) as refused:
        access.create_token(person(), "x", scopes, fleet=fleet if with_fleet else None)
    assert refused.value.errors[0]["pointer"] == pointer


def test_a_token_for_envoys_is_made_over_rest(api, fleet):
    def post(body):
        return api.post("/api/v1/tokens", json.dumps(body), content_type="application/json")

    made = post({"name": "edge", "scopes": ["envoy"], "fleet": "shop"})
    assert (made.status_code, made.json()["fleet"]) == (201, "shop")
    assert access.authenticate_fleet(made.json()["token"], NOW) == fleet
    assert post({"name": "edge", "scopes": ["envoy"], "fleet": "nowhere"}).status_code == 404
    assert api.get("/api/v1/tokens").json()["items"][0]["fleet"] == "shop"


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        (Role.VIEWER, "read"),
        (Role.ANNOTATOR, "read label"),
        (Role.ENGINEER, "read deploy label telemetry"),
        (Role.APPROVER, "read deploy label telemetry"),
        (Role.ADMIN, "read telemetry deploy label admin"),
    ],
)
def test_each_role_grants_its_scopes(person, role, scopes):
    assert access.role_scopes(person(role=role)) == set(scopes.split())


def test_a_token_is_made_shown_once_used_and_revoked_over_rest(api):
    def post(body):
        return api.post("/api/v1/tokens", json.dumps(body), content_type="application/json")

    made = post({"name": "ci", "scopes": ["read"]})
    assert made.status_code == 201
    ci = Client(headers={"Authorization": f"Bearer {made.json()['token']}"})
    assert ci.get("/api/v1/me").json()["scopes"] == ["read"]
    listed = api.get("/api/v1/tokens")
    assert made.json()["token"].split("_", 2)[2] not in listed.content.decode()
    assert api.delete(f"/api/v1/tokens/{made.json()['id']}").status_code == 200
    assert ci.get("/api/v1/me").status_code == 401
    acts = [(e["act"], e["actor"]) for e in api.get("/api/v1/audit").json()["items"]]
    assert acts == [("token.revoke", "root"), ("token.create", "root")]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "scopes": ["fly"]}, "/scopes"),
        ({"name": "x", "scopes": ["read"], "user": "nobody"}, "/user"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"name": "", "scopes": ["read"]}, "/name"),
    ],
)
def test_a_bad_token_request_names_the_field(api, body, pointer):
    answer = api.post("/api/v1/tokens", json.dumps(body), content_type="application/json")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_only_admins_make_tokens(client_for):
    answer = client_for("deploy").post(
        "/api/v1/tokens", '{"name": "x", "scopes": ["admin"]}', content_type="application/json"
    )
    assert answer.status_code == 403
