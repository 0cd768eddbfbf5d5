"""Claims about health, metrics and the documents of the API."""

from __future__ import annotations

import json

from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from controlplane import alerts
from controlplane.models import Fleet, Model, Route
from tests.controlplane.conftest import NOW


def samples() -> dict[tuple, float]:
    text = Client().get("/metrics").content.decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_process_that_answers_is_healthy(db):
    assert Client().get("/healthz").json() == {"status": "ok"}


def test_ready_needs_database_and_broker(db, settings):
    assert Client().get("/readyz").json() == {"status": "ok", "database": "ok", "broker": "ok"}
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "ok")
    assert answer.json()["broker"] == "ConnectionError"


def test_metrics_tell_open_alerts_and_weights_asked_and_observed(db):
    route = Route.objects.create(
        model=Model.objects.create(name="products"), fleet=Fleet.objects.create(name="local")
    )
    route.weight_percent, route.observed_weight_percent = 25, 5
    route.save()
    alerts.open("a", severity="error", summary="x", now=NOW)
    alerts.open("b", severity="error", summary="x", now=NOW)
    alerts.open("c", severity="info", summary="x", now=NOW)
    alerts.resolve("c", resolution="over", now=NOW)
    found = samples()
    assert found["davy_alerts_open", "error"] == 2
    assert found["davy_alerts_open", "info"] == 0
    assert found["davy_route_weight_percent", "asked", "local", "products"] == 25
    assert found["davy_route_weight_percent", "local", "observed", "products"] == 5
    assert found["davy_build_info", "0.1.0"] == 1


def test_a_weight_never_observed_is_absent_not_zero(db):
    Route.objects.create(
        model=Model.objects.create(name="products"), fleet=Fleet.objects.create(name="local")
    )
    assert ("davy_route_weight_percent", "local", "observed", "products") not in samples()


def test_the_openapi_document_and_the_readable_docs_need_nothing_from_elsewhere(db):
    schema = json.loads(Client().get("/api/v1/openapi.json").content)
    assert schema["openapi"].startswith("3.1")
    assert "post" in schema["paths"]["/api/v1/models/{model}/versions"]
    page = Client().get("/api/v1/docs").content.decode()
    assert "POST /api/v1/models/{model}/versions" in page
    assert "artifact_uri" in page
    assert "<script" not in page
    assert "https://" not in page
