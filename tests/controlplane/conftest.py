"""People, tokens and clients for the tests of the control plane."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import Role, User

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def person(db) -> Callable[..., User]:
    def make(name: str = "ann", role: str = Role.ENGINEER) -> User:
        return User.objects.create_user(name, role=role)

    return make


@pytest.fixture
def client_for(person) -> Callable[..., Client]:
    """A client whose token has exactly these scopes; errors come back as answers, as they do in production."""

    def make(*scopes: str, name: str = "ann") -> Client:
        user = User.objects.filter(username=name).first() or person(name)
        _token, text = access.create_token(user, "test", scopes)
        return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})

    return make


@pytest.fixture
def api(client_for) -> Client:
    return client_for("admin", name="root")
