"""Claims about the first admin."""

from __future__ import annotations

import io
import json

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.utils import timezone

from controlplane import access
from controlplane.models import User


def bootstrap(*options: str) -> dict:
    out = io.StringIO()
    call_command("bootstrap", "--json", *options, stdout=out)
    return json.loads(out.getvalue())


def scopes_of(text: str) -> frozenset[str] | None:
    identity = access.authenticate_token(text, timezone.now())
    return identity.scopes if identity else None


@pytest.mark.django_db
def test_a_fresh_installation_gets_one_admin_and_two_tokens():
    made = bootstrap()
    assert authenticate(username=made["user"], password=made["password"]).role == "admin"
    assert scopes_of(made["token"]) == frozenset(access.SCOPES)
    assert scopes_of(made["telemetry_token"]) == {"telemetry"}


@pytest.mark.django_db
def test_a_second_call_changes_nothing():
    made = bootstrap()
    assert bootstrap() == {"user": "admin", "exists": True}
    assert scopes_of(made["token"]) is not None
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_rotating_replaces_password_and_tokens():
    old, new = bootstrap(), bootstrap("--rotate")
    assert authenticate(username="admin", password=old["password"]) is None
    assert authenticate(username="admin", password=new["password"]) is not None
    assert (scopes_of(old["token"]), scopes_of(old["telemetry_token"])) == (None, None)
    assert scopes_of(new["token"]) == frozenset(access.SCOPES)


@pytest.mark.django_db
def test_with_any_user_there_is_no_default_admin():
    User.objects.create_user("somebody")
    assert bootstrap() == {"user": "admin", "exists": True}
    assert not User.objects.filter(username="admin").exists()
