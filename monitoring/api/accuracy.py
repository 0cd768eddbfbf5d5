"""JSON for accuracy: from labels of sampled requests, and what confidences lead to expect."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import http, problems, registry
from controlplane.models import ModelVersion
from monitoring import accuracy, accuracy_watch
from monitoring.api.asked import asked_of
from monitoring.models import DetectorState
from monitoring.statistics.accuracy import AccuracyEstimate
from monitoring.statistics.label_free import Calibrator

router = Router()

METHOD = "Hájek estimate; Wilson interval at the effective sample size"
LABEL_FREE_METHOD = (
    "mean calibrated confidence (CBPE); holds while confidences mean what they meant when labelled"
)


@router.get("/models/{model}/versions/{version}/accuracy", auth=http.scope("read"))
def get_accuracy(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Accuracy of the requests in the period (by default 30 days), with 95 % intervals.

    At the top level what *measure* labels say; `label_free` what the confidences of all requests lead to expect, or why
    that cannot be said; with `?by=device,country` both for every combination of these segment values; `watch` the
    comparison with the baseline that alerts.
    """
    owner = registry.get_version(model, version)
    asked = asked_of(request, timedelta(days=30))
    by = _by(request)
    found = accuracy.measured(owner, asked.since, asked.until, asked.segment)
    learned = accuracy.learn(owner, timezone.now())
    body = {
        "model": model,
        "version": version,
        **asked.json(),
        **asdict(found),
        "confidence": 0.95,
        "method": METHOD,
        "label_free": {"calibrated_with": learned.source, "method": LABEL_FREE_METHOD},
        "watch": _watch_json(owner),
    }
    if isinstance(learned.calibrator, Calibrator):
        expected = accuracy.expected(owner, asked.since, asked.until, learned.calibrator, asked.segment)
        body["label_free"] |= {**asdict(expected), "labels": learned.calibrator.labels}
    else:
        body["label_free"] |= {"accuracy": None, "reason": learned.calibrator.reason}
    if by:
        parts = accuracy.by_segment(owner, asked.since, asked.until, by, learned.calibrator, asked.segment)
        body["segments"] = [_segment_json(part) for part in parts]
    return JsonResponse(body)


def _by(request: HttpRequest) -> list[str]:
    text = request.GET.get("by")
    names = [] if text is None else text.split(",")
    if any(not name for name in names) or len(set(names)) < len(names):
        raise problems.field("/by", "bad_names", f"by={text!r}: want distinct segment names between commas")
    return names


def _segment_json(part: accuracy.SegmentAccuracy) -> dict[str, Any]:
    return {
        "segment": part.segment,
        **asdict(part.measured),
        "label_free": None if part.expected is None else asdict(part.expected),
        "agree": _agree(part.measured, part.expected),
    }


def _agree(measured: AccuracyEstimate, expected: AccuracyEstimate | None) -> bool | None:
    """Whether the two intervals have a value in common; None where one of them says nothing."""
    if expected is None or measured.accuracy is None or expected.accuracy is None:
        return None
    return measured.low <= expected.high and expected.low <= measured.high


def _watch_json(version: ModelVersion) -> dict[str, Any]:
    state = DetectorState.objects.filter(version=version, detector=accuracy_watch.NAME).first()
    if state is None:
        return {"status": DetectorState.Status.TOO_FEW, "reason": "no labels have been looked at yet"}
    return {
        "status": state.status,
        "reason": state.reason,
        "evaluated_until": state.evaluated_until,
        **{key: state.result.get(key) for key in ("sequence", "baseline", "alarm_below")},
    }
