"""Monitoring's REST paths as the tests use them: a version, clients with scopes, references and reports to send."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pytest
from django.test import Client
from django.utils import timezone

from controlplane import access
from controlplane.models import User
from monitoring import windows
from tests.monitoring.build import report, version, window

VERSION = "/api/v1/models/products/versions/v1"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def v1(db):
    return version()


@pytest.fixture
def client_for(db):
    def make(*scopes):
        user, _ = User.objects.get_or_create(username="ann", defaults={"role": "engineer"})
        _token, text = access.create_token(user, "test", scopes)
        return Client(headers={"Authorization": f"Bearer {text}"})

    return make


@pytest.fixture
def api(client_for):
    return client_for("read", "telemetry", "deploy")


def arrays(rng, n=300, d=6):
    return {"embeddings": rng.normal(size=(n, d)).astype("f4"), "confidences": rng.random(n)}


def packed(content):
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def put(api, body):
    return api.put(f"{VERSION}/reference", body, content_type="application/x-npz")


def post(api, path, body, kind="application/json", **headers):
    return api.post(f"/api/v1/telemetry/{path}", body, content_type=kind, headers=headers)


def now_window(rng, v1, **fields):
    """A report of the last closed ten seconds."""
    return report(
        v1, [window(rng, **fields)], start=windows.aligned(timezone.now(), 10) - timedelta(seconds=10)
    )
