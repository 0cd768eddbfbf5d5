"""JSON for accuracy: from labels of sampled requests."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from controlplane import http, registry
from monitoring import accuracy
from monitoring.api.asked import asked_of

router = Router()


@router.get("/models/{model}/versions/{version}/accuracy", auth=http.scope("read"))
def get_accuracy(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Accuracy from *measure* labels of requests in the period (by default 30 days), with its 95 % interval."""
    owner = registry.get_version(model, version)
    asked = asked_of(request, timedelta(days=30))
    found = accuracy.measured(owner, asked.since, asked.until, asked.segment)
    return JsonResponse(
        {
            "model": model,
            "version": version,
            **asked.json(),
            **asdict(found),
            "confidence": 0.95,
            "method": "Hájek estimate; Wilson interval at the effective sample size",
        }
    )
