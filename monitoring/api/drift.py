"""JSON for drift and confidence: the detectors' answers, and the numbers of a period."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from controlplane import http, registry
from controlplane.models import ModelVersion
from monitoring import references
from monitoring.alarm_states import calibrated
from monitoring.api.asked import asked_of, sliding
from monitoring.detectors import confidence_chart, embedding_drift
from monitoring.models import DetectorState

router = Router()


def _state_json(version: ModelVersion, detector: str) -> dict[str, Any]:
    """The detector's own answer, which is about all segments and the sliding window that it last looked at."""
    state = DetectorState.objects.filter(version=version, detector=detector).first()
    return {
        "model": version.model.name,
        "version": version.name,
        "detector": detector,
        "status": state.status if state else DetectorState.Status.TOO_FEW,
        "reason": state.reason if state else "no detector has looked at this version yet",
        "evaluated_until": state.evaluated_until if state else None,
    }


@router.get("/models/{model}/versions/{version}/drift", auth=http.scope("read"))
def get_drift(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The detector's answer, and the numbers of a period: by default the sliding window that ends now.

    `worst` holds both ECDFs of the furthest component at the bin edges; `calibrated` what the hourly alarm says,
    with its statistic, limit, rate and the days that it was calibrated on.
    """
    owner = registry.get_version(model, version)
    asked = asked_of(request, sliding())
    live, _ = asked.live(owner)
    bins = references.load(owner)
    body = {
        **_state_json(owner, embedding_drift.EmbeddingDrift.name),
        "calibrated": calibrated(owner, "embedding"),
        **asked.json(),
    }
    if bins is None:
        return JsonResponse({**body, "n": 0, "reference": None, "components": [], "worst": None})
    result = embedding_drift.measure(live, bins)
    return JsonResponse(
        {
            **body,
            **result,
            "reference": {"rows": bins.rows, "digest": bins.digest},
            "worst": embedding_drift.ecdf(live, bins, result["component"]),
        }
    )


@router.get("/models/{model}/versions/{version}/confidence", auth=http.scope("read"))
def get_confidence(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Histogram of live confidences (100 bins of .01) beside the reference's, and the shares that are watched."""
    owner = registry.get_version(model, version)
    asked = asked_of(request, sliding())
    live, total = asked.live(owner)
    bins = references.load(owner)
    measured = (
        confidence_chart.measure(live, bins) if bins else {"n": int(live.confidence.sum()), "shares": []}
    )
    return JsonResponse(
        {
            **_state_json(owner, confidence_chart.ConfidenceChart.name),
            "calibrated": calibrated(owner, "confidence"),
            "calibrated_detections": calibrated(owner, "detections"),
            **asked.json(),
            "from": total.start,
            "to": total.end,
            "requests": total.n,
            "errors": total.errors,
            **measured,
            "counts": live.confidence.tolist(),
            "reference_counts": bins.confidence_counts.tolist() if bins else None,
        }
    )
