"""JSON for telemetry in: collectors' reports, and predictions one by one."""

from __future__ import annotations

from dataclasses import asdict

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import http
from monitoring import bodies, imports, ingest

router = Router()


@router.post("/telemetry/windows", auth=http.scope("telemetry"))
def post_windows(request: HttpRequest) -> HttpResponse:
    """Store a collector's report (msgpack), once per (reporter, sequence); 202 after the commit.

    While requests are mirrored to or from this version the answer holds `shadow_share`: what share to sample; where
    another reference is in force than the report was counted with, `reference_digest`: that one's.
    """
    answer = ingest.store_report(_body(request), timezone.now())
    said = asdict(answer)
    body = {name: said[name] for name in ("accepted", "duplicate")}
    body |= {name: said[name] for name in ("shadow_share", "reference_digest") if said[name]}
    return JsonResponse(body, status=202)


@router.post("/telemetry/imports", auth=http.scope("deploy"))
def post_import(request: HttpRequest) -> HttpResponse:
    """Store one hour of a history of any age (a report as a collector's, from a full hour to the next, msgpack).

    Once per (reporter, sequence), for ever. It shows in pages, charts and calibration, and is never rollout evidence.
    """
    answer = imports.store_import(_body(request), timezone.now())
    return JsonResponse({"accepted": answer.accepted, "duplicate": answer.duplicate}, status=202)


@router.post("/telemetry/predictions", auth=http.scope("telemetry"))
def post_predictions(request: HttpRequest) -> HttpResponse:
    """Store up to 10,000 predictions (JSON, NDJSON or msgpack): good rows are kept, bad ones are listed."""
    rows = bodies.rows(_body(request), request.headers.get("Content-Type", ""), ingest.MAX_ROWS)
    return JsonResponse(asdict(ingest.store_predictions(rows, timezone.now())), status=202)


def _body(request: HttpRequest) -> bytes:
    return bodies.inflate(
        request.body, request.headers.get("Content-Encoding", "").lower(), settings.MAX_BODY_BYTES
    )
