"""JSON for waves: one version on several fleets, one after another."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import http
from rollout import waves
from rollout.models import Rollout, Waves

router = Router()


class Reason(http.Body):
    """The body of a command."""

    reason: str


def waves_json(found: Waves) -> dict[str, Any]:
    """Waves as REST shows them, with a line for each fleet's rollout."""
    children = Rollout.objects.filter(waves=found).select_related("route__fleet").order_by("wave", "pk")
    return {
        "id": found.pk,
        "model": found.version.model.name,
        "version": found.version.name,
        "fleets": found.fleets,
        "plan": found.plan,
        "state": found.state,
        "wave": found.wave,
        "reason": found.reason,
        "started_at": found.started_at,
        "ended_at": found.ended_at,
        "rollouts": [
            {"id": r.pk, "fleet": r.route.fleet.name, "wave": r.wave, "state": r.state, "reason": r.reason}
            for r in children
        ],
    }


@router.get("/waves", auth=http.scope("read"))
def list_waves(request: HttpRequest) -> HttpResponse:
    """All waves, the latest first."""
    return http.paginate(request, Waves.objects.select_related("version__model"), waves_json)


@router.get("/waves/{waves_id}", auth=http.scope("read"))
def show_waves(request: HttpRequest, waves_id: int) -> HttpResponse:
    """One version's waves."""
    return JsonResponse(waves_json(waves.find(waves_id)))


@router.post("/waves/{waves_id}/abort", auth=http.scope("deploy"))
def abort_waves(request: HttpRequest, waves_id: int, body: Reason) -> HttpResponse:
    """Stop all waves and take back the fleets that moved."""
    actor, now = http.actor(request), timezone.now()
    found = waves.abort(waves_id, actor=actor, reason=body.reason, now=now)
    return JsonResponse(waves_json(found), status=202)
