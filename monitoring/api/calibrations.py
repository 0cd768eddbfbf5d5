"""JSON for calibrations: what is normal for a version, since when, and a person's yes to another level."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import http, registry
from monitoring import calibrations
from monitoring.models import Calibration

router = Router()


class Approval(http.Body):
    """Why what the fleet does now is normal."""

    reason: str


@router.get("/models/{model}/versions/{version}/calibrations", auth=http.scope("read"))
def list_calibrations(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """All calibrations of the version, newest first: in force, proposed, retired."""
    owner = registry.get_version(model, version)
    rows = Calibration.objects.filter(version=owner, segment_key="").defer("data")
    items = [calibrations.as_json(row) for row in rows.order_by("-made_at", "family")]
    return JsonResponse({"items": items})


@router.post(
    "/models/{model}/versions/{version}/calibrations/{family}/{int:number}/approve",
    auth=http.scope("deploy"),
)
def approve_calibration(
    request: HttpRequest, model: str, version: str, family: str, number: int, body: Approval
) -> HttpResponse:
    """Put a proposed calibration in force: 404 for an unknown one, 409 when it is not proposed, 422 without reason."""
    owner = registry.get_version(model, version)
    row = calibrations.find(owner, family, number)
    approved = calibrations.approve(row, http.actor(request), body.reason, timezone.now())
    return JsonResponse(calibrations.as_json(approved))
